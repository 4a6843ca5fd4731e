//! Rules for single files: owners of dependencies, forbidden constructs, and limits on length.

use super::code::{File, end_of_item, words};

/// Maximum number of lines of a file.
const MAX_FILE_LINES: usize = 400;
/// Maximum number of lines of a function without a written reason.
const MAX_FUNCTION_LINES: usize = 60;

/// Dependencies with an owner: only these files or folders may name them.
pub(super) const OWNERS: &[(&str, &[&str])] = &[
    ("arc_swap", &["config/live.rs"]),
    // rustls has a module of this name.
    ("aws_lc_rs", &["key/process_secret.rs", "process/random.rs", "serve/tls.rs"]),
    ("base64_simd", &["cli/doctor/call.rs", "cli/find_mocks.rs", "config/proxies.rs", "flow/token_claims.rs", "wire/"]),
    // The guard compares hashes of tokens, because blake3 compares them in constant time.
    ("blake3", &["admin/guard.rs", "config/source.rs", "key/", "cache/at_rest.rs", "cache/disk/checksum.rs"]),
    // The tests compare with it.
    ("bpe_openai", &["wire/tokens.rs"]),
    ("brotli", &["wire/coding/"]),
    ("brotli_decompressor", &["wire/coding/"]),
    ("clap", &["cli/"]),
    ("flate2", &["wire/coding/"]),
    ("getrandom", &["process/random.rs"]),
    ("h2", &["upstream/http2.rs"]),
    ("hdrhistogram", &["observe/metrics/"]),
    ("humantime", &["process/clock.rs", "config/"]),
    ("hyper_rustls", &["process/connector/"]),
    ("indicatif", &["cli/progress.rs"]),
    ("libc", &["process/heap.rs"]),
    ("memchr", &["serve/framing.rs", "wire/"]),
    ("opentelemetry", &["observe/traces/"]),
    ("opentelemetry_proto", &["observe/traces/"]),
    ("opentelemetry_sdk", &["observe/traces/"]),
    ("percent_encoding", &["config/"]),
    ("prometheus", &["observe/metrics/"]),
    ("prost", &["observe/traces/"]),
    ("moka", &["process/expiring.rs"]),
    ("quick_cache", &["cache/bounded/"]),
    ("redis", &["cache/redis/"]),
    ("socket2", &["serve/listener.rs"]),
    ("strsim", &["config/"]),
    ("sysinfo", &["process/file_system.rs", "process/system.rs"]),
    ("tiktoken", &["wire/tokens.rs"]),
    ("tokio_rustls", &["serve/"]),
    ("toml", &["config/"]),
    ("tracing_subscriber", &["config/logging.rs", "observe/logs/"]),
    ("url", &["upstream/redirect.rs"]),
    ("webpki_roots", &["process/connector/"]),
    ("zmij", &["wire/"]),
    ("zstd_safe", &["wire/coding/"]),
];

/// Forbidden constructs, each with the one file that may contain it.
const FORBIDDEN: &[(&str, Option<&str>)] = &[
    (".unwrap()", None),
    ("#[allow", None),
    ("#![allow", None),
    ("dbg!", None),
    ("eprintln!", None),
    ("print!", None),
    ("println!", None),
    ("todo!", None),
    ("tokio::spawn", Some("process/tasks.rs")),
    ("tokio::task::spawn(", Some("process/tasks.rs")),
    ("unimplemented!", None),
    ("unsafe", Some("process/heap.rs")),
];

/// Reports dependencies that are named outside their owners.
pub(super) fn strays(file: &File) -> Vec<String> {
    let owned_elsewhere = |owners: &&[&str]| !owners.iter().any(|owner| owns(owner, &file.path));
    let strangers = OWNERS.iter().filter(|(_, owners)| owned_elsewhere(owners));
    let named = strangers.flat_map(|(name, _)| words(&file.code, name).map(move |at| (at, name)));
    named
        .filter(|(at, name)| file.code[at + name.len()..].starts_with("::") && !file.code[..*at].ends_with("::"))
        .map(|(at, name)| format!("{}: {name} belongs to another file", file.at(at)))
        .collect()
}

fn owns(owner: &str, path: &str) -> bool {
    if owner.ends_with('/') { path.starts_with(owner) } else { path == owner }
}

/// Reports forbidden constructs.
pub(super) fn forbidden(file: &File) -> Vec<String> {
    let rules = FORBIDDEN.iter().filter(|(_, but)| *but != Some(file.path.as_str()));
    rules.flat_map(|(what, _)| places(file, what)).collect()
}

/// Reports uses of `#[allow]`, also in tests. `#[expect]` is required instead, because the compiler reports it when
/// it is no longer needed.
pub(super) fn allows(file: &File) -> Vec<String> {
    let code = super::code::blank(&file.text);
    let whole = File { code, ..file.clone() };
    ["#[allow", "#![allow"].iter().flat_map(|what| places(&whole, what)).collect()
}

fn places(file: &File, what: &str) -> Vec<String> {
    let begins_word = what.starts_with(|first: char| first.is_alphabetic());
    let found = file.code.match_indices(what).map(|(at, _)| at);
    let found = found.filter(|at| {
        let after = file.code[at + what.len()..].bytes().next().unwrap_or(b' ');
        let ends_word = !what.ends_with(|last: char| last.is_alphabetic()) || !super::code::is_word(after);
        let before = file.code[..*at].bytes().last().unwrap_or(b' ');
        ends_word && !(begins_word && super::code::is_word(before))
    });
    found.map(|at| format!("{}: {what} must not stand here", file.at(at))).collect()
}

/// Keywords of items that a `mod.rs` must not hold. It has documentation, `mod` lines and re-exports.
const ITEMS: &[&str] = &["const", "enum", "fn", "impl", "macro_rules", "static", "struct", "trait", "type", "union"];

/// Reports items in a `mod.rs`, also in its tests.
pub(super) fn code_in_door(file: &File) -> Vec<String> {
    let Some(folder) = file.path.strip_suffix("/mod.rs") else {
        return Vec::new();
    };
    let code = super::code::blank(&file.text);
    let whole = File { code, ..file.clone() };
    let found = ITEMS.iter().flat_map(|item| words(&whole.code, item).map(move |at| (at, item)));
    found.map(|(at, item)| format!("{}: `{item}` belongs in another file of {folder}", whole.at(at))).collect()
}

/// Reports a file that is too long.
pub(super) fn overlong_file(file: &File) -> Option<String> {
    let lines = file.text.lines().count();
    (lines > MAX_FILE_LINES).then(|| format!("{}: {lines} lines, more than {MAX_FILE_LINES}", file.path))
}

/// Reports functions that are too long and give no reason.
pub(super) fn overlong_functions(file: &File) -> Vec<String> {
    let long = words(&file.code, "fn").filter_map(|at| {
        let lines = file.code[at..end_of_item(&file.code, at)].matches('\n').count() + 1;
        (lines > MAX_FUNCTION_LINES && !has_reason(&file.code[..at]))
            .then(|| format!("{}: a function of {lines} lines, more than {MAX_FUNCTION_LINES}", file.at(at)))
    });
    long.collect()
}

/// Returns true if the attributes before a function contain the reason for its length.
fn has_reason(before: &str) -> bool {
    let item = before.rfind([';', '{', '}']).map_or(before, |at| &before[at..]);
    item.contains("expect(clippy::too_many_lines")
}
