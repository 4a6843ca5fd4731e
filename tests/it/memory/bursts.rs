//! Bursts of requests and of disconnects, of any shape: the process exceeds its memory limit by at most a tenth,
//! reports the limit that was reached, and keeps serving.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use super::limited::{
    ANSWERS, CLOSES, IS_SILENT, Limited, Mood, NOWHERE, Reader, Seen, UNOPTIMISED_MB, list, say, texts, upstream,
};
use super::{MIB, mb, resident_bytes};
use crate::harness::redis::Redis;
use crate::harness::{Client, eventually};
use crate::randomised::dice::Dice;

const LIMITS_MB: [u64; 3] = [64, 100, 500];

#[tokio::test(flavor = "multi_thread")]
async fn mocks_too_large_for_memory_are_refused_and_smaller_ones_served() {
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
async fn the_built_in_mock_refuses_answers_too_large_for_memory() {
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
async fn requests_too_large_for_memory_pass_through_and_others_wait() {
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
async fn concurrent_requests_for_thousands_of_vectors_take_turns() {
    for limit_mb in LIMITS_MB {
        let upstream = upstream(&Arc::default()).await;
        let limited = Limited::start(&upstream.base_url(), limit_mb);
        for (round, encoding) in ["base64", "float", "base64"].into_iter().enumerate() {
            let bodies = (0..8).map(|n| texts(round % 2 * 4 + n, 2_000, 1_536, encoding));
            let seen = limited.send_all(bodies, Reader::Whole).await;
            assert!(seen.iter().all(|seen| seen.status == 200), "{seen:?}");
        }
        limited.stayed_below("thousands of vectors");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_reserve_the_memory_of_parsing_them() {
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
async fn memory_of_disconnected_callers_is_counted() {
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
async fn memory_of_answers_to_slow_clients_is_counted() {
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
async fn an_idle_process_returns_the_memory_of_a_burst() {
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
async fn redis_values_are_read_up_to_the_maximum_record_size() {
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

#[tokio::test(flavor = "multi_thread")]
async fn redis_values_that_exceed_memory_together_count_as_missing() {
    let redis = Redis::start();
    let upstream = upstream(&Arc::default()).await;
    let environment = [("VECHO_REDIS_URL", redis.url()), ("VECHO_REDIS_TIMEOUT", "5s".to_owned())];
    let body = texts(0, 400, 8, "base64");
    let writer = Limited::start_with(&upstream.base_url(), 64, &environment);
    writer.send(&body, Reader::Whole).await;
    eventually("400 records and a note in Redis", async || redis.records().len() == 401).await;
    writer.stayed_below("the writer");
    // Each is as long as a record may be, and together they have 104 MB.
    let lengthen =
        "for _, name in ipairs(redis.call('keys', '*:{*}')) do redis.call('setrange', name, 260000, 'x') end";
    redis.cli(&["eval", lengthen, "0"]);
    let reader = Limited::start_with(&upstream.base_url(), 64, &environment);
    eventually("the way to Redis", async || reader.metric("vecho_cache_tier_down{tier=\"redis\"}").await < 1.0).await;
    let sent_before = redis.sent_bytes();
    let seen = reader.send(&body, Reader::Whole).await;
    assert!(seen.status == 200 && seen.says("x-vecho-sources: upstream=400"), "{seen:?}");
    // Commands are no measure, because the request for leases reads one byte of each value as well.
    let read = (redis.sent_bytes() - sent_before) / 260_001;
    assert!((1..=60).contains(&read), "{read} values were read, and 51 fit in a fifth of the limit");
    assert!(reader.metric("vecho_cache_tier_down{tier=\"redis\"}").await < 1.0, "Redis is not to blame");
    reader.stayed_below("many long values in Redis");
}
