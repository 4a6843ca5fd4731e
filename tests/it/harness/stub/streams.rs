//! Answers that are never complete in memory: events, uploads and upgraded connections.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::json;

use super::calls::Call;
use super::reply::{Body, Reply};
use super::routes::dress;
use super::state::State;

/// Returns a chat answer as the events of a stream.
pub(crate) fn chat_events() -> Vec<Bytes> {
    let event = |text: &str, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": {"content": text}, "logprobs": null, "finish_reason": finish});
        let chunk = json!({"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 1_705_948_997,
            "model": "gpt-stub", "choices": [choice]});
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let done = Bytes::from_static(b"data: [DONE]\n\n");
    vec![event("Hello", None), event(" world", None), event("!", Some("stop")), done]
}

/// Sends the pieces one by one, each as soon as the test allows it.
pub(crate) fn events(state: &State, pieces: Vec<Bytes>, content_type: &'static str) -> Response<Body> {
    let start = (pieces.into_iter().enumerate(), state.events.subscribe());
    let sent = stream::unfold(start, |(mut pieces, mut allowed)| async move {
        let (index, piece) = pieces.next()?;
        // After the test, the handle is dropped and the rest is sent at once.
        let _ = allowed.wait_for(|allowed| *allowed > index).await;
        Some((Ok::<_, io::Error>(Frame::data(piece)), (pieces, allowed)))
    });
    let mut response = Response::new(StreamBody::new(sent).boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Counts an upload while it arrives, without keeping it.
pub(crate) async fn upload(state: &State, call: Call, mut body: Incoming) -> Response<Body> {
    state.record(call);
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        let piece = frame.data_ref().map_or(0, Bytes::len);
        bytes += piece;
        state.uploaded_bytes.send_modify(|uploaded| *uploaded += piece);
    }
    let mut reply = Reply::json(json!({"id": "file-stub", "object": "file", "bytes": bytes}).to_string());
    dress(state, &mut reply);
    reply.into_response()
}

/// Switches protocols and echoes every byte.
pub(crate) fn realtime(state: &State, call: Call, request: Request<Incoming>) -> Response<Body> {
    let Some(protocol) = call.headers.get(http::header::UPGRADE).cloned() else {
        state.record(call);
        return Reply::error(426, "invalid_request_error", None, "Upgrade required").into_response();
    };
    state.record(call);
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let mut response = Reply::new(101, "text/plain", "").into_response();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().remove(http::header::CONTENT_LENGTH);
    response.headers_mut().remove(http::header::CONTENT_TYPE);
    response.headers_mut().insert(http::header::UPGRADE, protocol);
    response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
