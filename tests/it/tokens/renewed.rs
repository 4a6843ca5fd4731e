//! Renewed tokens: each one is proven once, and then serves the entries of its owner.

use std::collections::BTreeMap;
use std::time::Duration;

use super::issued::{LIFETIME, NOW, ask, ask_as, claims, signed, start, token};
use crate::disk::ground::Folder;
use crate::harness::front::{texts_of, tiny};
use crate::harness::stub::Limits;
use crate::harness::{Behaviour, Inside, Stub};
use crate::randomised::dice::Dice;

#[tokio::test]
async fn a_renewed_token_is_sent_upstream_once_and_then_gets_the_entries_of_its_owner() {
    let front = start(&[]).await;
    for text in ["a", "b"] {
        ask_as(&front, &token("me", 1), text).await;
    }
    for number in 2..=4 {
        let renewed = token("me", number);
        let proof = ask_as(&front, &renewed, "a").await;
        assert_eq!((proof.vectors(), proof.cache()), (tiny(&["a"]), "miss"), "{number}");
        // The third request of each text comes from the reply cache.
        for text in ["b", "b", "b", "a", "a"] {
            let hit = ask_as(&front, &renewed, text).await;
            assert_eq!((hit.vectors(), hit.cache()), (tiny(&[text]), "hit"), "{number} {text}");
        }
    }
    assert_eq!(front.calls(), 2 + 3, "one proof for each token");
    assert!((front.metric(r#"vecho_token_proofs_total{result="accepted"}"#).await - 4.0).abs() < 0.1);
}

#[tokio::test]
async fn each_caller_by_header_begins_with_an_empty_cache_by_default() {
    let front = crate::harness::Front::start().await;
    for number in 1..=2 {
        for cache in ["miss", "hit"] {
            assert_eq!(ask_as(&front, &token("me", number), "a").await.cache(), cache, "{number}");
        }
    }
    assert_eq!(front.calls(), 2);
}

/// Several pods of several principals get a new token every second. Each pod asks for texts of its principal.
#[tokio::test]
async fn with_tokens_renewed_every_second_each_text_is_fetched_once_and_each_token_proven_once() {
    const SECONDS: u64 = 20;
    let (front, mut dice) = (start(&[]).await, Dice::new(7));
    let (mut asked, mut hits) = (0, 0);
    for second in 0..SECONDS {
        for principal in ["indexer", "search"] {
            for pod in 0..2 {
                let token = token(principal, second * 2 + pod);
                for _ in 0..6 {
                    let text = format!("{principal} {}", dice.below(12));
                    let answer = ask_as(&front, &token, &text).await;
                    assert_eq!(answer.vectors(), tiny(&[&text]));
                    asked += 1;
                    hits += u64::from(answer.cache() == "hit");
                }
            }
        }
        front.pass(Duration::from_secs(1));
    }
    let tokens = SECONDS * 4;
    let mut fetched = BTreeMap::<String, u64>::new();
    for text in front.texts_sent().concat() {
        *fetched.entry(text).or_default() += 1;
    }
    let distinct = fetched.len() as u64;
    let calls = front.calls() as u64;
    assert!(calls <= tokens + distinct, "{calls} calls for {tokens} tokens and {distinct} texts");
    assert_eq!(hits, asked - calls, "every other request is a hit");
    assert!(hits * 10 >= asked * 7, "{hits} of {asked}");
    let mut senders: Vec<_> =
        front.stub.calls().iter().map(|call| call.header("authorization").expect("a token").to_owned()).collect();
    senders.sort_unstable();
    senders.dedup();
    assert_eq!(senders.len() as u64, tokens, "each token has proven itself");
}

#[tokio::test]
async fn requests_that_arrive_together_with_a_new_token_wait_for_one_proof() {
    let front = start(&[]).await;
    let texts: Vec<String> = (0..30).map(|number| format!("text {number}")).collect();
    ask(&front, &token("me", 1), &texts.iter().map(String::as_str).collect::<Vec<_>>()).send().await;
    let before = front.calls();
    front.stub.always(Behaviour::Gate);
    let renewed = token("me", 2);
    let mut requests = vec![ask(&front, &renewed, &["text 0"]).send_meanwhile()];
    front.stub.held(1).await;
    requests.extend(texts.iter().map(|text| ask(&front, &renewed, &[text.as_str()]).send_meanwhile()));
    front.reaches("vecho_requests_in_flight", 31.0).await;
    front.stub.always(Behaviour::Normal);
    front.stub.release_all();
    for (place, request) in requests.into_iter().enumerate() {
        let answer = request.await.expect("it must end");
        assert_eq!((answer.status, answer.cache()), (200, if place == 0 { "miss" } else { "hit" }), "{place}");
    }
    assert_eq!(front.calls(), before + 1);
}

#[tokio::test]
async fn a_large_request_proves_its_token_with_its_shortest_input() {
    let front = start(&[]).await;
    let texts: Vec<String> = (0..40).map(|number| format!("a text of some length with the number {number}")).collect();
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    texts.push("short");
    ask(&front, &token("me", 1), &texts).send().await;
    let before = front.texts_sent().len();
    let answer = ask(&front, &token("me", 2), &texts).send().await;
    assert_eq!((answer.vectors(), answer.sources()), (tiny(&texts), "memory=40, upstream=1"));
    assert_eq!(front.texts_sent()[before..], [vec!["short".to_owned()]]);
    assert_eq!(ask(&front, &token("me", 2), &texts).send().await.cache(), "hit");
}

#[tokio::test]
async fn a_large_first_request_sends_each_of_its_texts_once() {
    let front = start(&[]).await;
    let texts: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let answer = ask(&front, &token("me", 1), &texts).send().await;
    assert_eq!((answer.vectors(), answer.cache()), (tiny(&texts), "miss"));
    let mut sent = front.texts_sent().concat();
    sent.sort_unstable();
    let mut expected: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    expected.sort_unstable();
    assert_eq!(sent, expected);
    assert_eq!(answer.usage(), front.stub.embedding_calls().iter().map(|call| call.texts().len() as u64).sum::<u64>());
}

#[tokio::test]
async fn a_renewed_token_keeps_what_calls_of_its_owner_have_learned() {
    let front = start(&[("upstream.max_concurrent", "1")]).await;
    front.stub.set_limits(Limits { inputs: 10, ..Limits::default() });
    let refused = |from: usize| front.texts_sent()[from..].iter().filter(|texts| texts.len() > 10).count();
    for number in 1..=3 {
        let calls = front.texts_sent().len();
        let texts: Vec<String> = (0..40).map(|text| format!("{number} {text}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(ask(&front, &token("me", number), &texts).send().await.vectors(), tiny(&texts), "{number}");
        assert_eq!(refused(calls) > 0, number == 1, "the limit is found once: {:?}", front.texts_sent());
    }
}

#[tokio::test]
async fn tokens_of_one_owner_share_a_fetch() {
    let front = start(&[]).await;
    for number in 1..=2 {
        ask_as(&front, &token("me", number), &format!("proof {number}")).await;
    }
    front.stub.always(Behaviour::Gate);
    let first = ask(&front, &token("me", 1), &["a"]).send_meanwhile();
    front.stub.held(1).await;
    let second = ask(&front, &token("me", 2), &["a"]).send_meanwhile();
    front.reaches("vecho_requests_in_flight", 2.0).await;
    front.stub.always(Behaviour::Normal);
    front.stub.release_all();
    assert_eq!(first.await.expect("it must end").cache(), "miss");
    let second = second.await.expect("it must end");
    assert_eq!(second.vectors(), tiny(&["a"]));
    assert_eq!(front.calls(), 3);
}

#[tokio::test]
async fn a_waiter_does_not_get_the_refusal_of_another_token_of_its_owner() {
    let front = start(&[]).await;
    let [one, two] = [token("me", 1), token("me", 2)];
    front.stub.accept_keys([&one, &two]);
    for token in [&one, &two] {
        ask_as(&front, token, &format!("proof of {token}")).await;
    }
    front.stub.always(Behaviour::Gate);
    let revoked = ask(&front, &one, &["a"]).send_meanwhile();
    front.stub.held(1).await;
    let waiter = ask(&front, &two, &["a", "own"]).send_meanwhile();
    front.stub.held(2).await;
    front.stub.accept_keys([&two]);
    front.stub.always(Behaviour::Normal);
    front.stub.release_all();
    assert_eq!(revoked.await.expect("it must end").status, 401);
    assert_eq!(waiter.await.expect("it must end").vectors(), tiny(&["a", "own"]));
}

#[tokio::test]
async fn an_expired_token_is_not_served_from_the_cache() {
    let front = start(&[]).await;
    let first = token("me", 0);
    for cache in ["miss", "hit", "hit", "hit"] {
        assert_eq!(ask_as(&front, &first, "a").await.cache(), cache);
    }
    front.pass(Duration::from_millis(LIFETIME * 1_000 - 1));
    assert_eq!(ask_as(&front, &first, "a").await.cache(), "hit");
    front.pass(Duration::from_millis(1));
    // The stub accepts expired tokens, as a server with another clock does. They are still not served from the cache.
    for _ in 0..3 {
        assert_eq!(ask_as(&front, &first, "a").await.cache(), "miss");
    }
    let only = ask(&front, &first, &["a"]).header("cache-control", "only-if-cached").send().await;
    assert_eq!((only.status, front.calls()), (504, 4));
    let renewed = signed(&claims("me", LIFETIME + 1), "issuer");
    ask_as(&front, &renewed, "proof").await;
    assert_eq!(ask_as(&front, &renewed, "a").await.cache(), "hit");
}

#[tokio::test]
async fn a_token_that_never_expires_proves_itself_every_day() {
    let front = start(&[]).await;
    let mut claims = claims("me", 0);
    claims["exp"] = (NOW * 2).into();
    let token = signed(&claims, "issuer");
    for (hours, cache) in [(0, "miss"), (23, "hit"), (1, "miss"), (0, "hit")] {
        front.pass(Duration::from_hours(hours));
        assert_eq!(ask_as(&front, &token, "a").await.cache(), cache, "{hours}");
    }
}

#[tokio::test]
async fn after_a_restart_a_token_proves_itself_again_and_the_entries_on_disk_are_those_of_its_owner() {
    let (stub, folder) = (Stub::start(), Folder::new());
    let settings = [("auth.identity", "token"), ("disk.path", folder.text()), ("fallback.mode", "error")];
    let [first, second] = [token("me", 1), token("me", 2)].map(|token| format!("Bearer {token}"));
    let vecho = Inside::start(&stub.base_url(), &settings).await;
    for text in ["a", "b"] {
        vecho.embed_with(&[("authorization", &first)], texts_of(&[text])).await;
    }
    vecho.stop().await;
    let vecho = Inside::start(&stub.base_url(), &settings).await;
    for (token, text, cache) in
        [(&second, "a", "miss"), (&second, "b", "hit"), (&first, "b", "miss"), (&first, "a", "hit")]
    {
        let answer = vecho.embed_with(&[("authorization", token)], texts_of(&[text])).await;
        assert_eq!((answer.vectors(), answer.cache()), (tiny(&[text]), cache), "{text}");
    }
    vecho.stop().await;
    let files = std::fs::read_dir(folder.text()).expect("the folder is there").map(|file| file.expect("a file").path());
    let stored: Vec<u8> =
        files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).expect("it is read")).collect();
    assert!(!stored.is_empty());
    for secret in [&first, &second].map(|token| token.trim_start_matches("Bearer ")) {
        assert!(!stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "a token is on the disk");
    }
}
