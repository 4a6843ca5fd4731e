//! The reference servers. Each is its own process with one worker thread (`static` with as many as wanted), HTTP/1.1 and
//! loopback.

mod fixed;
mod least;
mod thin;
pub(crate) mod upstream;

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
use tokio::runtime::{Builder, Runtime};
use vecho::process::tasks::Tasks;

use crate::Outcome;

/// Error that ends a connection of a reference server.
type Fault = Box<dyn Error + Send + Sync>;

/// Runs the server that `words` describe: `static FILE WORKERS`, `thin ADDRESS`, `least ADDRESS` or `upstream DELAY_MS`.
pub(crate) fn run(words: &[String]) -> Outcome<()> {
    // One heap for each worker, as in vecho.
    let workers = match words {
        [role, _, workers] if role == "static" => workers.parse()?,
        _ => 1,
    };
    vecho::process::heap::limit_heaps(workers);
    match words {
        [role, file, _] if role == "static" => runtime()?.block_on(fixed::serve(file, workers)),
        [role, address] if role == "thin" => runtime()?.block_on(thin::serve(address)),
        [role, address] if role == "least" => runtime()?.block_on(least::serve(address)),
        [role, delay_ms] if role == "upstream" => runtime()?.block_on(upstream::serve(delay_ms.parse()?)),
        _ => Err("static FILE WORKERS, thin ADDRESS, least ADDRESS or upstream DELAY_MS".into()),
    }
}

/// Returns a runtime of the same kind as that of each vecho worker, so neither side has the cheaper scheduler.
fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Serves every connection with `answer` for the life of the process.
async fn serve<A, F, B>(answer: A) -> Outcome<()>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, Fault>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Fault>,
{
    let tasks = Tasks::new();
    announce(serve_until_stop(answer, &tasks).await?);
    tasks.stopped().await;
    Ok(())
}

/// Serves every connection with `answer` until `tasks` are stopped. Returns the address.
async fn serve_until_stop<A, F, B>(answer: A, tasks: &Tasks) -> Outcome<SocketAddr>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, Fault>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Fault>,
{
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    accept(listener, answer, tasks);
    Ok(address)
}

/// Serves the connections that `listener` accepts, until `tasks` are stopped.
fn accept<A, F, B>(listener: TcpListener, answer: A, tasks: &Tasks)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, Fault>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Fault>,
{
    let accepting = tasks.clone();
    tasks.spawn_until_stop(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepting.spawn_until_stop(connection(stream, answer.clone()));
        }
    });
}

/// Serves one connection until it ends.
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
