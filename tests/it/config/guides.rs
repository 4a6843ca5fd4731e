//! The parts of the guides that are generated from the table of keys.

use std::fs;
use std::path::Path;

use vecho::config::{ConfigKey, KEYS};

/// Longest line of a generated list.
const MAX_LINE: usize = 120;

/// Replaces the text between each pair of `begin` and `end` with `part`, which gets what follows `begin` in its
/// comment.
fn replaced(text: &str, (begin, end): (&str, &str), part: impl Fn(&str) -> String) -> String {
    let mut blocks = text.split(begin);
    let mut result = blocks.next().unwrap_or_default().to_owned();
    for block in blocks {
        let (subject, rest) = block.split_once(" -->\n").expect("a block must begin with a comment");
        let (_, after) = rest.split_once(end).expect("a block must have an end");
        result.extend([begin, subject, " -->\n", &part(subject.trim()), end, after]);
    }
    result
}

/// Returns the keys of a section as a table.
fn table(section: &str) -> String {
    let keys: Vec<&ConfigKey> = KEYS.iter().filter(|key| key.split().0 == Some(section)).collect();
    assert!(!keys.is_empty(), "there is no section {section:?}");
    let row = |key: &&ConfigKey| {
        let default = if key.default == "none" { "none".to_owned() } else { format!("`{}`", key.default) };
        format!("| `{}` | {default} | {} |\n", key.name, key.doc.replace('|', "\\|"))
    };
    "| key | default | meaning |\n|---|---|---|\n".to_owned() + &keys.iter().map(row).collect::<String>()
}

/// Returns the names of all live keys as a list.
fn live_keys() -> String {
    let names: Vec<String> = KEYS.iter().filter(|key| key.live).map(|key| format!("`{}`", key.name)).collect();
    let (mut text, mut line) = (String::new(), String::new());
    for (at, name) in names.iter().enumerate() {
        let word = if at + 1 == names.len() { name.clone() } else { format!("{name},") };
        if line.len() + 1 + word.len() > MAX_LINE {
            text.extend([line.as_str(), "\n"]);
            line.clear();
        }
        line = if line.is_empty() { word } else { format!("{line} {word}") };
    }
    text + &line + "\n"
}

#[test]
fn the_documentation_of_keys_is_generated_from_the_table() {
    for (name, blocks) in
        [("BUDGETS.md", 1), ("CACHING.md", 1), ("CONFIGURATION.md", 3), ("RATE_LIMITS.md", 2), ("TIERS.md", 2)]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(written.matches("<!-- keys of ").count(), blocks, "docs/{name} has {blocks} tables of keys");
        let expected = replaced(&written, ("<!-- keys of ", "<!-- end of keys -->"), table);
        let expected = replaced(&expected, ("<!-- live keys", "<!-- end of live keys -->"), |_| live_keys());
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            fs::write(&path, &expected).unwrap();
        }
        let same = fs::read_to_string(&path).unwrap() == expected;
        assert!(same, "docs/{name} differs from the table of keys: run this test with UPDATE_FIXTURES=1");
    }
}

#[test]
fn replacing_a_block_keeps_the_surrounding_text() {
    let text = "a\n<!-- keys of x -->\nold\n<!-- end -->\nb\n<!-- keys of y -->\n<!-- end -->\nc";
    let result = replaced(text, ("<!-- keys of ", "<!-- end -->"), |subject| format!("new {subject}\n"));
    assert_eq!(result, "a\n<!-- keys of x -->\nnew x\n<!-- end -->\nb\n<!-- keys of y -->\nnew y\n<!-- end -->\nc");
}
