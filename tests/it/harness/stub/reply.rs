//! An answer of the stub: a head, a body, and the way in which the body is sent.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The way in which a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Whole,
    CutInTheMiddle,
    InPieces { bytes: usize, pause: Duration },
}

/// An answer before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) transport: Transport,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut reply = Self { status, headers: HeaderMap::new(), body: body.into(), transport: Transport::Whole };
        reply.set(CONTENT_TYPE.as_str(), content_type);
        reply
    }

    pub(crate) fn json(body: impl Into<Bytes>) -> Self {
        Self::new(200, "application/json", body)
    }

    /// Builds an error in the API's envelope, with all four keys.
    pub(crate) fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Self {
        let error = serde_json::json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
        Self::new(status, "application/json", error.to_string())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a stub's header name must be legal");
        self.headers.insert(name, HeaderValue::from_str(value).expect("a stub's header value must be legal"));
    }

    /// Sets a header that is not set yet.
    pub(crate) fn set_default(&mut self, name: &'static str, value: &str) {
        if !self.headers.contains_key(name) {
            self.set(name, value);
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let length = self.body.len();
        let sized = !matches!(self.transport, Transport::InPieces { .. });
        let mut response = Response::new(body(self.body, self.transport));
        *response.status_mut() = StatusCode::from_u16(self.status).expect("a stub's status must be legal");
        *response.headers_mut() = self.headers;
        if sized {
            response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }
}

fn body(bytes: Bytes, transport: Transport) -> Body {
    match transport {
        Transport::Whole => pieces(vec![Ok(bytes)], Duration::ZERO),
        Transport::CutInTheMiddle => {
            let cut = Err(io::Error::other("the stub was told to cut the body"));
            pieces(vec![Ok(bytes.slice(..bytes.len() / 2)), cut], Duration::from_millis(5))
        }
        Transport::InPieces { bytes: size, pause } => {
            let chunks = bytes.chunks(size.max(1)).map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
            pieces(chunks.collect(), pause)
        }
    }
}

fn pieces(items: Vec<io::Result<Bytes>>, pause: Duration) -> Body {
    let sent = stream::unfold(items.into_iter(), move |mut items| async move {
        let item = items.next()?;
        if !pause.is_zero() {
            // The pause also makes a cut visible: the first half leaves before the error closes the connection.
            tokio::time::sleep(pause).await;
        }
        Some((item.map(Frame::data), items))
    });
    StreamBody::new(sent).boxed_unsync()
}
