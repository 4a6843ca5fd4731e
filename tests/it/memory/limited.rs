//! A process with a memory limit, its clients, and an upstream that answers with vectors of any size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{MIB, Watch, mb, resident_bytes};
use crate::harness::Vecho;
use crate::harness::scripted::{Act, Scripted, ok};
use crate::randomised::dice::Dice;

/// Additional memory of an unoptimised build, for pages of the program.
pub(super) const UNOPTIMISED_MB: u64 = 6;

/// Timeout of one exchange.
const TIMEOUT: Duration = Duration::from_secs(100);

/// An address without a listener.
pub(super) const NOWHERE: &str = "http://127.0.0.1:9/v1";

/// A process with a memory limit, and its peak so far.
pub(super) struct Limited {
    pub(super) vecho: Vecho,
    watch: Watch,
    limit_mb: u64,
}

impl Limited {
    pub(super) fn start(upstream: &str, limit_mb: u64) -> Self {
        Self::start_with(upstream, limit_mb, &[])
    }

    pub(super) fn start_with(upstream: &str, limit_mb: u64, more: &[(&str, String)]) -> Self {
        let limit = limit_mb.to_string();
        let mut environment = vec![
            ("VECHO_MEMORY_LIMIT_MB", limit.as_str()),
            ("OPENAI_API_KEY", "sk-test"),
            // The same setting as in the image.
            ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=32"),
        ];
        environment.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
        let vecho = Vecho::start_with(upstream, &environment);
        let watch = Watch::start(vecho.pid());
        Self { vecho, watch, limit_mb }
    }

    pub(super) async fn send(&self, body: impl AsRef<[u8]>, reader: Reader) -> Seen {
        let whole = exchange(self.vecho.public(), body.as_ref(), reader);
        timeout(TIMEOUT, whole).await.unwrap_or_else(|_| panic!("no answer within {TIMEOUT:?}: {reader:?}"))
    }

    /// Sends several requests from concurrent clients.
    pub(super) async fn send_all(&self, bodies: impl IntoIterator<Item = Vec<u8>>, reader: Reader) -> Vec<Seen> {
        futures_util::future::join_all(bodies.into_iter().map(|body| self.send(body, reader))).await
    }

    pub(super) async fn metric(&self, name: &str) -> f64 {
        crate::harness::ops::metric(self.vecho.admin(), name).await
    }

    /// Prints the peak and compares it with the limit.
    pub(super) fn stayed_below(self, what: &str) {
        let Self { vecho, watch, limit_mb } = self;
        let (left, most) = (resident_bytes(vecho.pid()), watch.most_bytes());
        say(&format!("{what}: limit {limit_mb} MB, peak {:.1} MB, {:.1} MB in the end", mb(most), mb(left)));
        let allowed = (limit_mb + limit_mb / 10 + UNOPTIMISED_MB) * MIB;
        assert!(most <= allowed, "{what}: {:.1} MB at a limit of {limit_mb} MB\n{}", mb(most), vecho.log());
    }
}

#[expect(clippy::print_stdout, reason = "the peak is of interest also where it is low enough")]
pub(super) fn say(text: &str) {
    println!("{text}");
}

/// The way in which a client reads its answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    Whole,
    /// Closes after sending its request.
    HangsUp,
    /// Reads nothing for this time.
    Waits(Duration),
}

/// The answer that a client received: its status, or 0 without an answer, its head, and the first bytes of its body.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) status: u16,
    text: String,
}

impl Seen {
    pub(super) fn says(&self, text: &str) -> bool {
        self.text.contains(text)
    }
}

async fn exchange(addr: std::net::SocketAddr, body: &[u8], reader: Reader) -> Seen {
    let mut stream = TcpStream::connect(addr).await.expect("the port accepts");
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer sk-test\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // vecho may answer and close before it has read everything.
    let sent = stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(body).await.is_ok();
    let (mut kept, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    match reader {
        Reader::HangsUp => return Seen { status: 0, text: String::new() },
        Reader::Waits(pause) if sent => sleep(pause).await,
        Reader::Waits(_) | Reader::Whole => {}
    }
    while let Ok(bytes) = stream.read(&mut piece).await {
        if bytes == 0 {
            break;
        }
        kept.extend_from_slice(&piece[..bytes.min(4096_usize.saturating_sub(kept.len()))]);
    }
    let text = String::from_utf8_lossy(&kept).into_owned();
    Seen { status: text.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0), text }
}

/// The current behaviour of the upstream.
#[derive(Default)]
pub(super) struct Mood(pub(super) AtomicU8);

pub(super) const ANSWERS: u8 = 0;
pub(super) const CLOSES: u8 = 1;
pub(super) const IS_SILENT: u8 = 2;

/// Starts an upstream that answers quickly with one vector for all inputs.
pub(super) async fn upstream(mood: &Arc<Mood>) -> Scripted {
    let mood = Arc::clone(mood);
    Scripted::start(move |arrival| match mood.0.load(Ordering::Relaxed) {
        CLOSES => Act::Close,
        IS_SILENT => Act::Nothing,
        _ => Act::Say(ok(&embeddings(&arrival.body))),
    })
    .await
}

fn embeddings(body: &str) -> String {
    // vecho forwards a body of this size without parsing it.
    if body.len() > 4 << 20 {
        return "{}".to_owned();
    }
    let Ok(request) = serde_json::from_str::<Value>(body) else { return "{}".to_owned() };
    let inputs = match &request["input"] {
        Value::Array(inputs) if !inputs.first().is_some_and(Value::is_number) => inputs.len(),
        _ => 1,
    };
    let dimension = request["dimensions"].as_u64().unwrap_or(8);
    let is_base64 = request["encoding_format"] == "base64";
    let vector = vector(usize::try_from(dimension).expect("small"), is_base64);
    let items: Vec<String> =
        (0..inputs).map(|index| format!(r#"{{"object":"embedding","index":{index},"embedding":{vector}}}"#)).collect();
    let items = items.join(",");
    format!(r#"{{"object":"list","data":[{items}],"model":"m","usage":{{"prompt_tokens":9,"total_tokens":9}}}}"#)
}

/// Returns the JSON of a vector whose components use the full f32 precision, so it does not compress.
fn vector(dimension: usize, is_base64: bool) -> String {
    let mut dice = Dice::new(dimension as u64);
    let mut any_bits = || u32::try_from(dice.below(1 << 26)).expect("it has 26 bits");
    let components = (0..dimension).map(|_| f32::from_bits(0x3a00_0000 | any_bits()));
    if is_base64 {
        let bytes: Vec<u8> = components.flat_map(f32::to_le_bytes).collect();
        format!("\"{}\"", base64_simd::STANDARD.encode_to_string(bytes))
    } else {
        format!("[{}]", components.map(|component| component.to_string()).collect::<Vec<_>>().join(","))
    }
}

/// Returns a request for texts that are unique to this number.
pub(super) fn texts(number: usize, count: usize, dimension: u32, encoding: &str) -> Vec<u8> {
    let texts: Vec<String> = (0..count).map(|place| format!("text {number} {place}")).collect();
    let body = json!({"model": "m", "input": texts, "dimensions": dimension, "encoding_format": encoding});
    body.to_string().into_bytes()
}

pub(super) fn list(start: &str, item: &str, count: usize, end: &str) -> Vec<u8> {
    format!("{{\"model\":\"m\",\"input\":{start}{}{end}}}", item.repeat(count)).into_bytes()
}
