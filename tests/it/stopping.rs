//! Shutdown order: readiness, public port, requests in flight, ops port. No step takes longer than configured.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::harness::socket::Socket;
use crate::harness::{Behaviour, Client, Stub, Vecho, eventually};

fn ask(text: &str) -> Value {
    json!({"model": "tiny", "input": text})
}

fn url(vecho: &Vecho) -> String {
    format!("{}/embeddings", vecho.base_url())
}

/// Sends a request on a new connection and does not wait for the answer.
async fn begin(vecho: &Vecho, text: &str) -> Socket {
    let body = ask(text).to_string();
    let mut socket = Socket::connect(vecho.public()).await;
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    socket.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
    socket
}

async fn stops_accepting(vecho: &Vecho) {
    let refuses = async || TcpStream::connect(vecho.public()).await.is_err();
    eventually("a closed public port", refuses).await;
}

#[tokio::test]
async fn an_open_request_completes_after_readiness_and_the_port_are_gone() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    assert_eq!(Client::new().get(&vecho.ops_url("/readyz")).await.status, 200);
    stub.always(Behaviour::Gate);
    let mut open = begin(&vecho, "x").await;
    stub.held(1).await;
    vecho.signal("TERM");
    stops_accepting(&vecho).await;
    let ready = Client::new().get(&vecho.ops_url("/readyz")).await;
    assert_eq!((ready.status, ready.json()), (503, json!({"ready": false, "reason": "draining"})));
    assert_eq!(Client::new().get(&vecho.ops_url("/livez")).await.status, 200);
    assert_eq!(Client::new().get(&vecho.ops_url("/metrics")).await.status, 200, "the ops port is the last to go");
    stub.release(1);
    let answer = open.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""object":"list""#), "{answer}");
    let ended = vecho.ended();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.log.contains("stopped: nothing was cut"), "{}", ended.log);
}

#[tokio::test]
async fn open_requests_of_all_workers_complete() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_WORKERS", "3")]);
    stub.always(Behaviour::Gate);
    let mut open = Vec::new();
    for number in 0..6 {
        open.push(begin(&vecho, &format!("x {number}")).await);
        stub.held(number + 1).await;
    }
    vecho.signal("TERM");
    stops_accepting(&vecho).await;
    stub.release(6);
    for mut socket in open {
        let answer = socket.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let ended = vecho.ended();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.log.contains("stopped: nothing was cut"), "{}", ended.log);
}

#[tokio::test]
async fn shutdown_waits_for_a_paid_fetch_without_a_caller() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    stub.always(Behaviour::Gate);
    let gone = begin(&vecho, "x").await;
    stub.held(1).await;
    drop(gone);
    vecho.signal("TERM");
    stops_accepting(&vecho).await;
    // The fetch is the only work left. Without waiting for it, vecho would have closed the ops port by now.
    for _ in 0..20 {
        assert_eq!(Client::new().get(&vecho.ops_url("/livez")).await.status, 200);
    }
    assert_eq!(stub.held_now(), 1, "the call is not given up");
    stub.release(1);
    let ended = vecho.ended();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.log.contains("stopped: nothing was cut"), "{}", ended.log);
}

#[tokio::test]
async fn the_end_of_the_grace_period_cuts_and_logs_open_work() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_SHUTDOWN_GRACE", "300ms")]);
    stub.always(Behaviour::Gate);
    let mut open = begin(&vecho, "x").await;
    stub.held(1).await;
    vecho.signal("TERM");
    assert_eq!(open.read_to_end().await, "", "it is cut, not answered");
    let ended = vecho.ended();
    assert_eq!(ended.status.code(), Some(0), "told to stop, and stopped");
    assert!(ended.log.contains("cut_connections=1 cut_fetches=1"), "{}", ended.log);
}

#[tokio::test]
async fn a_second_signal_stops_the_process_at_once() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_SHUTDOWN_GRACE", "10m")]);
    stub.always(Behaviour::Gate);
    let _open = begin(&vecho, "x").await;
    stub.held(1).await;
    vecho.signal("TERM");
    vecho.logged("stopping: no new connections").await;
    vecho.signal("INT");
    let ended = vecho.ended();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.log.contains("second signal to stop"), "{}", ended.log);
}

#[tokio::test]
async fn an_idle_process_stops_at_once_although_clients_keep_connections() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_SHUTDOWN_GRACE", "10m")]);
    let client = Client::new();
    assert_eq!(client.post(&url(&vecho), &ask("x")).await.status, 200);
    let mut idle = Socket::connect(vecho.public()).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), tokio::task::spawn_blocking(|| vecho.stop()));
    assert_eq!(ended.await.expect("not only after the grace period").expect("it stops").status.code(), Some(0));
    assert_eq!(idle.read_to_end().await, "");
}

/// Opens an upgraded connection that has already carried data.
async fn tunnel(vecho: &Vecho) -> Socket {
    let mut socket = Socket::connect(vecho.public()).await;
    let head = "GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    socket.send(head).await;
    socket.read_until("\r\n\r\n").await;
    socket.send("up!").await;
    socket.read_until("up!").await;
    socket
}

#[tokio::test]
async fn an_upgraded_connection_continues_within_the_grace_period() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_SHUTDOWN_GRACE", "10m")]);
    let mut socket = tunnel(&vecho).await;
    vecho.signal("TERM");
    stops_accepting(&vecho).await;
    for word in ["still", "there"] {
        socket.send(word).await;
        socket.read_until(word).await;
    }
    drop(socket);
    let ended = vecho.ended();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.log.contains("stopped: nothing was cut"), "{}", ended.log);
}

#[tokio::test]
async fn an_upgraded_connection_does_not_outlive_the_grace_period() {
    let stub = Stub::start();
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_SHUTDOWN_GRACE", "300ms")]);
    let mut socket = tunnel(&vecho).await;
    vecho.signal("TERM");
    assert_eq!(socket.read_to_end().await, "");
    let ended = vecho.ended();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.log.contains("cut_connections=0 cut_fetches=0 cut_tunnels=1"), "{}", ended.log);
}
