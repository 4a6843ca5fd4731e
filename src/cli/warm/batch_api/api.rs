//! The requests of the Batch API.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use http::{Method, Uri};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::dialect::Dialect;
use super::doubt::exactly_once;
use super::remote::{Refused, Remote, RemoteError, body_of, wait_after};
use super::state_file::{create_private, sync_folder};
use super::upload::FormBody;
use crate::process::errors::cause_of;
use crate::upstream::ClientBody;

/// Longest upload and longest download.
const TRANSFER_TIMEOUT: Duration = Duration::from_hours(1);
/// Longest time without a byte of a download.
const SILENCE: Duration = Duration::from_mins(2);
/// Pages of a list that are searched for an object.
const MAX_PAGES: u32 = 100;
const JSON: &str = "application/json";

/// The Batch API of one upstream.
pub(super) struct BatchApi {
    pub(super) remote: Remote,
    pub(super) dialect: Dialect,
}

/// A batch as the service describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct BatchObject {
    pub(super) id: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) output_file_id: Option<String>,
    #[serde(default)]
    pub(super) error_file_id: Option<String>,
    #[serde(default)]
    errors: Option<BatchErrors>,
    #[serde(default)]
    pub(super) request_counts: Option<RequestCounts>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, Deserialize)]
struct BatchErrors {
    #[serde(default)]
    data: Vec<BatchFault>,
}

/// A fault of a whole batch.
#[derive(Clone, Debug, Deserialize)]
struct BatchFault {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    line: Option<u64>,
}

/// Number of requests of a batch by result.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct RequestCounts {
    #[serde(default)]
    pub(super) completed: u64,
    #[serde(default)]
    pub(super) failed: u64,
}

#[derive(Deserialize)]
struct UploadedFile {
    id: String,
    #[serde(default)]
    filename: Option<String>,
    #[serde(default)]
    status: Option<String>,
}

#[derive(Deserialize)]
struct ObjectList<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
    #[serde(default)]
    last_id: Option<String>,
}

impl BatchObject {
    /// Returns the first fault of the batch.
    pub(super) fn fault(&self) -> Option<Refused> {
        let fault = self.errors.as_ref()?.data.first()?;
        let (code, message) = (fault.code.as_deref().unwrap_or("failed"), fault.message.as_deref().unwrap_or_default());
        Some(match fault.line {
            Some(line) => Refused::new(code, &format!("line {line} of the uploaded file: {message}")),
            None => Refused::new(code, message),
        })
    }

