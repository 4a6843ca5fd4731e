//! `usage` equals the upstream's figure on hits and misses. The header splits it into billed and saved tokens.

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::front::TINY;
use crate::harness::stub::tokens;
use crate::harness::{Behaviour, Client, Front, Inside};

const SMALL: &str = "text-embedding-3-small";

const TEXTS: [&str; 4] =
    ["a gateway that remembers", "one", "h\u{e9}llo \u{1f600} <|endoftext|>", "tab\tand more words"];

fn asked(model: &str, input: &Value) -> Value {
    json!({"model": model, "input": input, "dimensions": 8})
}

fn counted(texts: &[&str]) -> u64 {
    texts.iter().map(|text| tokens(*text) as u64).sum()
}

/// Returns the billed and the saved tokens.
fn header(answer: &Answer) -> (u64, u64) {
    let parts = answer.tokens().strip_prefix("billed=").and_then(|rest| rest.split_once(", saved="));
    let (billed, saved) = parts.unwrap_or_else(|| panic!("two numbers: {}", answer.tokens()));
    (billed.parse().expect("a number"), saved.parse().expect("a number"))
}

/// Returns the usage that the upstream itself reports for this body.
async fn upstream_usage(front: &Front, body: &Value) -> u64 {
    Client::new().post(&format!("{}/embeddings", front.stub.base_url()), body).await.usage()
}

#[tokio::test]
async fn a_hit_reports_the_tokens_that_the_upstream_counts_for_texts() {
    let front = Front::start().await;
    let body = asked(SMALL, &json!(TEXTS));
    let miss = front.ask(&body).await;
    let total = counted(&TEXTS);
    assert_eq!((miss.usage(), header(&miss)), (total, (total, 0)));
    for _ in 0..3 {
        let hit = front.ask(&body).await;
        assert_eq!((hit.usage(), header(&hit)), (total, (0, total)));
    }
    assert_eq!(upstream_usage(&front, &body).await, total);
}

#[tokio::test]
async fn hits_on_single_inputs_of_a_batch_report_their_own_tokens() {
    let front = Front::start().await;
    front.ask(&asked(SMALL, &json!(TEXTS))).await;
    for text in TEXTS {
        let hit = front.ask(&asked(SMALL, &json!(text))).await;
        assert_eq!((hit.cache(), hit.usage()), ("hit", counted(&[text])), "{text}");
    }
}

#[tokio::test]
async fn a_token_array_counts_its_length() {
    let front = Front::start().await;
    let body = asked(TINY, &json!([[1, 2, 3], [4], [5, 6]]));
    let miss = front.ask(&body).await;
    assert_eq!((miss.usage(), header(&miss)), (6, (6, 0)));
    let hit = front.ask(&asked(TINY, &json!([[5, 6], [1, 2, 3]]))).await;
    assert_eq!((hit.cache(), hit.usage(), header(&hit)), ("hit", 5, (0, 5)));
}

#[tokio::test]
async fn a_mixed_batch_reports_all_tokens_and_bills_only_the_new_ones() {
    for model in [SMALL, TINY] {
        let front = Front::start().await;
        for known in [TEXTS[0], TEXTS[2]] {
            front.ask(&asked(model, &json!(known))).await;
        }
        let mixed = front.ask(&asked(model, &json!(TEXTS))).await;
        let (new, known) = (counted(&[TEXTS[1], TEXTS[3]]), counted(&[TEXTS[0], TEXTS[2]]));
        assert_eq!((mixed.usage(), header(&mixed)), (new + known, (new, known)), "{model}");
    }
}

#[tokio::test]
async fn hit_and_miss_report_the_same_tokens_for_an_unknown_tokenizer() {
    let front = Front::start().await;
    let body = asked(TINY, &json!(TEXTS));
    let total = front.ask(&body).await.usage();
    assert_eq!(total, counted(&TEXTS));
    let hit = front.ask(&body).await;
    assert_eq!((hit.usage(), header(&hit)), (total, (0, total)));
}

#[tokio::test]
async fn token_shares_of_inputs_add_up_to_the_call() {
    let front = Front::start().await;
    let total = front.ask(&asked(TINY, &json!(TEXTS))).await.usage();
    let mut shares = 0;
    for text in TEXTS {
        shares += front.ask(&asked(TINY, &json!(text))).await.usage();
    }
    assert_eq!(shares, total);
}

#[tokio::test]
async fn repeated_inputs_are_reported_each_time_and_never_billed_on_a_hit() {
    for model in [SMALL, TINY] {
        let front = Front::start().await;
        let (long, short) = (TEXTS[0], TEXTS[1]);
        let body = asked(model, &json!([long, short, long, long]));
        let (once, again) = (counted(&[long, short]), counted(&[long, long]));
        // A shared call makes the split between the two texts an estimate, so each text is first requested alone.
        for text in [long, short] {
            front.ask(&asked(model, &json!(text))).await;
        }
        let hit = front.ask(&body).await;
        assert_eq!((hit.usage(), header(&hit)), (once + again, (0, once + again)), "{model}");
        assert_eq!(hit.usage(), upstream_usage(&front, &body).await);
    }
}

