//! Instructions per operation of the pure steps of a request: `cargo bench --profile dist --bench counts`.
//!
//! Instruction counts do not depend on how busy the machine is, so a change of a few percent is a change of the code.
//! Each operation runs N and 2N times under valgrind's cachegrind. The difference divided by N is the cost of one
//! execution, without start-up and set-up. The program needs only valgrind. gungraun does the same with more comfort,
//! but its runner must be installed in exactly the library's version on every machine that runs this.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is the product of this program")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vecho::cache::at_rest::{self, ChecksumKey, ChecksumKeys};
use vecho::cache::{Record, Times};
use vecho::flow::plan::Plan;
use vecho::key::{Key, KeyBuilder, Tag};
use vecho::learned::{Acceptance, AcceptedCredential, AcceptedCredentials, ModelIdentity, Spaces};
use vecho::observe::metrics::{Ended, InputSource, Metrics, Outcome, RequestUsage, Route};
use vecho::vector::packed::{Codec, Form, Packed};
use vecho::vector::{CosineQuery, Vector};
use vecho::wire::{Base64, Encoding, Expected, PathModel, Rendering, read_answer, read_request};

/// High enough that differences between two runs (hash seeds, addresses) disappear in the division.
const ITERATIONS: u64 = 2000;

/// Name of an operation, and a function that executes it the given number of times.
type Operation = (&'static str, fn(u64));

/// The operations to count. Each function gets the number of executions; work before `repeat` cancels out.
const OPERATIONS: &[Operation] = &[
    ("key_builder_new", |n| repeat(n, || KeyBuilder::new(None))),
    ("key_text_24", |n| key_of_text(n, 24)),
    ("key_text_500", |n| key_of_text(n, 500)),
    ("key_text_8000", |n| key_of_text(n, 8000)),
    ("vector_from_bytes_1536", |n| vector_from_bytes(n, 1536)),
    ("vector_components_1536", |n| vector_components(n, 1536)),
    ("pack_ratio_1536", |n| pack(n, &form_of_services())),
    ("pack_in_vain_1536", |n| pack(n, &unpackable_vector())),
    ("unpack_ratio_1536", |n| unpack(n, Codec::Lossless)),
    ("unpack_bf16_1536", |n| unpack(n, Codec::Bf16)),
    ("unpack_int8_1536", |n| unpack(n, Codec::Int8)),
    ("cosine_ratio_1536", |n| cosine(n, Codec::Lossless)),
    ("cosine_f32_1536", |n| cosine(n, Codec::F32)),
    ("record_to_bytes_1536", record_to_bytes),
    ("record_from_bytes_1536", record_from_bytes),
    ("count_hit", count_hit),
    ("accepted_credential", accepted_credential),
    ("space_of", space_of),
    ("parse_request_1x500", |n| parse_request(n, 1, 500)),
    ("parse_request_256x50", |n| parse_request(n, 256, 50)),
    ("plan_256", plan_256),
    ("render_base64_1536", |n| render(n, Encoding::Base64)),
    ("render_float_1536", |n| render(n, Encoding::Float)),
    ("read_answer_base64_1536", |n| read(n, Encoding::Base64)),
    ("read_answer_float_1536", |n| read(n, Encoding::Float)),
];

fn repeat<T>(iterations: u64, operation: impl Fn() -> T) {
    for _ in 0..iterations {
        black_box(operation());
    }
}

/// Counts everything that a reply from the reply cache is counted with, and records it among the recent requests.
fn count_hit(iterations: u64) {
    let metrics = Metrics::new("0");
    let account = metrics.accounts().of("text-embedding-3-small", "", "text-embedding-3-small");
    let (route, outcome, elapsed) = (Route::Embeddings, Outcome::Hit, Duration::from_micros(120));
    repeat(iterations, || {
        metrics.usage.inputs(InputSource::Memory, 1);
        metrics.usage.tokens_saved(100);
        account.count(1, 0, 100);
        let subject = Some(RequestUsage { named: Arc::clone(account.named()), inputs: 1 });
        metrics.requests.ended(Ended { route, outcome, status: Some(200), begun: Instant::now(), elapsed, subject });
    });
}

/// Returns this many different keys.
fn some_keys(count: u64) -> Vec<Key> {
    let root = KeyBuilder::new(None).finish();
    (0..count).map(|n| root.extend(Tag::Model, &n.to_le_bytes())).collect()
}

/// Looks up an accepted credential among a hundred, as a hit in scope `shared` does.
fn accepted_credential(iterations: u64) {
    let (vouchers, keys) = (AcceptedCredentials::default(), some_keys(100));
    let all: Vec<AcceptedCredential> =
        keys.iter().map(|credential| AcceptedCredential { credential: *credential, subject: keys[0] }).collect();
    for voucher in &all {
        vouchers.accept(*voucher, Acceptance { until_ms: 3_600_000, owner: None }, 0);
    }
    let mut next = all.iter().cycle();
    for _ in 0..iterations {
        assert!(next.next().is_some_and(|voucher| vouchers.holds(black_box(voucher), 1)));
    }
}

/// Looks up the state of a space among a hundred, as each parsed request does.
fn space_of(iterations: u64) {
    let (spaces, keys) = (Spaces::default(), some_keys(100));
    let mut next = keys.iter().cycle();
    for _ in 0..iterations {
        black_box(next.next().map(|space| spaces.of(black_box(*space))));
    }
}

/// Builds a key as a request does: the shared prefix is already hashed, only the input is added.
fn key_of_text(iterations: u64, text_bytes: usize) {
    let text = "e".repeat(text_bytes);
    let mut begun = KeyBuilder::new(None);
    begun.part(Tag::Scope, &[7; 32]).part(Tag::Upstream, b"https://api.openai.com/v1/embeddings");
    let begun = begun.part(Tag::Model, b"text-embedding-3-small").finish();
    repeat(iterations, || -> Key { begun.extend(Tag::Text, black_box(text.as_bytes())) });
}

fn components(dimension: u16) -> Vec<f32> {
    (0..dimension).map(|index| f32::from(index + 1) / 65536.0).collect()
}

fn vector_from_bytes(iterations: u64, dimension: u16) {
    let bytes: Vec<u8> = components(dimension).into_iter().flat_map(f32::to_le_bytes).collect();
    repeat(iterations, || Vector::from_le_bytes(black_box(&bytes)));
}

fn vector_components(iterations: u64, dimension: u16) {
    let vector = Vector::from_components(&components(dimension)).expect("finite and not all zero");
    repeat(iterations, || black_box(&vector).components().sum::<f32>());
}

/// Returns components of the form that services send: whole numbers divided by a norm, in no order.
fn form_of_services() -> Vector {
    let numerators = (1..=1536_u16).map(|index| f32::from(index.wrapping_mul(40_503) >> 5) - 1023.0);
    let components: Vec<f32> = numerators.map(|numerator| numerator / 23_456.79).collect();
    Vector::from_components(&components).expect("finite and not all zero")
}

/// Returns components of a form that the lossless codec cannot pack.
fn unpackable_vector() -> Vector {
    let components: Vec<f32> = (1..=1536_u16).map(|index| (f32::from(index) * 0.7).sin()).collect();
    Vector::from_components(&components).expect("finite and not all zero")
}

fn pack(iterations: u64, vector: &Vector) {
    repeat(iterations, || Packed::pack(black_box(vector), Codec::Lossless));
}

fn unpack(iterations: u64, codec: Codec) {
    let vector = if codec == Codec::Bf16 { unpackable_vector() } else { form_of_services() };
    let packed = Packed::pack(&vector, codec);
    assert_ne!(packed.form(), Form::F32, "it must have been packed");
    let mut bytes = Vec::new();
    for _ in 0..iterations {
        bytes.clear();
        black_box(&packed).write_le_bytes(&mut bytes);
        black_box(&bytes);
    }
}

fn cosine(iterations: u64, codec: Codec) {
    let (query, candidate) = (CosineQuery::new(&unpackable_vector()), Packed::pack(&form_of_services(), codec));
    repeat(iterations, || query.cosine(black_box(&candidate)));
}

fn record() -> Record {
    let vector = Packed::pack(&form_of_services(), Codec::Lossless);
    let identity = ModelIdentity { model: "text-embedding-3-small".into(), dimension: 1536, revision: 0 };
    Record::new(vector, identity, Times { created_ms: 1, fresh_until_ms: 2, stale_until_ms: 3 }, Some(8))
}

fn checksum_key() -> ChecksumKey {
    ChecksumKeys::default().of(&KeyBuilder::new(None).finish())
}

fn record_to_bytes(iterations: u64) {
    let record = record();
    repeat(iterations, || at_rest::to_bytes(black_box(&record), 1, &checksum_key()));
}

fn record_from_bytes(iterations: u64) {
    let bytes = at_rest::to_bytes(&record(), 1, &checksum_key());
    repeat(iterations, || at_rest::from_bytes(black_box(&bytes), &checksum_key()).is_ok());
}

fn parse_request(iterations: u64, texts: usize, text_bytes: usize) {
    let input: Vec<String> = (0..texts).map(|n| format!("{n:0text_bytes$}")).collect();
    let body = serde_json::json!({"model": "text-embedding-3-small", "encoding_format": "base64", "input": input});
    let (body, extra_fields) = (body.to_string(), BTreeSet::new());
    repeat(iterations, || read_request(black_box(body.as_bytes()), &extra_fields, PathModel::No).is_ok());
}

fn plan_256(iterations: u64) {
    let context = KeyBuilder::new(None).finish();
    let keys: Vec<Key> = (0..256_u32).map(|n| context.extend(Tag::Text, &n.to_le_bytes())).collect();
    repeat(iterations, || Plan::new(black_box(&keys).iter().copied()));
}

/// Returns a response with one vector of 1536 dimensions, packed as in the memory tier.
fn rendering(encoding: Encoding) -> Rendering {
    let vector = Packed::pack(&form_of_services(), Codec::Lossless);
    let model = "text-embedding-3-small".to_owned();
    Rendering {
        vectors: [vector].into(),
        slots: [0].into(),
        encoding,
        model,
        prompt_tokens: 8,
        members: Vec::new(),
        mocks: Vec::new(),
    }
}

fn render(iterations: u64, encoding: Encoding) {
    let rendering = rendering(encoding);
    repeat(iterations, || black_box(&rendering).to_bytes());
}

fn read(iterations: u64, encoding: Encoding) {
    let answer = rendering(encoding).to_bytes();
    let expected = Expected { inputs: 1, asked: None, known: Some(1536), base64: Base64::Proven(1536) };
    repeat(iterations, || read_answer(black_box(&answer), &expected).is_ok());
}

fn main() -> ExitCode {
    // `cargo bench` adds `--bench` to the user's arguments.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let done = match words.as_slice() {
        [command, name, iterations] if command == "run" => run(name, iterations),
        names => report(names),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one operation `iterations` times. Valgrind measures this process.
fn run(name: &str, iterations: &str) -> Result<(), Box<dyn Error>> {
    let (_, operation) = OPERATIONS.iter().find(|(known, _)| *known == name).ok_or("no such operation")?;
    operation(iterations.parse()?);
    Ok(())
}

/// Counts the operations whose names contain one of `words` (all if there are no words). Prints a table and writes the
/// numbers to a file.
fn report(words: &[String]) -> Result<(), Box<dyn Error>> {
    let mut counts = BTreeMap::new();
    println!("| operation | instructions |\n|---|---|");
    for (name, _) in OPERATIONS {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            let each = instructions(name)?;
            println!("| {name} | {each} |");
            counts.insert(*name, each);
        }
    }
    let file = out_dir()?.join("counts.json");
    Ok(std::fs::write(file, serde_json::to_vec_pretty(&counts)?)?)
}

/// Returns the instructions of one execution.
fn instructions(name: &str) -> Result<u64, Box<dyn Error>> {
    let (once, twice) = (counted(name, ITERATIONS)?, counted(name, 2 * ITERATIONS)?);
    Ok(twice.saturating_sub(once) / ITERATIONS)
}

/// Returns the instructions of a whole process that executes the operation `iterations` times.
fn counted(name: &str, iterations: u64) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["run", name, &iterations.to_string()])
        .output()
        .map_err(|error| format!("valgrind is needed to count instructions: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    // The line looks like "==123== I   refs:      1,234,567".
    let line = text.lines().find(|line| line.contains("refs:") && line.contains("== I"));
    let number = line.and_then(|line| line.rsplit(':').next()).ok_or_else(|| format!("no count in: {text}"))?;
    Ok(number.trim().replace(',', "").parse()?)
}

fn out_dir() -> Result<PathBuf, Box<dyn Error>> {
    let manifest = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target");
    let out = std::env::var_os("CARGO_TARGET_DIR").map_or_else(manifest, PathBuf::from).join("bench");
    std::fs::create_dir_all(&out)?;
    Ok(out)
}
