//! The table of keys as a commented configuration file: `config/vecho.toml` is this text.

use super::{ConfigKey, KEYS};

const HEAD: &str = "\
# Every key of vecho with its default. Generated from the table of keys in src/config/keys.
#
# Later layers win: defaults, this file (--config or VECHO_CONFIG), environment, flags. Each key has an environment
# variable: upstream.url is VECHO_UPSTREAM_URL, listen is VECHO_LISTEN; lists are separated by commas there.
# Times are text with a unit (\"250ms\", \"30s\", \"5m\", \"1h\", \"30d\") or a whole number of seconds.
# Keys marked (live) take effect when the file changes or on SIGHUP; the others at the next start.
";

/// Formats every key with its description and default as a configuration file.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    let mut at = None;
    for key in KEYS {
        let section = key.split().0;
        match section {
            None => text.push('\n'),
            Some(name) if section != at => text.extend(["\n[", name, "]\n"]),
            Some(_) => {}
        }
        at = section;
        text.push_str(&lines(key));
    }
    text
}

fn lines(key: &ConfigKey) -> String {
    let (_, name) = key.split();
    let live = if key.live { " (live)" } else { "" };
    let set = match key.default {
        "none" => format!("# {name} ="),
        default => format!("{name} = {default}"),
    };
    format!("# {}{live}\n{set}\n", key.doc)
}
