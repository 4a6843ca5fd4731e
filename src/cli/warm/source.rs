//! Reads the inputs of files: one per line, or the chunks of a document.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, mem};

use super::chunk::{ChunkSize, chunks};
use super::line::{LineFormat, MAX_LINE_BYTES, read_line};
use super::options::WarmOptions;
use crate::cli::moving::{CommandError, STANDARD};
use crate::process::lines::{Line, NumberedLines};
use crate::wire::InputKind;

/// Longest document. It is read into memory to be divided.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// Place of an input: the position of its file on the command line, and its line or chunk, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) number: u64,
}

/// The next item of the files.
#[derive(Debug)]
pub(super) enum SourceItem {
    Input {
        place: Place,
        /// Bytes that the input takes in its file.
        size: u64,
        json: Box<str>,
        kind: InputKind,
    },
    /// A message about a whole file.
    Note(String),
    /// A line that is not a valid input.
    Fault { place: Place, size: u64, cause: &'static str },
    /// The rest is unreadable.
    Unreadable(String),
}

/// Names of places for messages.
#[derive(Clone, Debug)]
pub(super) struct PlaceNames {
    files: Arc<[PathBuf]>,
    unit: &'static str,
}

/// Inputs of the files in their order.
pub(super) struct Inputs {
    names: PlaceNames,
    /// Position of the file that is opened next.
    next_file: usize,
    open: Option<NumberedLines<Box<dyn BufRead + Send>>>,
    /// Format of all files, if an option says it.
    given: Option<LineFormat>,
    /// Format of the open file; `None` until its first line has determined it.
    format: Option<LineFormat>,
    chunk_size: Option<ChunkSize>,
    ready: VecDeque<SourceItem>,
}

impl PlaceNames {
    pub(super) fn new(options: &WarmOptions) -> Self {
        Self::of_files(&options.files, options.reading.chunk.is_some())
    }

    /// Creates the names of places in these files.
    pub(super) fn of_files(files: &[PathBuf], is_chunked: bool) -> Self {
        Self { files: files.into(), unit: if is_chunked { "chunk" } else { "line" } }
    }

    /// Returns a place as messages name it: without the file if there is only one.
    pub(super) fn of(&self, place: Place) -> String {
        let Place { file, number } = place;
        match (self.files.len(), self.files.get(file)) {
            (2.., Some(path)) => format!("{}: {} {number}", path.display(), self.unit),
            _ => format!("{} {number}", self.unit),
        }
    }
}

impl Inputs {
    /// Prepares to read the files. Fails if one does not exist.
    pub(super) fn new(options: &WarmOptions) -> Result<Self, CommandError> {
        // The files are opened one by one, since there may be more of them than a process may open.
        for file in options.files.iter().filter(|file| !is_standard(file)) {
            File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let chunk_size = options.reading.chunk_size()?;
        let given = options.reading.text.then_some(LineFormat::Plain);
        let (names, ready) = (PlaceNames::new(options), VecDeque::new());
        Ok(Self { names, next_file: 0, open: None, given, format: None, chunk_size, ready })
    }

    /// Returns the bytes of all files, or `None` if a file has no length.
    pub(super) fn bytes(&self) -> Option<u64> {
        // A pipe has no length, so its progress has no total.
        let length = |file: &PathBuf| fs::metadata(file).ok().filter(fs::Metadata::is_file).map(|data| data.len());
        self.names.files.iter().map(length).sum()
    }

    /// Opens the next file. Returns false at the end.
    fn open_next(&mut self) -> bool {
        let Some(path) = self.names.files.get(self.next_file).cloned() else { return false };
        self.next_file += 1;
        match open(&path) {
            Err(error) => self.give_up(&path, &error),
            Ok(from) => {
                if let Some(size) = self.chunk_size {
                    self.divide(&path, from, size);
                } else {
                    let extension = path.extension().and_then(OsStr::to_str);
                    self.format = self.given.or_else(|| LineFormat::of_extension(extension));
                    self.open = Some(NumberedLines::new(from, MAX_LINE_BYTES));
                }
            }
        }
        true
    }

    fn divide(&mut self, path: &Path, from: Box<dyn BufRead + Send>, chunk_size: ChunkSize) {
        let file = self.next_file - 1;
        let mut bytes = Vec::new();
        if let Err(error) = from.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes) {
            return self.give_up(path, &error);
        }
        let size = bytes.len() as u64;
        let fault = |cause| SourceItem::Fault { place: Place { file, number: 1 }, size, cause };
        if size > MAX_DOCUMENT_BYTES {
            return self.ready.push_back(fault("the document is longer than 64 MiB"));
        }
        let Ok(text) = String::from_utf8(bytes) else { return self.ready.push_back(fault("it is not UTF-8")) };
        let text = text.trim_start_matches('\u{feff}');
        let mut left = size;
        for (number, chunk) in (1..).zip(chunks(text, chunk_size)) {
            let json = serde_json::Value::from(chunk).to_string().into();
            // The sizes of overlapping chunks add up to the size of the document.
            let size = left.min(chunk.len() as u64);
            left -= size;
            self.ready.push_back(SourceItem::Input {
                place: Place { file, number },
                size,
                json,
                kind: InputKind::Text,
            });
        }
    }

