//! The reference servers. Each is its own process with one worker thread, HTTP/1.1 and loopback.

mod fixed;
mod least;
mod thin;
mod upstream;

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use vecho::process::tasks::Tasks;

use crate::Outcome;

/// Error that ends a connection of a reference server.
type Fault = Box<dyn Error + Send + Sync>;

/// Runs the server that `words` describe: `static FILE`, `thin ADDRESS`, `least ADDRESS` or `upstream DELAY_MS`.
pub(crate) fn run(words: &[String]) -> Outcome<()> {
    vecho::process::heap::limit_heaps(1);
    // The runtime is of the same kind as that of each vecho worker, so neither side has the cheaper scheduler.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match words {
        [role, file] if role == "static" => runtime.block_on(fixed::serve(file)),
        [role, address] if role == "thin" => runtime.block_on(thin::serve(address)),
        [role, address] if role == "least" => runtime.block_on(least::serve(address)),
        [role, delay_ms] if role == "upstream" => runtime.block_on(upstream::serve(delay_ms.parse()?)),
        _ => Err("static FILE, thin ADDRESS, least ADDRESS or upstream DELAY_MS".into()),
    }
}

/// Serves every connection with `answer` for the life of the process.
async fn serve<A, F, B>(answer: A) -> Outcome<()>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, Fault>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Fault>,
{
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    announce(listener.local_addr()?);
    let tasks = Tasks::new();
    let accepting = tasks.clone();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepting.spawn(connection(stream, answer.clone()));
        }
    });
    tasks.stopped().await;
    Ok(())
}

async fn connection<A, F, B>(stream: TcpStream, answer: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, Fault>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Fault>,
{
    // Without this, small responses wait for acknowledgements. A socket that rejects the option still works.
    drop(stream.set_nodelay(true));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    // An error ends only the connection of this client.
    drop(served.await);
}

#[expect(clippy::print_stderr, reason = "the process that started this one reads the address there")]
fn announce(address: SocketAddr) {
    eprintln!("ready public={address}");
}

/// Reads a request body to its end and discards it.
async fn drain(mut body: Incoming) -> Result<(), Fault> {
    use http_body_util::BodyExt;
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}
