//! Writes the requests of a job to the files of its parts, within the limits of the service.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};

use serde_json::json;

use super::state::{JobPart, JobTarget};
use super::state_file::{PartFile, StateFile, create_private, sync_folder};
use crate::key::Key;
use crate::wire::tokens;

/// Largest file that the service accepts.
pub(super) const MAX_FILE_BYTES: u64 = 200_000_000;
/// Longest line of a request.
pub(super) const MAX_REQUEST_BYTES: usize = 8 << 20;
/// Digits of a key in a `custom_id`, which recognise an input in a later job.
const KEY_DIGITS: usize = 16;

/// Limits of one part. A request has one input, so the limit of inputs per batch is that of requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartLimits {
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) tokens: u64,
}

/// One request of a job.
pub(super) struct JobRequest<'a> {
    pub(super) custom_id: String,
    /// The input as JSON.
    pub(super) input: &'a str,
    pub(super) tokens: u64,
}

/// Members of a request's body before its input.
#[derive(Clone, Debug)]
pub(super) struct JobRequestForm {
    url: String,
    opening: String,
}

/// Writer of the files of all parts.
pub(super) struct PartWriter<'a> {
    state_file: &'a StateFile,
    limits: PartLimits,
    requests: JobRequestForm,
    /// `None` if the service gets the same requests as applications send.
    upload: Option<JobRequestForm>,
    open: Option<OpenPart>,
    /// Number of the first part.
    first: usize,
    pub(super) parts: Vec<JobPart>,
}

struct OpenPart {
    requests: BufWriter<File>,
    upload: Option<BufWriter<File>>,
    bytes: u64,
}

/// Returns the name of a request: file, line and the beginning of its key.
pub(super) fn custom_id(file: usize, number: u64, key: &Key) -> String {
    format!("f{}-{number}-{}", file + 1, &key.to_string()[..KEY_DIGITS])
}

/// Returns file, line and key in a name that [`custom_id`] made.
pub(super) fn parsed_id(custom_id: &str) -> Option<(usize, u64, &str)> {
    let mut parts = custom_id.strip_prefix('f')?.splitn(3, '-');
    let file: usize = parts.next()?.parse().ok()?;
    Some((file.checked_sub(1)?, parts.next()?.parse().ok()?, parts.next()?))
}

/// Returns the beginning of a key as in a name.
pub(super) fn key_digits(key: &Key) -> String {
    key.to_string()[..KEY_DIGITS].to_owned()
}

/// Returns the tokens of an input. Texts of models with another tokenizer are estimated.
pub(super) fn tokens_of(json: &str, model: &str) -> u64 {
    if json.starts_with('[') {
        return json.split(',').count() as u64;
    }
    let text: String = serde_json::from_str(json).unwrap_or_default();
    if tokens::counts_with_cl100k(model) { tokens::count(&text).into() } else { tokens::estimate(&text) as u64 }
}

impl JobRequestForm {
    /// Creates the form of requests to a path. `is_f32` is true if base64 from this service is known to be f32.
    pub(super) fn new(url: &str, model: &str, dimensions: Option<u32>, is_f32: bool) -> Self {
        let dimensions = dimensions.map_or_else(String::new, |number| format!("\"dimensions\":{number},"));
        // base64 is a quarter of the size of decimal numbers.
        let encoding = if is_f32 { "base64" } else { "float" };
        let opening = format!(r#"{{"model":{},"encoding_format":"{encoding}",{dimensions}"input":"#, json!(model));
        Self { url: url.to_owned(), opening }
    }

    /// Returns a body for an input or a list of inputs.
    pub(super) fn body(&self, input: &str) -> String {
        format!("{}{input}}}", self.opening)
    }

    fn line(&self, request: &JobRequest<'_>) -> String {
        let JobRequest { custom_id, input, .. } = request;
        let (url, body) = (json!(self.url), self.body(input));
        format!("{{\"custom_id\":{},\"method\":\"POST\",\"url\":{url},\"body\":{body}}}\n", json!(custom_id))
    }
}

impl<'a> PartWriter<'a> {
    /// Creates a writer. `endpoint` is the path in the requests that the service gets.
    pub(super) fn new(
        state_file: &'a StateFile,
        limits: PartLimits,
        target: &JobTarget,
        (endpoint, is_f32): (&str, bool),
    ) -> Self {
        let requests = JobRequestForm::new(&target.path, &target.model, target.dimensions, is_f32);
        let is_same = endpoint == target.path && target.batch_model == target.model;
        let upload = (!is_same).then(|| JobRequestForm::new(endpoint, &target.batch_model, target.dimensions, is_f32));
        Self { state_file, limits, requests, upload, open: None, first: 1, parts: Vec::new() }
    }

    /// Numbers the parts from `first` on.
    pub(super) fn numbered_from(self, first: usize) -> Self {
        Self { first, ..self }
    }