    fn has(&self, marks: &[(&'static str, String)]) -> bool {
        let metadata = self.metadata.as_ref();
        metadata.is_some_and(|found| {
            marks.iter().all(|(name, value)| found.get(*name).and_then(Value::as_str) == Some(value.as_str()))
        })
    }
}

impl BatchApi {
    /// Uploads a file and returns its id. If it may have been uploaded already, it is found by its name.
    pub(super) async fn upload(&self, name: &str, path: &Path, in_doubt: bool) -> Result<String, RemoteError> {
        exactly_once(
            &self.remote,
            in_doubt,
            async || self.find_file(name).await,
            async || self.send_file(name, path).await,
        )
        .await
    }

    /// Creates a batch. If it may have been created already, it is found by its metadata.
    pub(super) async fn create(
        &self,
        file_id: &str,
        marks: &[(&'static str, String)],
        in_doubt: bool,
    ) -> Result<BatchObject, RemoteError> {
        let metadata: Map<String, Value> =
            marks.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let body = json!({
            "input_file_id": file_id,
            "endpoint": self.dialect.endpoint,
            "completion_window": "24h",
            "metadata": metadata,
        })
        .to_string();
        let send = async || {
            let content = (JSON, ClientBody::whole(body.clone().into()));
            read(&self.remote.attempt(Method::POST, &self.uri("/batches", &[])?, content).await?)
        };
        exactly_once(&self.remote, in_doubt, async || self.find_batch(marks).await, send).await
    }

    /// Sends a live request, and returns the model that answered it, if the answer names one.
    pub(super) async fn live_model(&self, body: String) -> Result<Option<String>, RemoteError> {
        #[derive(Deserialize)]
        struct LiveAnswer {
            model: Option<String>,
        }
        let content = (JSON, ClientBody::whole(body.into()));
        let answer = self.remote.attempt(Method::POST, self.dialect.live(), content).await?;
        Ok(read::<LiveAnswer>(&answer)?.model)
    }

    /// Returns a batch.
    pub(super) async fn batch(&self, id: &str) -> Result<BatchObject, RemoteError> {
        self.get(&format!("/batches/{id}"), &[]).await
    }

    /// Returns true once the service has read a file. Fails if it cannot read it.
    pub(super) async fn is_processed(&self, file_id: &str) -> Result<bool, RemoteError> {
        if !self.dialect.waits_for_file {
            return Ok(true);
        }
        let file: UploadedFile = self.get(&format!("/files/{file_id}"), &[]).await?;
        match file.status.as_deref() {
            // A service without this member knows no such state.
            None | Some("processed") => Ok(true),
            Some(status @ ("error" | "deleted" | "deleting")) => Err(RemoteError::Refused {
                status: 400,
                refusal: Refused::new("file_not_processed", &format!("the uploaded file has the status {status}")),
            }),
            Some(_) => Ok(false),
        }
    }

    /// Stores the content of a file. The file on disk is complete or does not exist.
    pub(super) async fn download(&self, file_id: &str, path: &Path) -> Result<(), RemoteError> {
        let uri = self.uri(&format!("/files/{file_id}/content"), &[])?;
        let mut schedule = self.remote.schedule();
        loop {
            match timeout(TRANSFER_TIMEOUT, self.download_once(&uri, path)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => wait_after(error, &mut schedule).await?,
                Err(_) => return Err(RemoteError::Lost("the download took longer than an hour".to_owned())),
            }
        }
    }

    async fn download_once(&self, uri: &Uri, path: &Path) -> Result<(), RemoteError> {
        let mut body = body_of(self.remote.open(Method::GET, uri, ("", ClientBody::empty())).await?);
        let draft = path.with_extension("draft");
        let disk = |error: io::Error| disk_fault(path, &error);
        let mut out = create_private(&draft).map_err(disk)?;
        loop {
            let frame = timeout(SILENCE, body.frame()).await;
            let frame = frame.map_err(|_| RemoteError::Lost("the download stalled".to_owned()))?;
            let Some(frame) = frame else { break };
            let frame =
                frame.map_err(|error| RemoteError::Lost(format!("the download broke off: {}", cause_of(&*error))))?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data).map_err(disk)?;
            }
        }
        out.sync_all().and_then(|()| fs::rename(&draft, path)).map_err(disk)?;
        sync_folder(path).map_err(disk)
    }

    /// Deletes a file. A file that does not exist is no error.
    pub(super) async fn delete_file(&self, file_id: &str) -> Result<(), RemoteError> {
        match self.remote.request(&Method::DELETE, &self.uri(&format!("/files/{file_id}"), &[])?).await {
            Ok(_) | Err(RemoteError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn send_file(&self, name: &str, path: &Path) -> Result<String, RemoteError> {
        let (content_type, body) = FormBody::new(name, path).map_err(|error| disk_fault(path, &error))?;
        let content = (&*content_type, ClientBody::streamed(body));
        let uri = self.uri("/files", &[])?;
        let sent = self.remote.transfer(TRANSFER_TIMEOUT, &uri, content).await?;
        Ok(read::<UploadedFile>(&sent)?.id)
    }

    async fn find_file(&self, name: &str) -> Result<Option<String>, RemoteError> {
        let is_ours = |file: &UploadedFile| file.filename.as_deref() == Some(name);
        let found = self.find("/files", &[("purpose", "batch")], is_ours, |file| &file.id).await?;
        Ok(found.map(|file| file.id))
    }

    async fn find_batch(&self, marks: &[(&'static str, String)]) -> Result<Option<BatchObject>, RemoteError> {
        self.find("/batches", &[("limit", "100")], |batch: &BatchObject| batch.has(marks), |batch| &batch.id).await
    }

    /// Returns the first object of a list that matches.
    async fn find<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        is_wanted: impl Fn(&T) -> bool,
        id: impl Fn(&T) -> &String,
    ) -> Result<Option<T>, RemoteError> {
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let page = after.iter().map(|after| ("after", after.as_str()));
            let parameters: Vec<_> = parameters.iter().copied().chain(page).collect();
            let list: ObjectList<T> = self.get(path, &parameters).await?;
            after = list.last_id.or_else(|| list.data.last().map(|last| id(last).clone())).filter(|_| list.has_more);
            if let Some(found) = list.data.into_iter().find(&is_wanted) {
                return Ok(Some(found));
            }
            if after.is_none() {
                break;
            }
        }
        Ok(None)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, parameters: &[(&str, &str)]) -> Result<T, RemoteError> {
        read(&self.remote.request(&Method::GET, &self.uri(path, parameters)?).await?)
    }

    fn uri(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Uri, RemoteError> {
        let unusable = |message: String| RemoteError::Refused { status: 0, refusal: Refused::new("address", &message) };
        self.dialect.uri(path, parameters).map_err(unusable)
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, RemoteError> {
    serde_json::from_slice(body).map_err(|error| RemoteError::Lost(format!("the answer cannot be read: {error}")))
}

/// Returns the failure of an operation on a local file. Repeating the request would not help.
fn disk_fault(path: &Path, error: &io::Error) -> RemoteError {
    RemoteError::Refused { status: 0, refusal: Refused::new("disk", &format!("{}: {error}", path.display())) }
}
