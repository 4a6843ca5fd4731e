//! Files and batches of the stub.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::Stub;

/// Limits of the service.
const MAX_REQUESTS: usize = 50_000;
const MAX_FILE_BYTES: usize = 200_000_000;

/// The end of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Completed,
    /// Expires after this number of requests was answered. The others are in the file of errors.
    Expired(usize),
    /// Is cancelled after this number of requests. The others are in no file.
    Cancelled(usize),
    /// Fails as a whole.
    Failed {
        code: &'static str,
        message: &'static str,
    },
}

/// The refusal of one input.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) text: String,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// State of the service.
#[derive(Default)]
pub(crate) struct Service {
    pub(crate) is_azure: bool,
    pub(crate) files: Vec<StoredFile>,
    pub(crate) batches: Vec<StoredBatch>,
    /// Number of uploads that were accepted.
    pub(crate) uploads: usize,
    /// Times that each input was billed.
    pub(crate) billed: BTreeMap<String, usize>,
    pub(crate) refusals: Vec<Refusal>,
    /// Ends of the next batches; then all are completed.
    pub(crate) endings: Vec<Ending>,
    /// Polls of a batch before its end.
    pub(crate) polls: usize,
    /// Violations of the service's rules.
    pub(crate) violations: Vec<String>,
    /// Model that answers live requests; without it there are none.
    pub(crate) live_model: Option<&'static str>,
    /// Answers vectors of zeros, which no model returns.
    pub(crate) answers_zeros: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct StoredFile {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    pub(crate) is_deleted: bool,
    /// Requests for its state so far.
    pub(crate) looks: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct StoredBatch {
    pub(crate) value: Value,
    ending: Ending,
    polls_left: usize,
    lines: Vec<Value>,
}

impl StoredBatch {
    /// Lets the next poll find its end.
    pub(crate) fn finish(&mut self) {
        self.polls_left = 0;
    }
}

impl Service {
    pub(crate) fn add_file(&mut self, name: &str, content: Vec<u8>) -> Value {
        let id = format!("file-{}", self.files.len() + 1);
        self.files.push(StoredFile { id, name: name.to_owned(), content, is_deleted: false, looks: 0 });
        self.file_value(self.files.len() - 1)
    }

    pub(crate) fn file_value(&self, place: usize) -> Value {
        let file = &self.files[place];
        let status = if !self.is_azure || file.looks > 1 { "processed" } else { "pending" };
        json!({"id": file.id, "object": "file", "bytes": file.content.len(), "filename": file.name, "purpose": "batch",
               "status": status})
    }

    /// Returns the place of a file that exists.
    pub(crate) fn file(&self, id: &str) -> Option<usize> {
        self.files.iter().position(|file| file.id == id && !file.is_deleted)
    }

    /// Creates a batch, or returns the message of the refusal.
    pub(crate) fn create(&mut self, request: &Value) -> Result<Value, String> {
        let file = self.file(request["input_file_id"].as_str().unwrap_or_default()).ok_or("there is no such file")?;
        if self.file_value(file)["status"] != "processed" {
            self.violations.push("a batch was created before its file was processed".to_owned());
        }
        let content = String::from_utf8(self.files[file].content.clone()).map_err(|_| "the file is no text")?;
        let lines: Vec<Value> =
            content.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
        self.check(&lines, content.len(), request);
        let ending = if self.endings.is_empty() { Ending::Completed } else { self.endings.remove(0) };
        let id = format!("batch_{}", self.batches.len() + 1);
        let value = json!({"id": id, "object": "batch", "endpoint": request["endpoint"], "errors": null,
            "input_file_id": request["input_file_id"], "completion_window": request["completion_window"],
            "status": "validating", "output_file_id": null, "error_file_id": null, "created_at": 1_700_000_000,
            "request_counts": {"total": lines.len(), "completed": 0, "failed": 0}, "metadata": request["metadata"]});
        self.batches.push(StoredBatch { value: value.clone(), ending, polls_left: self.polls, lines });
        Ok(value)
    }

    /// Records violations of the service's rules.
    fn check(&mut self, lines: &[Value], bytes: usize, request: &Value) {
        let ids: BTreeSet<&str> = lines.iter().filter_map(|line| line["custom_id"].as_str()).collect();
        let models: BTreeSet<String> = lines.iter().map(|line| line["body"]["model"].to_string()).collect();
        let rules = [
            (lines.len() <= MAX_REQUESTS && bytes <= MAX_FILE_BYTES, "the file is too large"),
            (!lines.is_empty(), "the file is empty"),
            (ids.len() == lines.len(), "a custom_id is missing or not unique"),
            (models.len() == 1, "a batch has one model"),
            (lines.iter().all(|line| line["method"] == "POST"), "a method is not POST"),
            (lines.iter().all(|line| line["url"] == request["endpoint"]), "a url is not the endpoint"),
            (request["completion_window"] == "24h", "the window is not 24h"),
        ];
        self.violations.extend(rules.iter().filter(|(holds, _)| !holds).map(|(_, rule)| (*rule).to_owned()));
    }

    /// Returns a batch, and moves it towards its end.
    pub(crate) fn poll(&mut self, id: &str) -> Option<Value> {
        let place = self.batches.iter().position(|batch| batch.value["id"] == id)?;
        let batch = &mut self.batches[place];
        match (batch.polls_left, batch.value["status"].as_str().unwrap_or_default()) {
            (0, "validating" | "in_progress") => self.end(place),
            (0, _) => {}
            (polls, _) => {
                batch.polls_left = polls - 1;
                batch.value["status"] = json!("in_progress");
            }
        }
        Some(self.batches[place].value.clone())
    }

    fn end(&mut self, place: usize) {
        let StoredBatch { ending, lines, .. } = self.batches[place].clone();
        let (status, answered, rest) = match ending {
            Ending::Completed => ("completed", lines.len(), None),
            Ending::Expired(answered) => ("expired", answered, Some("batch_expired")),
            Ending::Cancelled(answered) => ("cancelled", answered, None),
            Ending::Failed { code, message } => {
                let value = &mut self.batches[place].value;
                value["status"] = json!("failed");
                value["errors"] = json!({"object": "list", "data": [{"code": code, "message": message, "line": null}]});
                return;
            }
        };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        for (number, line) in lines.iter().enumerate() {
            if number < answered {
                match self.answer(line) {
                    (answer, true) => output.push(answer),
                    (answer, false) => errors.push(answer),
                }
            } else if let Some(code) = rest {
                errors.push(json!({"custom_id": line["custom_id"], "response": null,
                    "error": {"code": code, "message": "This request could not be executed before the completion window expired."}}));
            }
        }
        // The order of answers is arbitrary.
        output.reverse();
        let counts = json!({"total": lines.len(), "completed": output.len(), "failed": errors.len()});
        let (output, errors) = (self.results("output", &output), self.results("errors", &errors));
        let value = &mut self.batches[place].value;
        (value["status"], value["request_counts"]) = (json!(status), counts);
        (value["output_file_id"], value["error_file_id"]) = (output, errors);
    }

    /// Stores a file of results, and returns its id.
    fn results(&mut self, name: &str, lines: &[Value]) -> Value {
        // Azure names a file without content by an empty text.
        if lines.is_empty() {
            return if self.is_azure { json!("") } else { Value::Null };
        }
        let content: String = lines.iter().flat_map(|line| [line.to_string(), "\n".to_owned()]).collect();
        self.add_file(name, content.into_bytes())["id"].clone()
    }

    /// Answers one request, and returns whether it succeeded.
    fn answer(&mut self, line: &Value) -> (Value, bool) {
        let (body, custom_id) = (&line["body"], &line["custom_id"]);
        let input = body["input"].as_str().map_or_else(|| body["input"].to_string(), str::to_owned);
        if let Some(refusal) = self.refusals.iter().find(|refusal| refusal.text == input) {
            let error = json!({"message": refusal.message, "type": "invalid_request_error", "code": refusal.code});
            let response = json!({"status_code": refusal.status, "request_id": "r", "body": {"error": error}});
            return (json!({"id": "b", "custom_id": custom_id, "response": response, "error": null}), false);
        }
        *self.billed.entry(input.clone()).or_default() += 1;
        let dimensions = body["dimensions"].as_u64().and_then(|number| usize::try_from(number).ok());
        let model = body["model"].as_str().unwrap_or_default();
        let vector = match &body["input"] {
            Value::String(text) => Stub::vector(model, dimensions, text.as_str()),
            tokens => {
                let tokens: Vec<u32> = serde_json::from_value(tokens.clone()).expect("an input is a text or tokens");
                Stub::vector(model, dimensions, &*tokens)
            }
        };
        let vector = if self.answers_zeros { vec![0.0; vector.len()] } else { vector };
        let item = json!({"object": "embedding", "index": 0, "embedding": vector});
        let answer = json!({"object": "list", "data": [item], "model": model,
                            "usage": {"prompt_tokens": 3, "total_tokens": 3}});
        let response = json!({"status_code": 200, "request_id": "r", "body": answer});
        (json!({"id": "b", "custom_id": custom_id, "response": response, "error": null}), true)
    }
}
