//! Unusual heads of answers that other HTTP clients accept.

use serde_json::json;

use crate::harness::Inside;
use crate::harness::scripted::{Act, Scripted, answer};

const VECTOR: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.25,0.5]}],"model":"tiny","usage":{"prompt_tokens":1,"total_tokens":1}}"#;

#[tokio::test]
async fn answers_with_unusual_headers_are_read_and_stored() {
    let many = "x-header: 1\r\n".repeat(200);
    for headers in ["x-folded: one\r\n two\r\n", ": no name\r\n", "x-control: a\u{1}b\r\n", &many] {
        let head = format!("content-type: application/json\r\n{headers}");
        let server = Scripted::start(move |_| Act::Say(answer("200 OK", &head, VECTOR))).await;
        let vecho = Inside::start(&server.base_url(), &[]).await;
        for cache in ["miss", "hit"] {
            let answer = vecho.embed(json!({"model": "tiny", "input": "a"})).await;
            assert_eq!((answer.status, answer.vectors()), (200, vec![vec![0.25, 0.5]]), "{headers:?}");
            assert_eq!(answer.cache(), cache, "{headers:?}");
        }
        assert_eq!(server.arrivals().len(), 1, "{headers:?}");
    }
}
