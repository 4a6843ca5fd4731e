//! `least`: the minimum that a cache in front of an embeddings service must do, without any other duty of a proxy.
//!
//! It uses vecho's own parts: one key for the body, one for each input, a map for each, an upstream call for missing
//! inputs, and vectors that are checked, packed and written. It has no header handling, limits, timeouts, batching,
//! coalescing, eviction or metrics. vecho's cost above `least` is the cost of safety and order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use vecho::key::{Key, KeyBuilder, KeyMap, ProcessSecret, Tag};
use vecho::vector::packed::{Codec, Packed};
use vecho::wire::{
    Base64, EmbedRequest, Encoding, Expected, Input, PathModel, Rendering, RequestForm, WrittenEncoding, read_answer,
    read_request, write_request,
};

use super::Fault;
use crate::Outcome;

/// Bodies with more inputs are not kept: permutations of one list would fill the memory.
const KEPT_INPUTS: usize = 1;

struct Least {
    client: Client<HttpConnector, Full<Bytes>>,
    address: String,
    secret: ProcessSecret,
    no_fields: BTreeSet<String>,
    answers: Mutex<KeyMap<Bytes>>,
    vectors: Mutex<KeyMap<Packed>>,
}

/// Serves embeddings from memory and fetches missing ones from the server at `address`.
pub(super) async fn serve(address: &str) -> Outcome<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let least = Arc::new(Least {
        client: Client::builder(TokioExecutor::new()).build(connector),
        address: format!("http://{address}/v1/embeddings"),
        secret: ProcessSecret::new(),
        no_fields: BTreeSet::new(),
        answers: Mutex::default(),
        vectors: Mutex::default(),
    });
    super::serve(move |request: Request<Incoming>| {
        let least = Arc::clone(&least);
        async move { least.answer(request).await }
    })
    .await
}

impl Least {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Fault> {
        let body = request.into_body().collect().await?.to_bytes();
        let key = KeyBuilder::of_process(&self.secret).part(Tag::Body, &body).finish();
        let kept = lock(&self.answers).get(&key).cloned();
        let answer = match kept {
            Some(answer) => answer,
            None => self.put_together(key, &body).await?,
        };
        let length = HeaderValue::from(answer.len());
        let mut response = Response::new(Full::new(answer));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(CONTENT_LENGTH, length);
        Ok(response)
    }

    async fn put_together(&self, body_key: Key, body: &[u8]) -> Result<Bytes, Fault> {
        let request = read_request(body, &self.no_fields, PathModel::No).map_err(|cause| cause.reason.label())?;
        let mut space = KeyBuilder::new(None);
        request.space.join_key(&mut space);
        let space = space.finish();
        let keys: Vec<Key> = request.inputs.iter().map(|input| input.key(&space)).collect();
        let mut found: Vec<Option<Packed>> = {
            let vectors = lock(&self.vectors);
            keys.iter().map(|key| vectors.get(key).cloned()).collect()
        };
        let missing: Vec<usize> = (0..keys.len()).filter(|place| found[*place].is_none()).collect();
        if !missing.is_empty() {
            for (place, vector) in missing.iter().zip(self.fetch(&request, &missing).await?) {
                lock(&self.vectors).insert(keys[*place], vector.clone());
                found[*place] = Some(vector);
            }
        }
        let answer = render(&request, found.into_iter().flatten().collect());
        if keys.len() <= KEPT_INPUTS && missing.is_empty() {
            lock(&self.answers).insert(body_key, answer.clone());
        }
        Ok(answer)
    }

    async fn fetch(&self, request: &EmbedRequest<'_>, places: &[usize]) -> Result<Vec<Packed>, Fault> {
        let inputs: Vec<&Input<'_>> = places.iter().map(|place| &request.inputs[*place]).collect();
        let form = RequestForm { encoding: WrittenEncoding::Value(Encoding::Base64), ..RequestForm::default() };
        let body = write_request(&request.space, &inputs, form, None);
        let call = Request::post(&self.address).header(CONTENT_TYPE, "application/json").body(Full::new(body))?;
        let answer = self.client.request(call).await?.into_body().collect().await?.to_bytes();
        let expected = Expected { inputs: inputs.len(), asked: None, known: None, base64: Base64::Trusted };
        let answer = read_answer(&answer, &expected)?;
        Ok(answer.vectors.iter().map(|vector| Packed::pack(vector, Codec::Lossless)).collect())
    }
}

fn render(request: &EmbedRequest<'_>, vectors: Vec<Packed>) -> Bytes {
    let count = u32::try_from(vectors.len()).expect("a request has few inputs");
    let rendering = Rendering {
        vectors: vectors.into(),
        slots: (0..count).collect(),
        encoding: request.encoding,
        model: request.space.model_name().to_owned(),
        prompt_tokens: 1,
        members: Vec::new(),
        mocks: Vec::new(),
    };
    rendering.to_bytes()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