    fn read_next_line(&mut self) {
        let Some(lines) = &mut self.open else { return };
        match lines.next_line() {
            Ok(Some(line)) => self.take_in(&line),
            Ok(None) => self.open = None,
            Err(error) => {
                let path = self.names.files[self.next_file - 1].clone();
                self.give_up(&path, &error);
            }
        }
    }

    fn take_in(&mut self, line: &Line) {
        let (place, size) = (Place { file: self.next_file - 1, number: line.number }, line.size);
        let format = self.format_of(line);
        self.ready.push_back(match read_line(line, format) {
            Err(cause) => SourceItem::Fault { place, size, cause },
            Ok((json, kind)) => SourceItem::Input { place, size, json: json.into_owned().into(), kind },
        });
    }

    fn format_of(&mut self, line: &Line) -> LineFormat {
        if let Some(format) = self.format {
            return format;
        }
        let format = LineFormat::of(line);
        if format == LineFormat::Plain {
            let name = match self.names.files.len() {
                2.. => self.names.files[self.next_file - 1].display().to_string(),
                _ => "the file".to_owned(),
            };
            self.ready.push_back(SourceItem::Note(format!("{name} is read as plain text: one text a line")));
        }
        *self.format.insert(format)
    }

    /// Ends the whole source.
    fn give_up(&mut self, path: &Path, error: &io::Error) {
        self.next_file = self.names.files.len();
        self.open = None;
        self.ready.push_back(SourceItem::Unreadable(format!("cannot read {}: {error}", path.display())));
    }
}

impl Iterator for Inputs {
    type Item = SourceItem;

    fn next(&mut self) -> Option<SourceItem> {
        while self.ready.is_empty() {
            if self.open.is_some() {
                self.read_next_line();
            } else if !self.open_next() {
                return None;
            }
        }
        let next = self.ready.pop_front();
        if self.ready.is_empty() {
            // A divided document may have needed much memory.
            drop(mem::take(&mut self.ready));
        }
        next
    }
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("names", &self.names).field("next_file", &self.next_file).finish_non_exhaustive()
    }
}

pub(super) fn is_standard(file: &Path) -> bool {
    file == Path::new(STANDARD)
}

fn open(file: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    if is_standard(file) {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    Ok(Box::new(BufReader::new(File::open(file)?)))
}

/// Returns the inputs of a text, as if it were a file.
#[cfg(test)]
pub(super) fn inputs_of(text: &str, format: Option<LineFormat>) -> Inputs {
    let names = PlaceNames { files: [PathBuf::from("texts")].into(), unit: "line" };
    let from: Box<dyn BufRead + Send> = Box::new(io::Cursor::new(text.to_owned()));
    let open = Some(NumberedLines::new(from, MAX_LINE_BYTES));
    Inputs { names, next_file: 1, open, given: None, format, chunk_size: None, ready: VecDeque::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_line_is_reported_with_its_number_and_cause() {
        let huge = "x".repeat(MAX_LINE_BYTES + 1);
        let cases = [
            ("\"\"", "the text is empty"),
            ("{\"input\":[]}", "the array of tokens is empty"),
            ("{\"input\":[1,\"a\"]}", "it is not an array of tokens"),
            ("{\"input\":[-1]}", "it is not an array of tokens"),
            ("{\"input\":7}", "it is neither a text nor an array of tokens"),
            ("{\"text\":\"a\",\"input\":\"b\"}", "it has both text and input"),
            ("{\"body\":\"a\"}", "it has neither text nor input"),
            ("{\"text\":\"a\"", "it is not JSON"),
            ("\"a", "it is not JSON"),
            ("\"\\ud800\"", "it is not JSON"),
            ("plain", "it is neither a text nor an array of tokens"),
            ("7", "it is neither a text nor an array of tokens"),
            (&huge, "it is longer than 1 MiB"),
        ];
        for (line, expected) in cases {
            let read: Vec<SourceItem> = inputs_of(&format!("\n{line}\n"), Some(LineFormat::Json)).collect();
            let place = Place { file: 0, number: 2 };
            assert!(
                matches!(&read[..], [SourceItem::Fault { place: found, cause, .. }] if *found == place && *cause == expected),
                "{expected}: {read:?}"
            );
        }
    }

    #[test]
    fn a_file_whose_first_line_is_not_json_is_plain_text() {
        let read: Vec<SourceItem> = inputs_of("\u{feff}A \"quoted\" word\r\n\n  two\n\"three\"\n", None).collect();
        assert!(matches!(read[0], SourceItem::Note(_)), "{read:?}");
        let inputs: Vec<(u64, &str)> = read[1..]
            .iter()
            .map(|item| match item {
                SourceItem::Input { place, json, .. } => (place.number, &**json),
                other => panic!("no input: {other:?}"),
            })
            .collect();
        assert_eq!(inputs, [(1, r#""A \"quoted\" word""#), (3, r#""  two""#), (4, r#""\"three\"""#)]);
        for json in ["\"a\"\nplain\n", "{\"text\":\n", "[1]\n", "7\n"] {
            let first = inputs_of(json, None).next();
            assert!(!matches!(first, Some(SourceItem::Note(_))), "{json} is JSON");
        }
    }
}
