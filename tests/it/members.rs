//! Members that popular clients always send: such requests are cached, the member is part of the key, and it is
//! forwarded as written.

use serde_json::{Value, json};

use crate::harness::Front;
use crate::harness::front::tiny;

/// Sends the request twice. The first one causes one call that contains the member as written, and the second one is
/// a hit.
async fn assert_cached(front: &Front, member: &str) {
    let body = format!(r#"{{"model":"tiny","input":"a",{member}}}"#);
    let before = front.calls();
    for cache in ["miss", "hit"] {
        let answer = front.post(body.clone()).send().await;
        assert_eq!((answer.status, answer.cache()), (200, cache), "{body}");
    }
    assert_eq!(front.calls(), before + 1, "{body}");
    let call = front.stub.embedding_calls().pop().expect("a call");
    let sent = String::from_utf8(call.body.to_vec()).expect("it is text");
    assert!(sent.contains(member), "{member}: {sent}");
}

#[tokio::test]
async fn members_that_popular_clients_always_send_are_cacheable() {
    let front = Front::start().await;
    for member in [
        r#""drop_params":true"#,
        r#""output_dimension":256"#,
        r#""output_dtype":"float""#,
        r#""truncation":true"#,
        r#""truncate_prompt_tokens":-1"#,
        r#""add_special_tokens":false"#,
        r#""priority":0"#,
        r#""embedding_type":"float""#,
        r#""encoding_type":"float""#,
        r#""late_chunking":false"#,
        r#""normalized":true"#,
        r#""dimension":512"#,
        r#""truncate_dim":64"#,
        r#""modality":"text""#,
        r#""priority":0.5"#,
        r#""any_other":null"#,
        r#""output_dtype":null"#,
    ] {
        assert_cached(&front, member).await;
    }
}

#[tokio::test]
async fn null_members_are_cacheable_and_forwarded() {
    let front = Front::start().await;
    let body = json!({"model": "tiny", "input": ["a"], "input_type": null, "output_dtype": null,
        "output_dimension": null, "truncation": true});
    for cache in ["miss", "hit"] {
        let answer = front.ask(&body).await;
        assert_eq!((answer.status, answer.cache()), (200, cache));
    }
    let sent = front.stub.embedding_calls().pop().expect("a call").json();
    for name in ["input_type", "output_dtype", "output_dimension"] {
        assert_eq!(sent.get(name), Some(&Value::Null), "{name}");
    }
}

#[tokio::test]
async fn each_value_of_a_member_has_its_own_entry() {
    let front = Front::start().await;
    for member in [r#""task":null"#, r#""task":"a""#, r#""task":1"#, r#""task":1.0"#, r#""task":"1""#] {
        assert_cached(&front, member).await;
    }
}

#[tokio::test]
async fn an_object_member_is_cacheable_if_its_name_is_listed() {
    let front = Front::with(&[("cache.extra_fields", "provider")]).await;
    assert_cached(&front, r#""provider":{ "order": ["x", "y"], "allow_fallbacks" :false}"#).await;
    let calls = front.calls();
    let again = r#"{"provider":{"allow_fallbacks":false,"\u006frder":["x","y"]},"input":["a"],"model":"tiny"}"#;
    let answer = front.post(again).send().await;
    assert_eq!((answer.cache(), answer.vectors(), front.calls()), ("hit", tiny(&["a"]), calls));
    for other in [r#"{"order":["y","x"],"allow_fallbacks":false}"#, r#"{"order":["x","y"]}"#, "{}"] {
        assert_cached(&front, &format!(r#""provider":{other}"#)).await;
    }
}

#[tokio::test]
async fn members_that_change_the_kind_of_answer_are_never_cached() {
    let front =
        Front::with(&[("cache.extra_fields", "output_dtype,embedding_type,late_chunking,return_sparse,x")]).await;
    for (member, reason) in [
        (r#""output_dtype":"int8""#, r#"unknown_field; member="output_dtype""#),
        (r#""embedding_type":"binary""#, r#"unknown_field; member="embedding_type""#),
        (r#""late_chunking":true"#, r#"unknown_field; member="late_chunking""#),
        (r#""return_sparse":true"#, r#"unknown_field; member="return_sparse""#),
        (r#""provider":{"order":["x"]}"#, r#"unknown_field; member="provider""#),
        (r#""x":["a"]"#, r#"wrong_type; member="x""#),
        (r#""x":{"a":1,"a":2}"#, r#"duplicate_key; member="x""#),
        (r#""dimensions":"4""#, r#"wrong_type; member="dimensions""#),
    ] {
        let body = format!(r#"{{"model":"tiny","input":"a",{member}}}"#);
        for _ in 0..2 {
            let calls = front.calls();
            let answer = front.post(body.clone()).send().await;
            assert_eq!((answer.cache(), answer.header("x-vecho-bypass-reason")), ("bypass", Some(reason)), "{body}");
            assert_eq!(
                (front.calls(), front.stub.embedding_calls().pop().expect("a call").body),
                (calls + 1, body.clone().into())
            );
        }
        let explained = front.explain(&body).await;
        let (word, name) = reason.split_once("; member=").expect("two parts");
        assert_eq!(explained["reason"], json!(word), "{explained}");
        assert_eq!(format!("{}", explained["member"]), name, "{explained}");
    }
}
