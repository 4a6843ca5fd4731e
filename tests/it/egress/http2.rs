//! HTTP/2 to the upstream.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use h2::Reason;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use tokio::sync::Semaphore;

use super::proxies::{PLAIN, ask};
use crate::harness::client::raw;
use crate::harness::http2::{Http2Server, Opened, React};
use crate::harness::nghttpx::Nghttpx;
use crate::harness::socket::Socket;
use crate::harness::tinyproxy::Tinyproxy;
use crate::harness::tls::{Folder, Identity, front};
use crate::harness::{Behaviour, Inside, Stub, eventually};

/// A certificate and the file with which vecho trusts it.
struct Trust {
    identity: Identity,
    ca_file: String,
    _folder: Folder,
}

impl Trust {
    fn new(test: &str) -> Self {
        let (identity, folder) = (Identity::new("localhost"), Folder::new(&format!("http2-{test}")));
        Self { ca_file: folder.write("ca.pem", &identity.cert_pem), identity, _folder: folder }
    }

    /// Starts vecho in front of an upstream with this certificate.
    async fn vecho(&self, upstream: &str, settings: &[(&str, &str)]) -> Inside {
        let own = [("upstream.http2", "auto"), ("upstream.ca_file", &*self.ca_file), ("batch.max_inputs", "1")];
        Inside::start(upstream, &[&PLAIN[..], &own, settings].concat()).await
    }
}

fn vector() -> String {
    let item = json!({"object": "embedding", "index": 0, "embedding": [0.25, 0.5]});
    json!({"object": "list", "data": [item], "model": "tiny", "usage": {"prompt_tokens": 1, "total_tokens": 1}})
        .to_string()
}

fn connections(opened: &[Opened]) -> BTreeSet<usize> {
    opened.iter().map(|stream| stream.connection).collect()
}

/// Returns the protocol with which the last call reached the server in front of the stub.
fn protocol(stub: &Stub) -> String {
    let calls = stub.calls();
    let via = calls.last().expect("a call").header("via").expect("the server in front adds it");
    via.split(' ').next().unwrap_or_default().to_owned()
}

async fn get(vecho: &Inside, path: &str) -> u16 {
    vecho.client.get(&format!("http://{}{path}", vecho.public())).await.status
}

#[tokio::test]
async fn http2_is_used_where_a_real_server_offers_it_and_only_if_the_key_says_so() {
    let (stub, trust) = (Stub::start(), Trust::new("real"));
    let server = Nghttpx::start(&trust.identity, stub.addr(), &[]);
    for (http2, expected) in [("auto", "2"), ("off", "1.1")] {
        let vecho = trust.vecho(&server.base_url(), &[("upstream.http2", http2)]).await;
        let answer = vecho.embed(ask(http2)).await;
        assert_eq!((answer.status, answer.vectors()), (200, vec![Stub::vector("tiny", None, http2)]));
        assert_eq!(protocol(&stub), expected);
        assert_eq!(get(&vecho, "/v1/models").await, 200);
        assert_eq!(protocol(&stub), expected);
    }
}

#[tokio::test]
async fn websockets_and_bodies_that_cannot_be_repeated_use_http1() {
    let (stub, trust) = (Stub::start(), Trust::new("websocket"));
    let server = Nghttpx::start(&trust.identity, stub.addr(), &[]);
    let vecho = trust.vecho(&server.base_url(), &[]).await;
    assert_eq!(get(&vecho, "/v1/models").await, 200);
    assert_eq!(protocol(&stub), "2");
    let chat = raw(Method::POST, &format!("http://{}/v1/chat/completions", vecho.public()), r#"{"model": "m"}"#);
    assert_eq!(vecho.client.send(chat).await.expect("an answer").status, 200);
    assert_eq!(protocol(&stub), "1.1");
    let mut client = Socket::connect(vecho.public()).await;
    client.send("GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert!(client.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 101"));
    client.send("ping").await;
    client.read_until("ping").await;
}

