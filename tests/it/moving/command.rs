//! The commands, run as a user runs them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::Vecho;
use crate::harness::client::{Answer, Client, post};
use crate::harness::stub::Stub;

/// An address without a listener.
pub(super) const NOWHERE: &str = "127.0.0.1:1";

/// A model with short vectors.
pub(super) const TINY: &str = "tiny";

/// The result of a command that has exited.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: Option<i32>,
    pub(super) out: Vec<u8>,
    pub(super) err: String,
}

impl Ended {
    /// Checks that the command succeeded.
    pub(super) fn well(self) -> Self {
        assert_eq!(self.status, Some(0), "{}", self.err);
        self
    }

    /// Checks that the output on standard error contains a text.
    pub(super) fn said(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is missing in:\n{}", self.err);
        self
    }
}

/// Runs a command with these arguments.
pub(super) fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, &[], b"")
}

/// Like [`run`], with environment variables and standard input.
pub(super) fn run_with(arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Ended {
    let mut command: Command = Vecho::command(environment);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary must start");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let input = input.to_vec();
    // A command that stops reading causes a write error here. Its own output names the reason.
    let writing = std::thread::spawn(move || stdin.write_all(&input).ok());
    let output = child.wait_with_output().expect("it must end");
    writing.join().expect("writing must not panic");
    let err = String::from_utf8(output.stderr).expect("what it says is text");
    Ended { status: output.status.code(), out: output.stdout, err }
}

/// Returns the arguments that address a running vecho.
pub(super) fn at(vecho: &Vecho) -> [String; 4] {
    ["--listen".into(), vecho.public().to_string(), "--admin-listen".into(), vecho.admin().to_string()]
}

/// Runs a command for a running vecho.
pub(super) fn run_at(vecho: &Vecho, arguments: &[&str]) -> Ended {
    run_at_with(vecho, arguments, &[], b"")
}

/// Like [`run_at`], with environment variables and standard input.
pub(super) fn run_at_with(vecho: &Vecho, arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Ended {
    let at = at(vecho);
    let named: Vec<&str> = at.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
    run_with(&named, environment, input)
}

/// Requests texts of [`TINY`].
pub(super) async fn embed(vecho: &Vecho, texts: &[&str], encoding: &str) -> Answer {
    ask(vecho, &json!({"model": TINY, "input": texts, "encoding_format": encoding}), None).await
}

/// Sends a request with a credential.
pub(super) async fn ask(vecho: &Vecho, body: &Value, key: Option<&str>) -> Answer {
    let mut request = post(&format!("{}/embeddings", vecho.base_url()), body);
    if let Some(key) = key {
        let bearer = format!("Bearer {key}").parse().expect("a test's key is legal");
        request.headers_mut().insert("authorization", bearer);
    }
    Client::new().send(request).await.expect("the answer must arrive")
}

/// Checks that these texts are hits in both encodings, without a call, and bit for bit equal to the upstream's vectors.
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