    /// Adds a request. A part ends before it exceeds a limit.
    pub(super) fn add(&mut self, request: &JobRequest<'_>) -> io::Result<()> {
        let line = self.requests.line(request);
        let upload_line = self.upload.as_ref().map(|form| form.line(request));
        let bytes = upload_line.as_ref().unwrap_or(&line).len() as u64;
        if let (Some(open), Some(part)) = (&self.open, self.parts.last())
            && (part.requests >= self.limits.requests
                || open.bytes + bytes > self.limits.bytes
                || part.tokens + request.tokens > self.limits.tokens)
        {
            self.end_part()?;
        }
        if self.open.is_none() {
            self.begin_part()?;
        }
        if let (Some(open), Some(part)) = (&mut self.open, self.parts.last_mut()) {
            open.requests.write_all(line.as_bytes())?;
            if let (Some(file), Some(line)) = (&mut open.upload, upload_line) {
                file.write_all(line.as_bytes())?;
            }
            open.bytes += bytes;
            part.requests += 1;
            part.tokens += request.tokens;
        }
        Ok(())
    }

    /// Makes all files durable, and returns the parts.
    pub(super) fn end(mut self) -> io::Result<Vec<JobPart>> {
        self.end_part()?;
        sync_folder(self.state_file.path())?;
        Ok(self.parts)
    }

    fn begin_part(&mut self) -> io::Result<()> {
        let number = self.first + self.parts.len();
        // Files of an earlier plan that was never approved are replaced.
        self.state_file.remove_part(number);
        let create = |file| create_private(&self.state_file.of_part(number, file)).map(BufWriter::new);
        let requests = create(PartFile::Requests)?;
        let upload = if self.upload.is_some() { Some(create(PartFile::Upload)?) } else { None };
        self.open = Some(OpenPart { requests, upload, bytes: 0 });
        self.parts.push(JobPart::new(number));
        Ok(())
    }

    fn end_part(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        for file in [Some(open.requests), open.upload].into_iter().flatten() {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        }
        Ok(())
    }
}

/// Returns the file that is uploaded for a part.
pub(super) fn uploaded_file(state_file: &StateFile, number: usize) -> std::path::PathBuf {
    let upload = state_file.of_part(number, PartFile::Upload);
    if fs::exists(&upload).unwrap_or(false) { upload } else { state_file.of_part(number, PartFile::Requests) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyBuilder;

    #[test]
    fn a_name_holds_file_line_and_key() {
        let key = KeyBuilder::new(None).finish();
        let name = custom_id(0, 17, &key);
        assert_eq!(parsed_id(&name), Some((0, 17, &*key_digits(&key))));
        assert!(name.len() < 64);
        for other in ["", "f", "f1", "f0-1-a", "f1-x-a", "line-1-a"] {
            assert_eq!(parsed_id(other), None, "{other}");
        }
    }

    #[test]
    fn a_request_asks_for_base64_only_where_it_is_known_to_be_f32() {
        let body = |is_f32| JobRequestForm::new("/v1/embeddings", "m", Some(8), is_f32).body("\"a\"");
        assert_eq!(body(true), r#"{"model":"m","encoding_format":"base64","dimensions":8,"input":"a"}"#);
        assert_eq!(body(false), r#"{"model":"m","encoding_format":"float","dimensions":8,"input":"a"}"#);
    }

    #[test]
    fn a_part_ends_before_it_exceeds_a_limit() {
        let folder = std::env::temp_dir().join(format!("vecho-parts-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder is writable");
        let state_file = StateFile::lock(&folder.join("state")).expect("the folder is writable");
        let target = JobTarget {
            upstream: String::new(),
            path: "/v1/embeddings".to_owned(),
            model: "m".to_owned(),
            batch_model: "m".to_owned(),
            dimensions: None,
            namespace: None,
        };
        let limits = PartLimits { requests: 3, bytes: 500, tokens: 10 };
        let mut writer = PartWriter::new(&state_file, limits, &target, ("/v1/embeddings", false));
        let long = format!("\"{}\"", "x".repeat(300));
        for (input, tokens) in [("1", 1), ("2", 1), ("3", 1), ("4", 6), ("5", 6), (&*long, 1), (&*long, 1), ("8", 99)] {
            let custom_id = "f1-1-0".to_owned();
            writer.add(&JobRequest { custom_id, input, tokens }).expect("the folder is writable");
        }
        let parts = writer.end().expect("the folder is writable");
        let sizes: Vec<(u64, u64)> = parts.iter().map(|part| (part.requests, part.tokens)).collect();
        assert_eq!(sizes, [(3, 3), (1, 6), (1, 6), (1, 1), (1, 1), (1, 99)]);
        for part in &parts {
            let file = fs::metadata(uploaded_file(&state_file, part.number)).expect("the file is there");
            assert!(file.len() <= limits.bytes, "{part:?}: {}", file.len());
        }
        assert_eq!(MAX_FILE_BYTES, 200_000_000, "the limit of both services");
        drop(state_file);
        fs::remove_dir_all(folder).expect("it is there");
    }
}
