//! The commands as a person runs them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::Vecho;
use crate::harness::client::{Answer, Client, post};
use crate::harness::stub::Stub;

/// Where nothing listens.
pub(super) const NOWHERE: &str = "127.0.0.1:1";

/// A model whose vectors are short.
pub(super) const TINY: &str = "tiny";

/// What is left of a command that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: Option<i32>,
    pub(super) out: Vec<u8>,
    pub(super) err: String,
}

impl Ended {
    /// It must have done its work.
    pub(super) fn well(self) -> Self {
        assert_eq!(self.status, Some(0), "{}", self.err);
        self
    }

    /// It must have said so.
    pub(super) fn said(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is missing in:\n{}", self.err);
        self
    }
}

/// Runs a command with these arguments.
pub(super) fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, &[], b"")
}

/// The same with an environment, and with something on standard input.
pub(super) fn run_with(arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Ended {
    let mut command: Command = Vecho::command(environment);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary must start");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let input = input.to_vec();
    // A command that stops reading ends the writing; what it says tells why.
    let writing = std::thread::spawn(move || stdin.write_all(&input).ok());
    let output = child.wait_with_output().expect("it must end");
    writing.join().expect("writing must not panic");
    let err = String::from_utf8(output.stderr).expect("what it says is text");
    Ended { status: output.status.code(), out: output.stdout, err }
}

/// The arguments that name a vecho that runs.
pub(super) fn at(vecho: &Vecho) -> [String; 4] {
    ["--listen".into(), vecho.public().to_string(), "--admin-listen".into(), vecho.admin().to_string()]
}

/// Runs a command for a vecho that runs.
pub(super) fn run_at(vecho: &Vecho, arguments: &[&str]) -> Ended {
    run_at_with(vecho, arguments, &[], b"")
}

/// The same with an environment, and with something on standard input.
pub(super) fn run_at_with(vecho: &Vecho, arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Ended {
    let at = at(vecho);
    let named: Vec<&str> = at.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
    run_with(&named, environment, input)
}

/// Asks for texts of [`TINY`].
pub(super) async fn embed(vecho: &Vecho, texts: &[&str], encoding: &str) -> Answer {
    ask(vecho, &json!({"model": TINY, "input": texts, "encoding_format": encoding}), None).await
}

/// Asks with a credential.
pub(super) async fn ask(vecho: &Vecho, body: &Value, key: Option<&str>) -> Answer {
    let mut request = post(&format!("{}/embeddings", vecho.base_url()), body);
    if let Some(key) = key {
        let bearer = format!("Bearer {key}").parse().expect("a test's key is legal");
        request.headers_mut().insert("authorization", bearer);
    }
    Client::new().send(request).await.expect("the answer must arrive")
}

/// That these texts are answered from the cache, without a call, in both encodings, with the very bits of the upstream.
pub(super) async fn is_hit(vecho: &Vecho, stub: &Stub, texts: &[&str]) {
    let calls = stub.calls().len();
    for encoding in ["float", "base64"] {
        let answer = embed(vecho, texts, encoding).await;
        assert_eq!(answer.cache(), "hit", "{encoding}: {}", answer.sources());
        assert_eq!(bits(&answer.vectors()), bits(&crate::harness::front::tiny(texts)), "{encoding}");
    }
    assert_eq!(stub.calls().len(), calls, "nothing goes upstream");
}

pub(super) fn bits(vectors: &[Vec<f32>]) -> Vec<Vec<u32>> {
    vectors.iter().map(|vector| vector.iter().map(|component| component.to_bits()).collect()).collect()
}