#[tokio::test]
async fn a_server_without_http2_gets_http1() {
    let (stub, trust) = (Stub::start(), Trust::new("http1"));
    let addr = front(&trust.identity, stub.addr()).await;
    let vecho = trust.vecho(&format!("https://localhost:{}/v1", addr.port()), &[]).await;
    let answers = join_all((0..20).map(|number| vecho.embed(ask(&number.to_string())))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(get(&vecho, "/v1/models").await, 200);
}

#[tokio::test]
async fn http2_goes_through_the_tunnel_of_a_proxy() {
    let (stub, trust, proxy) = (Stub::start(), Trust::new("tunnel"), Tinyproxy::start(&[]));
    let (server, url) = (Nghttpx::start(&trust.identity, stub.addr(), &[]), proxy.url(""));
    let vecho = trust.vecho(&server.base_url(), &[("upstream.proxy", &url)]).await;
    assert_eq!(vecho.embed(ask("x")).await.status, 200);
    assert_eq!((protocol(&stub), proxy.requests("CONNECT localhost:")), ("2".to_owned(), 1));
}

#[tokio::test]
async fn calls_beyond_the_servers_limit_of_streams_get_further_connections() {
    let (stub, trust) = (Stub::start(), Trust::new("limit"));
    for limit in ["1", "3", "100"] {
        let option = format!("--frontend-http2-max-concurrent-streams={limit}");
        let server = Nghttpx::start(&trust.identity, stub.addr(), &[&option]);
        let vecho = trust.vecho(&server.base_url(), &[]).await;
        stub.always(Behaviour::Gate);
        let calls = join_all((0..20).map(|number| vecho.embed(ask(&format!("{limit} {number}")))));
        let (answers, ()) = tokio::join!(calls, async {
            stub.held(20).await;
            stub.release(20);
        });
        assert!(answers.iter().all(|answer| answer.status == 200), "{limit}");
    }
}

#[tokio::test]
async fn calls_share_one_connection_within_the_servers_limit() {
    let trust = Trust::new("share");
    let server = Http2Server::start(&trust.identity, 100, |_| React::Answer(vector())).await;
    let vecho = trust.vecho(&server.base_url(), &[]).await;
    for round in 0..3 {
        let answers = join_all((0..20).map(|number| vecho.embed(ask(&format!("{round} {number}"))))).await;
        assert!(answers.iter().all(|answer| (answer.status, answer.cache()) == (200, "miss")));
    }
    assert_eq!((connections(&server.opened()).len(), server.opened().len()), (1, 60));
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let trust = Trust::new("refused");
    let refuses = |stream: &Opened| {
        if stream.connection == 0 { React::Reset(Reason::REFUSED_STREAM) } else { React::Answer(vector()) }
    };
    let server = Http2Server::start(&trust.identity, 100, refuses).await;
    let vecho = trust.vecho(&server.base_url(), &[]).await;
    assert_eq!(get(&vecho, "/v1/models").await, 200);
    let answer = vecho.embed(ask("x")).await;
    assert_eq!((answer.status, answer.vectors()), (200, vec![vec![0.25, 0.5]]));
    let always = Http2Server::start(&trust.identity, 100, |_| React::Reset(Reason::REFUSED_STREAM)).await;
    let vecho = trust.vecho(&always.base_url(), &[]).await;
    assert_eq!(get(&vecho, "/v1/models").await, 502);
    assert_eq!(always.opened().len(), 3, "it is not repeated without end");
}

#[tokio::test]
async fn streams_that_a_goaway_leaves_out_are_sent_again() {
    let trust = Trust::new("goaway");
    let server = Http2Server::start_after(&trust.identity, 100, 1, |_| React::Answer(vector())).await;
    let vecho = trust.vecho(&server.base_url(), &[("retry.max_attempts", "1")]).await;
    let answers = join_all((0..10).map(|number| vecho.embed(ask(&number.to_string())))).await;
    assert!(answers.iter().all(|answer| (answer.status, answer.cache()) == (200, "miss")));
    assert_eq!(server.opened().len(), 10, "no call is made twice");
    let leaving = Http2Server::start_after(&trust.identity, 100, 1, |_| React::Answer("{}".to_owned())).await;
    let vecho = trust.vecho(&leaving.base_url(), &[]).await;
    assert_eq!(get(&vecho, "/v1/models").await, 200);
    assert_eq!(leaving.opened().len(), 1);
}

#[tokio::test]
async fn a_request_whose_connection_ends_is_repeated_only_if_that_is_safe() {
    let trust = Trust::new("dead");
    let closes = |stream: &Opened| match stream.number {
        0 => React::Answer(vector()),
        _ => React::Close,
    };
    let server = Http2Server::start(&trust.identity, 100, closes).await;
    let vecho = trust.vecho(&server.base_url(), &[("upstream.max_connection_age", "1h")]).await;
    for text in ["a", "b"] {
        assert_eq!((vecho.embed(ask(text)).await.status, text), (200, text), "a dead connection costs no retry");
    }
    let cut = Http2Server::start(&trust.identity, 100, |_| React::Cut(vector())).await;
    let vecho = trust.vecho(&cut.base_url(), &[]).await;
    let answer = vecho.embed(ask("x")).await;
    assert_eq!((answer.status, cut.opened().len()), (502, 1), "an answer that breaks off is not repeated");
}

#[tokio::test]
async fn a_busy_http2_connection_is_replaced_at_its_maximum_age() {
    let trust = Trust::new("age");
    let server = Http2Server::start(&trust.identity, 100, |_| React::Answer(vector())).await;
    let vecho = trust.vecho(&server.base_url(), &[("upstream.max_connection_age", "50ms")]).await;
    eventually("four connections", async || {
        let text = server.opened().len().to_string();
        assert_eq!(vecho.embed(ask(&text)).await.status, 200);
        connections(&server.opened()).len() >= 4
    })
    .await;
    eventually("the old connections end", async || server.ended() >= 3).await;
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let trust = Trust::new("idle");
    let server = Http2Server::start(&trust.identity, 100, |_| React::Answer(vector())).await;
    let vecho = trust.vecho(&server.base_url(), &[("upstream.idle_timeout", "100ms")]).await;
    assert_eq!(vecho.embed(ask("x")).await.status, 200);
    eventually("the connection ends", async || server.ended() == 1).await;
    assert_eq!(vecho.embed(ask("y")).await.status, 200);
}

#[tokio::test]
async fn answers_that_callers_do_not_read_stall_no_others() {
    let (stub, trust) = (Stub::start(), Trust::new("windows"));
    // The backend window of the server must not be the bound.
    let server = Nghttpx::start(&trust.identity, stub.addr(), &[]);
    let vecho = trust.vecho(&server.base_url(), &[]).await;
    let large = Behaviour::Status { code: 200, headers: Vec::new(), body: "x".repeat(16 << 20) };
    stub.when(|call| call.path.contains("/files/"), large);
    let mut unread = Vec::new();
    for number in 0..8 {
        let url = format!("http://{}/v1/files/{number}/content", vecho.public());
        let request = Request::get(url).body(Full::default()).expect("a legal request");
        unread.push(vecho.client.open(request).await.expect("a head"));
    }
    for _ in 0..5 {
        let quick = tokio::time::timeout(Duration::from_secs(20), get(&vecho, "/v1/models")).await;
        assert_eq!(quick.expect("it is not stalled"), 200);
    }
    assert!(stub.calls().iter().all(|call| call.header("via").is_some_and(|via| via.starts_with('2'))));
    drop(unread);
}

#[tokio::test]
async fn a_caller_that_leaves_frees_its_stream() {
    let trust = Trust::new("leaves");
    let server = Http2Server::start(&trust.identity, 1, |stream| match &*stream.path {
        "/v1/slow" => React::Nothing,
        _ => React::Answer("{}".to_owned()),
    })
    .await;
    let vecho = trust.vecho(&server.base_url(), &[]).await;
    let mut client = Socket::connect(vecho.public()).await;
    client.send("GET /v1/slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    eventually("the request arrives", async || server.opened().len() == 1).await;
    drop(client);
    eventually("its connection takes another request", async || {
        assert_eq!(get(&vecho, "/v1/models").await, 200);
        server.opened().iter().any(|stream| stream.connection == 0 && stream.path == "/v1/models")
    })
    .await;
}

#[tokio::test]
async fn a_call_whose_stream_was_reset_survives_the_end_of_its_connection() {
    let trust = Trust::new("reset");
    let resets = |stream: &Opened| match (stream.connection, stream.number) {
        (0, 1) => React::Reset(Reason::CANCEL),
        (0, 2) => React::Close,
        _ => React::Answer(vector()),
    };
    let server = Http2Server::start(&trust.identity, 100, resets).await;
    let vecho = trust.vecho(&server.base_url(), &[("upstream.max_connection_age", "1h")]).await;
    for text in ["a", "b"] {
        let answer = vecho.embed(ask(text)).await;
        assert_eq!((answer.status, text), (200, text), "{answer:?}");
    }
    let streams = server.opened().iter().map(|stream| (stream.connection, stream.number)).collect::<Vec<_>>();
    assert_eq!(streams, [(0, 0), (0, 1), (0, 2), (1, 0)]);
    let always = Http2Server::start(&trust.identity, 100, |_| React::Reset(Reason::CANCEL)).await;
    let vecho = trust.vecho(&always.base_url(), &[]).await;
    assert_eq!((vecho.embed(ask("c")).await.status, always.opened().len()), (502, 2), "it is repeated once");
}

#[tokio::test]
async fn a_call_that_died_with_its_connection_is_sent_again_on_a_new_one() {
    let (trust, gate) = (Trust::new("siblings"), Arc::new(Semaphore::new(0)));
    let held = Arc::clone(&gate);
    let closes = move |stream: &Opened| match (stream.connection, stream.number) {
        (0 | 1, 0) => React::Gate(Arc::clone(&held), vector()),
        (0 | 1, _) => React::Close,
        _ => React::Answer(vector()),
    };
    let server = Http2Server::start(&trust.identity, 1, closes).await;
    let vecho = trust.vecho(&server.base_url(), &[("upstream.max_connection_age", "1h")]).await;
    let (first, second, ()) = tokio::join!(vecho.embed(ask("a")), vecho.embed(ask("b")), async {
        eventually("each call has a connection", async || server.opened().len() == 2).await;
        gate.add_permits(2);
    });
    assert_eq!((first.status, second.status), (200, 200));
    let answer = vecho.embed(ask("c")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let used: Vec<usize> = server.opened().iter().map(|stream| stream.connection).collect();
    assert_eq!((used.len(), used[3]), (4, 2), "the other old connection is not tried: {used:?}");
}

#[tokio::test]
async fn a_connection_that_answers_no_pings_is_dead_and_its_call_is_sent_again() {
    let trust = Trust::new("frozen");
    let freezes = |stream: &Opened| match (stream.connection, stream.number) {
        (0, 1) => React::Freeze,
        _ => React::Answer(vector()),
    };
    let server = Http2Server::start(&trust.identity, 100, freezes).await;
    let vecho = trust.vecho(&server.base_url(), &[("upstream.max_connection_age", "1h")]).await;
    assert_eq!(vecho.embed(ask("a")).await.status, 200);
    // The ping is sent after 15 seconds without a frame, and its answer is awaited for 20. Time is not moved here: the
    // connection to the server is real.
    let answer = vecho.embed(ask("b")).await;
    assert_eq!((answer.status, answer.cache()), (200, "miss"));
    assert_eq!(connections(&server.opened()), BTreeSet::from([0, 1]));
}
