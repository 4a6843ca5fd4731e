//! Reads the input of requests to the ops port: a bounded body and query parameters.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::reply::Refusal;

/// Time from the request's head to the last byte of its body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the whole body. Fails if it is late or larger than `max_bytes`.
pub(super) async fn read<B>(body: B, max_bytes: usize) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    read_within(READ_TIMEOUT, body, max_bytes).await
}

async fn read_within<B>(timeout: Duration, body: B, max_bytes: usize) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // A declared size is checked before anything is read.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(Refusal::BodyTooLarge { max_bytes });
    }
    // A chunked body declares no size, so its bytes are counted as well.
    let whole = Box::pin(Limited::new(body, max_bytes).collect());
    match tokio::time::timeout(timeout, whole).await {
        Err(_) => Err(Refusal::BodyTimeout { seconds: timeout.as_secs() }),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge { max_bytes }),
        Ok(Err(_)) => Err(Refusal::BodyCut),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

/// Returns the values of the parameters `names` in `query`, in that order. An unknown, empty or repeated parameter is
/// an error: a misspelt filter must not widen the effect of a request.
pub(super) fn parameters<const N: usize>(
    query: Option<&str>,
    names: [&str; N],
) -> Result<[Option<String>; N], Refusal> {
    let mut values = [const { None }; N];
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(place) = names.iter().position(|known| *known == name) else {
            return Err(bad(name, "Unknown query parameter"));
        };
        let value = decoded(value).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| bad(name, "Empty or malformed value of query parameter"))?;
        if values[place].replace(value).is_some() {
            return Err(bad(name, "Repeated query parameter"));
        }
    }
    Ok(values)
}

fn bad(name: &str, what: &str) -> Refusal {
    Refusal::BadParameter { param: name.to_owned(), message: format!("{what}: `{name}`.") }
}

/// Decodes the percent-encoding of a query value, with `+` as a space.
fn decoded(value: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(query: &str) -> Result<Option<String>, Refusal> {
        parameters(Some(query), ["model"]).map(|[model]| model)
    }

    #[tokio::test]
    async fn body_that_never_arrives_times_out() {
        let silent = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
        let body = http_body_util::StreamBody::new(silent);
        let read = read_within(Duration::from_millis(5), body, 10).await;
        assert!(matches!(read, Err(Refusal::BodyTimeout { .. })), "{read:?}");
    }

    #[test]
    fn values_are_percent_decoded() {
        assert_eq!(one("model=BAAI%2Fbge+m3%c3%a9"), Ok(Some("BAAI/bge m3\u{e9}".to_owned())));
        assert_eq!(one(""), Ok(None));
        assert_eq!(parameters(None, ["model"]), Ok([None]));
    }

    #[test]
    fn unknown_query_parameters_are_refused() {
        for query in ["modle=x", "model=", "model", "model=a&model=b", "model=%zz", "model=%4", "model=%ff"] {
            assert!(matches!(one(query), Err(Refusal::BadParameter { .. })), "{query}");
        }
    }
}
