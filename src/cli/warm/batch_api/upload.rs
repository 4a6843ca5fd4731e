//! The body of an upload: a form with a file, read from disk while it is sent.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::process::errors::BoxError;
use crate::process::random;

/// Bytes per read from the file.
const PIECE_BYTES: usize = 64 * 1024;

/// Form with a file.
pub(super) struct FormBody {
    from: Box<dyn Read + Send>,
    left: u64,
}

impl FormBody {
    /// Returns the content type and the body of an upload for batches.
    pub(super) fn new(name: &str, path: &Path) -> io::Result<(String, Self)> {
        let mark = boundary();
        let head = format!(
            "--{mark}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{mark}\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             content-type: application/jsonl\r\n\r\n"
        );
        let tail = format!("\r\n--{mark}--\r\n");
        let file = File::open(path)?;
        let left = head.len() as u64 + file.metadata()?.len() + tail.len() as u64;
        let from = Box::new(Cursor::new(head).chain(file).chain(Cursor::new(tail)));
        Ok((format!("multipart/form-data; boundary={mark}"), Self { from, left }))
    }
}

/// Returns a line that is not in the file: texts cannot contain it, because it is random.
fn boundary() -> String {
    format!("vecho-{}", random::hex(16))
}

impl Body for FormBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut piece = vec![0; PIECE_BYTES];
        // The read blocks, which is acceptable for a command with only one task.
        Poll::Ready(Some(match self.from.read(&mut piece) {
            Ok(0) => Err("the file became shorter while it was sent".into()),
            Ok(length) => {
                piece.truncate(length);
                self.left = self.left.saturating_sub(length as u64);
                Ok(Frame::data(piece.into()))
            }
            Err(error) => Err(error.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        // Some services refuse an upload without `content-length`.
        SizeHint::with_exact(self.left)
    }
}
