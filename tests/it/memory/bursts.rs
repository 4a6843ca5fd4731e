//! Bursts of requests and of disconnects, of any shape: the process exceeds its memory limit by at most a tenth,
//! reports the limit that was reached, and keeps serving.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{MIB, Watch, mb, resident_bytes};
use crate::harness::redis::Redis;
use crate::harness::scripted::{Act, Scripted, ok};
use crate::harness::{Client, Vecho, eventually};
use crate::randomised::dice::Dice;

const LIMITS_MB: [u64; 3] = [64, 100, 500];

/// Additional memory of an unoptimised build, for pages of the program.
const UNOPTIMISED_MB: u64 = 6;

/// Timeout of one exchange.
const PATIENCE: Duration = Duration::from_secs(100);

/// An address without a listener.
const NOWHERE: &str = "http://127.0.0.1:9/v1";

/// A process with a memory limit, and its peak so far.
struct Limited {
    vecho: Vecho,
    watch: Watch,
    limit_mb: u64,
}

impl Limited {
    fn start(upstream: &str, limit_mb: u64) -> Self {
        Self::start_with(upstream, limit_mb, &[])
    }

    fn start_with(upstream: &str, limit_mb: u64, more: &[(&str, String)]) -> Self {
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

    async fn send(&self, body: impl AsRef<[u8]>, reader: Reader) -> Seen {
        let whole = exchange(self.vecho.public(), body.as_ref(), reader);
        timeout(PATIENCE, whole).await.unwrap_or_else(|_| panic!("no answer within {PATIENCE:?}: {reader:?}"))
    }

    /// Sends several requests from concurrent clients.
    async fn send_all(&self, bodies: impl IntoIterator<Item = Vec<u8>>, reader: Reader) -> Vec<Seen> {
        futures_util::future::join_all(bodies.into_iter().map(|body| self.send(body, reader))).await
    }

    async fn metric(&self, name: &str) -> f64 {
        crate::harness::ops::metric(self.vecho.admin(), name).await
    }

    /// Prints the peak and compares it with the limit.
    fn stayed_below(self, what: &str) {
        let Self { vecho, watch, limit_mb } = self;
        let (left, most) = (resident_bytes(vecho.pid()), watch.most_bytes());
        say(&format!("{what}: limit {limit_mb} MB, peak {:.1} MB, {:.1} MB in the end", mb(most), mb(left)));
        let allowed = (limit_mb + limit_mb / 10 + UNOPTIMISED_MB) * MIB;
        assert!(most <= allowed, "{what}: {:.1} MB at a limit of {limit_mb} MB\n{}", mb(most), vecho.log());
    }
}

#[expect(clippy::print_stdout, reason = "the peak is of interest also where it is low enough")]
fn say(text: &str) {
    println!("{text}");
}

/// The way in which a client reads its answer.
#[derive(Clone, Copy, Debug)]
enum Reader {
    Whole,
    /// Closes after sending its request.
    HangsUp,
    /// Reads nothing for this time.
    Waits(Duration),
}

/// The answer that a client received: its status, or 0 without an answer, its head, and the first bytes of its body.
#[derive(Debug)]
struct Seen {
    status: u16,
    text: String,
}

impl Seen {
    fn says(&self, text: &str) -> bool {
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
struct Mood(AtomicU8);

const ANSWERS: u8 = 0;
const CLOSES: u8 = 1;
const IS_SILENT: u8 = 2;

/// Starts an upstream that answers quickly with one vector for all inputs.
async fn upstream(mood: &Arc<Mood>) -> Scripted {
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

/// Returns the JSON of a vector of full f32 precision.
fn vector(dimension: usize, is_base64: bool) -> String {
    if is_base64 {
        let bytes = 0.012_345_679_f32.to_le_bytes().repeat(dimension);
        format!("\"{}\"", base64_simd::STANDARD.encode_to_string(bytes))
    } else {
        format!("[{}]", vec!["0.012345679"; dimension].join(","))
    }
}

/// Returns a request for texts that are unique to this number.
fn texts(number: usize, count: usize, dimension: u32, encoding: &str) -> Vec<u8> {
    let texts: Vec<String> = (0..count).map(|place| format!("text {number} {place}")).collect();
    let body = json!({"model": "m", "input": texts, "dimensions": dimension, "encoding_format": encoding});
    body.to_string().into_bytes()
}

fn list(start: &str, item: &str, count: usize, end: &str) -> Vec<u8> {
    format!("{{\"model\":\"m\",\"input\":{start}{}{end}}}", item.repeat(count)).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn mocks_larger_than_memory_are_refused_and_smaller_ones_are_made() {
    for limit_mb in LIMITS_MB {
        let limited = Limited::start(NOWHERE, limit_mb);
        let large = limited.send_all((0..3).map(|n| texts(n, 4_000, 65_536, "base64")), Reader::Whole).await;
        assert!(large.iter().all(|seen| seen.status == 502 && seen.says("too_large")), "{large:?}");
        let usual = limited.send_all((10..16).map(|n| texts(n, 1_000, 1_536, "float")), Reader::Whole).await;
        assert!(usual.iter().all(|seen| seen.status == 200 && seen.says("x-vecho-cache: mock")), "{usual:?}");
        limited.stayed_below("mocks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_mock_says_what_is_too_large_for_it() {
    for limit_mb in LIMITS_MB {
        let limited = Limited::start("mock:", limit_mb);
        let large = limited.send_all((0..3).map(|n| texts(n, 4_000, 65_536, "base64")), Reader::Whole).await;
        assert!(large.iter().all(|seen| seen.status == 413 && seen.says("memory.limit_mb")), "{large:?}");
        let usual = limited.send_all((10..13).map(|n| texts(n, 1_000, 1_536, "float")), Reader::Whole).await;
        assert!(usual.iter().all(|seen| seen.status == 200), "{usual:?}");
        limited.stayed_below("the built-in mock");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_vectors_do_not_fit_pass_through_and_those_that_do_wait_for_their_turn() {
    for limit_mb in LIMITS_MB {
        let upstream = upstream(&Arc::default()).await;
        let limited = Limited::start(&upstream.base_url(), limit_mb);
        let huge = limited.send(texts(0, 20_000, 1_536, "base64"), Reader::Whole).await;
        assert!(huge.status == 200 && huge.says("x-vecho-bypass-reason: too_large"), "{huge:?}");
        let large = limited.send_all((1..7).map(|n| texts(n, 1_000, 1_536, "base64")), Reader::Whole).await;
        assert!(large.iter().all(|seen| seen.status == 200 && seen.says("x-vecho-cache: miss")), "{large:?}");
        limited.stayed_below("large requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_charged_for_what_they_take_when_they_are_read() {
    for limit_mb in LIMITS_MB {
        let upstream = upstream(&Arc::default()).await;
        let limited = Limited::start(&upstream.base_url(), limit_mb);
        let bodies = [
            list("[", "1,", 30 << 20, "1]"),
            list("[", "1,", 1 << 20, "1]"),
            list("\"", "word ", 12 << 20, "\""),
            list("\"", "\\u4e2d", 10 << 20, "\""),
            list("[", "[1],", 90_000, "[2]]"),
            list("[", "\"a\",", 800_000, "\"b\"]"),
        ];
        for body in bodies {
            let seen = limited.send_all([body.clone(), body], Reader::Whole).await;
            let is_clear = |seen: &Seen| match seen.status {
                200 => true,
                413 => seen.says("limits.max_body_bytes"),
                503 => seen.says("retry-after") && (seen.says("limits.") || seen.says("memory.limit_mb")),
                _ => false,
            };
            assert!(seen.iter().all(is_clear), "{seen:?}");
        }
        limited.stayed_below("bodies");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_hang_up_leave_nothing_uncounted() {
    for limit_mb in LIMITS_MB {
        let mood = Arc::new(Mood(AtomicU8::new(IS_SILENT)));
        let upstream = upstream(&mood).await;
        let limited = Limited::start(&upstream.base_url(), limit_mb);
        let body = |number: usize| list(&format!("\"{number} "), "word ", 1 << 19, "\"");
        for round in 0..10 {
            limited.send_all((0..10).map(|place| body(round * 10 + place)), Reader::HangsUp).await;
        }
        eventually("the end of all requests", async || limited.metric("vecho_requests_in_flight").await < 1.0).await;
        let (fetches, held) =
            (limited.metric("vecho_flights").await, limited.metric("vecho_body_bytes_in_flight").await);
        assert!(fetches >= 1.0 && held >= fetches * 2_000_000.0, "{fetches} fetches hold {held} bytes");
        limited.stayed_below("hang-ups");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_wait_for_slow_clients_are_counted() {
    for limit_mb in LIMITS_MB {
        let upstream = upstream(&Arc::default()).await;
        let limited = Limited::start(&upstream.base_url(), limit_mb);
        let bodies = || (0..48).map(|n| texts(n % 24, 120, 1_536, "float"));
        for pause in [2, 2] {
            let seen = limited.send_all(bodies(), Reader::Waits(Duration::from_secs(pause))).await;
            assert!(seen.iter().all(|seen| matches!(seen.status, 200 | 503)), "{seen:?}");
            assert!(seen.iter().any(|seen| seen.status == 200), "{seen:?}");
        }
        limited.stayed_below("slow clients");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_gives_back_what_a_burst_took() {
    let upstream = upstream(&Arc::default()).await;
    let limited = Limited::start(&upstream.base_url(), 64);
    for number in 0..10 {
        limited.send(texts(number, 800, 1_536, "float"), Reader::Whole).await;
    }
    let calm = 64 * MIB * 85 / 100 + UNOPTIMISED_MB * MIB;
    let begun = Instant::now();
    while resident_bytes(limited.vecho.pid()) > calm {
        let left = resident_bytes(limited.vecho.pid());
        assert!(begun.elapsed() < Duration::from_secs(30), "{:.1} MB stay\n{}", mb(left), limited.vecho.log());
        sleep(Duration::from_millis(100)).await;
    }
    limited.stayed_below("a burst");
}

/// Duration of the random requests under each limit, in seconds. `VECHO_MEMORY_SECONDS` sets it.
static SECONDS: LazyLock<u64> = LazyLock::new(|| {
    let said = std::env::var("VECHO_MEMORY_SECONDS").ok();
    said.map_or(15, |said| said.parse().expect("VECHO_MEMORY_SECONDS takes a number"))
});

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_any_shape_stay_below_64_mb() {
    any_shape(64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_any_shape_stay_below_100_mb() {
    any_shape(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_any_shape_stay_below_500_mb() {
    any_shape(500).await;
}

/// Runs twelve concurrent clients that send requests of random shapes. The behaviour of the upstream changes.
async fn any_shape(limit_mb: u64) {
    let seed = std::env::var("VECHO_TEST_SEED").map_or(limit_mb, |said| said.parse().expect("a number"));
    let mood = Arc::new(Mood::default());
    let upstream = upstream(&mood).await;
    let limited = Limited::start(&upstream.base_url(), limit_mb);
    let end = Instant::now() + Duration::from_secs(*SECONDS);
    let client = async |number: u64| {
        let mut dice = Dice::new(seed * 1_000 + number);
        let mut sent = 0_u32;
        while Instant::now() < end {
            if number == 0 {
                mood.0.store(dice.pick(&[ANSWERS, ANSWERS, ANSWERS, CLOSES]), Ordering::Relaxed);
            }
            let (body, reader) = shape(&mut dice);
            let seen = limited.send(body, reader).await;
            let is_answer = matches!(seen.status, 200 | 413 | 502 | 503 | 504);
            assert!(is_answer || matches!(reader, Reader::HangsUp), "seed {seed}: {seen:?}");
            sent += 1;
        }
        sent
    };
    let sent = futures_util::future::join_all((0..12).map(client)).await;
    mood.0.store(ANSWERS, Ordering::Relaxed);
    say(&format!("seed {seed}: {} requests", sent.iter().sum::<u32>()));
    let url = format!("{}/embeddings", limited.vecho.base_url());
    let last = Client::new().post(&url, &json!({"model": "m", "input": "still here", "dimensions": 8})).await;
    assert_eq!(last.status, 200, "{:?}\n{}", last.body, limited.vecho.log());
    limited.stayed_below("any shape");
}

fn shape(dice: &mut Dice) -> (Vec<u8>, Reader) {
    let reader = match dice.below(6) {
        0 => Reader::HangsUp,
        1 => Reader::Waits(Duration::from_millis(dice.below(1_500) as u64)),
        _ => Reader::Whole,
    };
    let number = dice.below(1_000);
    let encoding = dice.pick(&["float", "base64"]);
    let body = match dice.below(8) {
        0 => list("[", "17,", dice.below(400_000), "1]"),
        1 => list("[", "[1,2],", dice.below(20_000), "[3]]"),
        2 => list("\"", "caf\\u00e9 ", dice.below(200_000), "x\""),
        3 => texts(number, 1 + dice.below(3_000), 1_536, encoding),
        4 => texts(number, 1 + dice.below(40), 65_536, encoding),
        _ => texts(number, 1 + dice.below(300), dice.pick(&[8, 256, 1_536]), encoding),
    };
    (body, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_any_size_in_redis_are_read_no_further_than_a_record_goes() {
    let redis = Redis::start();
    let upstream = upstream(&Arc::default()).await;
    let environment = [("VECHO_REDIS_URL", redis.url()), ("VECHO_REDIS_TIMEOUT", "5s".to_owned())];
    let body = texts(0, 12, 1_536, "base64");
    let writer = Limited::start_with(&upstream.base_url(), 64, &environment);
    writer.send(&body, Reader::Whole).await;
    eventually("12 records and a note in Redis", async || redis.records().len() == 13).await;
    writer.stayed_below("the writer");
    for name in redis.records() {
        redis.cli(&["SETRANGE", &name, "40000000", "x"]);
    }
    let reader = Limited::start_with(&upstream.base_url(), 64, &environment);
    eventually("the way to Redis", async || reader.metric("vecho_cache_tier_down{tier=\"redis\"}").await < 1.0).await;
    let seen = reader.send(&body, Reader::Whole).await;
    assert!(seen.status == 200 && seen.says("x-vecho-sources: upstream=12"), "{seen:?}");
    reader.stayed_below("large values in Redis");
}