#[tokio::test]
async fn a_repeated_new_input_is_billed_once_and_saved_for_its_repetitions() {
    let front = Front::start().await;
    let body = asked(SMALL, &json!([TEXTS[0], TEXTS[1], TEXTS[0]]));
    let miss = front.ask(&body).await;
    let (once, again) = (counted(&TEXTS[..2]), counted(&TEXTS[..1]));
    assert_eq!((miss.usage(), header(&miss)), (once + again, (once, again)));
    let hit = front.ask(&body).await;
    assert_eq!((hit.usage(), header(&hit)), (once + again, (0, once + again)));
}

#[tokio::test]
async fn repeated_new_inputs_are_billed_once_if_only_the_sum_is_known() {
    let vecho = Inside::start("mock:", &[]).await;
    let texts = [TEXTS[0], TEXTS[1], TEXTS[0]];
    let miss = vecho.embed(asked(SMALL, &json!(texts))).await;
    let (once, again) = (counted(&TEXTS[..2]), counted(&TEXTS[..1]));
    assert_eq!((miss.usage(), header(&miss)), (once + again, (once, again)));
}

#[tokio::test]
async fn repetitions_sent_with_the_original_request_are_billed() {
    let front = Front::start().await;
    // For two equal inputs, vecho's own call contains the input once. The stub answers that call with an HTML page.
    front.stub.when(|call| call.inputs().len() == 1, Behaviour::Garbage);
    let twice = 2 * counted(&TEXTS[..1]);
    let miss = front.ask(&asked(SMALL, &json!([TEXTS[0], TEXTS[0]]))).await;
    assert_eq!((miss.status, miss.usage(), header(&miss)), (200, twice, (twice, 0)));
    let hit = front.ask(&asked(SMALL, &json!([TEXTS[0], TEXTS[0]]))).await;
    assert_eq!((hit.usage(), header(&hit)), (twice, (0, twice)));
    front.ask(&asked(SMALL, &json!([TEXTS[1], TEXTS[1]]))).await;
    assert_eq!(front.calls(), 3, "from then on the caller's own request goes up at once");
}

#[tokio::test]
async fn requests_whose_misses_were_merged_report_their_own_tokens() {
    let front = Front::with(&[("upstream.max_concurrent", "1")]).await;
    let eight = ["1", "2", "3", "4", "5", "6", "7", "8"];
    // After this answer, calls of up to sixteen texts may be merged.
    front.ask(&asked(SMALL, &json!(eight))).await;
    front.stub.next(Behaviour::Gate);
    let blocker = front.post(asked("blocker", &json!("b")).to_string()).send_meanwhile();
    front.stub.held(1).await;
    let (mut sent, mut queued) = (Vec::new(), 0.0);
    for texts in [&TEXTS[..2], &TEXTS[2..]] {
        sent.push((front.post(asked(SMALL, &json!(texts)).to_string()).send_meanwhile(), counted(texts)));
        queued += 2.0;
        front.reaches("vecho_upstream_queued_inputs", queued).await;
    }
    front.stub.release_all();
    blocker.await.expect("it must end");
    for (answer, own) in sent {
        let answer = answer.await.expect("it must end");
        assert_eq!((answer.usage(), header(&answer)), (own, (own, 0)));
    }
    assert_eq!(front.calls(), 3, "the two were merged");
}

#[tokio::test]
async fn usage_is_estimated_if_the_upstream_reports_none() {
    let front = Front::start().await;
    front.stub.always(Behaviour::NoUsage);
    for cache in ["miss", "hit", "hit"] {
        let answer = front.ask(&asked(SMALL, &json!(TEXTS))).await;
        assert_eq!((answer.cache(), answer.usage()), (cache, counted(&TEXTS)));
    }
}

#[tokio::test]
async fn a_shared_input_is_billed_to_the_leading_request() {
    let front = Front::start().await;
    front.stub.always(Behaviour::Gate);
    let ask = |texts: &[&str]| front.post(asked(SMALL, &json!(texts)).to_string()).send_meanwhile();
    let lead = ask(&[TEXTS[0]]);
    front.stub.held(1).await;
    let joiner = ask(&[TEXTS[0], TEXTS[3]]);
    front.stub.held(2).await;
    front.stub.release_all();
    let (lead, joiner) = (lead.await.expect("it must end"), joiner.await.expect("it must end"));
    let (shared, own) = (counted(&TEXTS[..1]), counted(&TEXTS[3..]));
    assert_eq!((lead.usage(), header(&lead)), (shared, (shared, 0)));
    assert_eq!((joiner.usage(), header(&joiner)), (shared + own, (own, shared)));
}

#[tokio::test]
async fn token_metrics_equal_the_token_headers() {
    let front = Front::start().await;
    let mut said = (0, 0);
    for input in [json!(TEXTS), json!([TEXTS[0], "new"]), json!(TEXTS), json!(TEXTS)] {
        let (billed, saved) = header(&front.ask(&asked(SMALL, &input)).await);
        said = (said.0 + billed, said.1 + saved);
    }
    for (kind, expected) in [("billed", said.0), ("saved", said.1)] {
        let counted = front.metric(&format!("vecho_tokens_total{{kind=\"{kind}\"}}")).await;
        assert_eq!(counted.to_string(), expected.to_string(), "{kind}");
    }
}
