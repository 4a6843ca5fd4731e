//! `vecho healthcheck`: one request to the ops port, for containers without curl.

use std::time::Duration;

use http::Method;
use tokio::runtime::Builder;

use super::client::Client;
use super::output::{FAILED, FAULTY, Output, print};
use crate::config::Config;

/// Timeout of the whole request.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Requests `/readyz` from the ops port of this configuration.
pub(super) fn check_ops_port(config: &Config, output: &mut Output<'_>) -> u8 {
    let (client, path) = (Client::of_ops_port(config), "/readyz");
    report(&client.url(path), status(&client, path), output)
}

/// Requests the given URL instead.
pub(super) fn check_url(url: &str, output: &mut Output<'_>) -> u8 {
    match Client::of_url(url) {
        Ok((client, path)) => report(url, status(&client, &path), output),
        Err(bad) => {
            print(output.err, &bad.to_string());
            FAULTY
        }
    }
}

/// Returns the status of the response.
fn status(client: &Client, path: &str) -> Result<u16, String> {
    // One thread is enough for one request, and it starts at once.
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let answer = runtime.block_on(client.request_head(Method::GET, path, TIMEOUT));
    answer.map(|answer| answer.status().as_u16()).map_err(|error| error.cause.to_string())
}

/// Prints the result with the URL.
fn report(url: &str, answer: Result<u16, String>, output: &mut Output<'_>) -> u8 {
    match answer {
        Ok(status @ 200..300) => print(output.out, &format!("ready ({status}): {url}")),
        Ok(status) => {
            print(output.err, &format!("not ready ({status}): {url}"));
            FAILED
        }
        Err(cause) => {
            print(output.err, &format!("no answer: {url}: {cause}"));
            FAILED
        }
    }
}
