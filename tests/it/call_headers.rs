//! Headers of an upstream call: a miss repeats them to the client, and a hit contains none of them.

use crate::harness::front::{texts_of, tiny};
use crate::harness::{Behaviour, Front};

/// Headers that gateways and services add to their answers.
const SAID: [(&str, &str); 8] = [
    ("x-litellm-response-cost", "0.00042"),
    ("x-litellm-model-id", "abc"),
    ("apim-request-id", "9f2c"),
    ("x-ms-region", "West Europe"),
    ("x-ratelimit-remaining-tokens", "7"),
    ("openai-processing-ms", "31"),
    ("server", "uvicorn"),
    ("cf-ray", "8f00000000000000-AMS"),
];

/// Headers that describe the upstream's connection, body or origin, or that another vecho wrote.
const OWN: [(&str, &str); 12] = [
    ("connection", "keep-alive, x-hop"),
    ("x-hop", "1"),
    ("keep-alive", "timeout=5"),
    ("set-cookie", "a=b"),
    ("alt-svc", "h3=\":443\""),
    ("strict-transport-security", "max-age=1"),
    ("etag", "\"v1\""),
    ("expires", "0"),
    ("age", "12"),
    ("cache-control", "max-age=60"),
    ("x-vecho-sources", "memory=9"),
    ("x-vecho-tokens", "billed=9"),
];

fn all() -> Behaviour {
    let owned = |(name, value): &(&'static str, &'static str)| (*name, (*value).to_owned());
    Behaviour::Headers(SAID.iter().chain(&OWN).map(owned).collect())
}

#[tokio::test]
async fn a_miss_forwards_the_headers_of_its_call_and_a_hit_does_not() {
    let front = Front::start().await;
    front.stub.always(all());
    let miss = front.embed(&["a"]).await;
    assert_eq!((miss.cache(), miss.vectors()), ("miss", tiny(&["a"])));
    for (name, value) in SAID {
        assert_eq!(miss.header(name), Some(value), "{name}");
    }
    for (name, value) in OWN {
        assert_ne!(miss.header(name), Some(value), "{name}");
    }
    assert_eq!((miss.sources(), miss.header("content-type")), ("upstream=1", Some("application/json")));
    for _ in 0..3 {
        let hit = front.embed(&["a"]).await;
        assert_eq!(hit.cache(), "hit");
        for (name, _) in SAID {
            assert_eq!(hit.header(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn headers_too_long_for_clients_are_dropped() {
    let front = Front::start().await;
    front.stub.next(Behaviour::Headers(vec![("x-long", "v".repeat(5_000)), ("x-short", "v".to_owned())]));
    let miss = front.embed(&["a"]).await;
    assert_eq!((miss.header("x-long"), miss.header("x-short")), (None, Some("v")));
}

#[tokio::test]
async fn a_long_name_of_a_model_is_in_no_header() {
    for (length, is_shown) in [(256, true), (257, false), (100_000, false)] {
        let front = Front::start().await;
        let name = "m".repeat(length);
        front.stub.always(Behaviour::ModelName(name.clone()));
        for _ in 0..4 {
            let answer = front.embed(&["a"]).await;
            assert_eq!((answer.status, answer.json()["model"].as_str()), (200, Some(name.as_str())));
            // On a miss, the stub's own header is forwarded, and it contains the full model name.
            let shown = answer.header("openai-model");
            assert!(shown.is_none_or(|shown| shown.len() <= 256), "{length}: {}", answer.cache());
            assert!(answer.cache() == "miss" || shown.is_some() == is_shown, "{length}: {}", answer.cache());
        }
        assert_eq!(front.calls(), 1);
    }
}

#[tokio::test]
async fn a_partial_hit_forwards_the_headers_of_its_call() {
    let front = Front::start().await;
    front.embed(&["a"]).await;
    front.stub.always(all());
    let answer = front.ask(&texts_of(&["a", "b"])).await;
    assert_eq!((answer.cache(), answer.header("x-litellm-response-cost")), ("partial", Some("0.00042")));
}
