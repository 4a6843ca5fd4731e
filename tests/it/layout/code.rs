//! Rust source for the rules: comments and literals are blanked and unit tests removed. Line numbers stay the same.

use std::fs;
use std::path::Path;

/// One source file.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Relative to the folder that was read, with `/` as separator.
    pub(super) path: String,
    /// The unchanged text.
    pub(super) text: String,
    /// The text without comments, literals and unit tests.
    pub(super) code: String,
}

impl File {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: without_tests(blank(text)) }
    }

    /// Returns the top-level module that this file belongs to.
    pub(super) fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Returns true if the whole file is a unit test.
    pub(super) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }

    /// Returns a position in this file, for a message.
    pub(super) fn at(&self, offset: usize) -> String {
        format!("{}:{}", self.path, self.code[..offset].matches('\n').count() + 1)
    }
}

/// Reads every Rust file under a folder of the project.
pub(super) fn read_folder(name: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let mut files = Vec::new();
    walk(&root, "", &mut files);
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("a source folder can be read") {
        let entry = entry.expect("an entry can be read");
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{path}/"), files);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            files.push(File::new(&path, &fs::read_to_string(entry.path()).expect("source is UTF-8")));
        }
    }
}

/// Replaces comments and literals by the same number of spaces.
pub(super) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        if let Some(end) = end_of_blank(bytes, at) {
            out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns the end of the comment or literal that begins here.
fn end_of_blank(bytes: &[u8], at: usize) -> Option<usize> {
    match &bytes[at..] {
        [b'/', b'/', ..] => Some(find(bytes, at, b"\n")),
        [b'/', b'*', ..] => Some(end_of_block(bytes, at)),
        [b'"', ..] => Some(end_of_quoted(bytes, at, b'"')),
        [b'r', b'"' | b'#', ..] if at == 0 || !is_word(bytes[at - 1]) || bytes[at - 1] == b'b' => end_of_raw(bytes, at),
        // A quote without another quote close behind it is a lifetime.
        [b'\'', b'\\', ..] => Some(end_of_quoted(bytes, at, b'\'')),
        [b'\'', rest @ ..] => {
            let near = rest.iter().take(5).position(|byte| *byte == b'\'').filter(|length| *length > 0)?;
            let one_char = std::str::from_utf8(&rest[..near]).is_ok_and(|text| text.chars().count() == 1);
            one_char.then_some(at + near + 2)
        }
        _ => None,
    }
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> usize {
    let found = bytes[from..].windows(needle.len()).position(|window| window == needle);
    found.map_or(bytes.len(), |length| from + length)
}

fn end_of_block(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut at) = (0_usize, at);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_quoted(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut at = at + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn end_of_raw(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let opening = at + 1 + hashes;
    if bytes.get(opening) != Some(&b'"') {
        return None;
    }
    let closing = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    Some((find(bytes, opening + 1, &closing) + closing.len()).min(bytes.len()))
}

/// Blanks items that are compiled only for tests.
fn without_tests(code: String) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut code = code;
    while let Some(start) = code.find(MARK) {
        let end = end_of_item(&code, start + MARK.len());
        let lines: String = code[start..end].chars().filter(|letter| *letter == '\n').collect();
        code.replace_range(start..end, &lines);
    }
    code
}

/// Returns the end of the item that begins at `from`: its semicolon or its closing brace.
pub(super) fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = Depth::default();
    for (at, letter) in code[from..].char_indices() {
        depth.step(letter);
        if depth.braces == 0 && depth.others == 0 && (letter == ';' || letter == '}') {
            return from + at + 1;
        }
    }
    code.len()
}

/// Nesting depth in brackets.
#[derive(Default)]
struct Depth {
    braces: usize,
    others: usize,
}

impl Depth {
    fn step(&mut self, letter: char) {
        match letter {
            '{' => self.braces += 1,
            '}' => self.braces = self.braces.saturating_sub(1),
            '(' | '[' => self.others += 1,
            ')' | ']' => self.others = self.others.saturating_sub(1),
            _ => {}
        }
    }
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Returns the positions of `name` in the code as a whole word.
pub(super) fn words<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(name).map(|(at, _)| at).filter(move |at| {
        let (before, after) = (&code.as_bytes()[..*at], code.as_bytes().get(at + name.len()));
        before.last().is_none_or(|byte| !is_word(*byte)) && after.is_none_or(|byte| !is_word(*byte))
    })
}
