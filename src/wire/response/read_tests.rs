//! Answers that are accepted, and answers that are rejected.

use super::*;
use crate::process::pace::tests::turns_during;
use crate::vector::NotAVector;

fn expected(inputs: usize, base64: Base64) -> Expected {
    Expected { inputs, asked: None, known: None, base64 }
}

fn vectors(data: &str, inputs: usize) -> Result<Vec<Vec<f32>>, AnswerFault> {
    let body = format!(r#"{{"object":"list","data":{data},"model":"m","usage":{{"prompt_tokens":3}}}}"#);
    let answer = read_answer(body.as_bytes(), &expected(inputs, Base64::Trusted))?;
    assert_eq!((answer.model.as_deref(), answer.prompt_tokens), (Some("m"), Some(3)));
    Ok(answer.vectors.iter().map(|vector| vector.components().collect()).collect())
}

#[test]
fn vectors_are_matched_by_index_not_by_position() {
    let data = r#"[{"index":1,"embedding":[2.0, 1]},{"index":0,"embedding":"AACAPwAAAEA="}]"#;
    assert_eq!(vectors(data, 2), Ok(vec![vec![1.0, 2.0], vec![2.0, 1.0]]));
}

#[tokio::test]
async fn other_tasks_run_while_a_large_answer_is_read() {
    let numbers = format!("[{}]", vec!["0.012345678"; 3_072].join(","));
    let body = format!(r#"{{"data":[{}]}}"#, vec![format!(r#"{{"embedding":{numbers}}}"#); 256].join(","));
    let expected = expected(256, Base64::Trusted);
    let (answer, turns) = turns_during(read_answer_in_slices(body.as_bytes(), &expected)).await;
    assert!(turns >= 2, "{turns} turns");
    assert_eq!(answer, read_answer(body.as_bytes(), &expected));
    assert_eq!(answer.map(|answer| answer.vectors.len()), Ok(256));
}

#[test]
fn inconsistent_answers_are_rejected() {
    let cases = [
        (r#"[{"index":0,"embedding":[1]}]"#, 2, AnswerFault::Count),
        (r#"[{"index":0,"embedding":[1]},{"index":0,"embedding":[2]}]"#, 2, AnswerFault::Index),
        (r#"[{"index":0,"embedding":[1]},{"index":2,"embedding":[2]}]"#, 2, AnswerFault::Index),
        (r"[{},{},and so on]", 1, AnswerFault::Count),
        (r#"[{"embedding":[1]},{"index":0,"embedding":[2]}]"#, 2, AnswerFault::Index),
        (r#"[{"index":1,"embedding":[1]},{"embedding":[2]}]"#, 2, AnswerFault::Index),
        (r#"[{"index":0.5,"embedding":[1]}]"#, 1, AnswerFault::Index),
        (r#"[{"index":-1,"embedding":[1]}]"#, 1, AnswerFault::Index),
        (r#"[{"index":0,"embedding":[1,2]},{"index":1,"embedding":[1]}]"#, 2, AnswerFault::Dimension),
        (r#"[{"index":"0","embedding":[1]}]"#, 1, AnswerFault::Shape),
        (r#"[{"index":0,"embedding":[1]},{"index":1,"embedding":[2,3]}]"#, 2, AnswerFault::Dimension),
        (r#"[{"index":0,"embedding":"AACAPw"}]"#, 1, AnswerFault::Base64),
        (r#"[{"index":0,"embedding":"AACA"}]"#, 1, AnswerFault::Vector(NotAVector::Ragged)),
        (r#"[{"index":0,"embedding":[1e999]}]"#, 1, AnswerFault::Vector(NotAVector::NotFinite)),
        (r#"[{"index":0,"embedding":[0,0]}]"#, 1, AnswerFault::Vector(NotAVector::AllZero)),
        (r#"[{"index":0,"embedding":[]}]"#, 1, AnswerFault::Shape),
        (r#"[{"index":0,"embedding":[[1]]}]"#, 1, AnswerFault::Shape),
        (r#"[{"index":0,"embedding":["1"]}]"#, 1, AnswerFault::Shape),
        (r#"[{"index":0,"embedding":null}]"#, 1, AnswerFault::Shape),
        (r#"[{"index":0,"embedding":{"float":[1]}}]"#, 1, AnswerFault::Shape),
    ];
    for (data, inputs, expected) in cases {
        assert_eq!(vectors(data, inputs), Err(expected), "{data}");
    }
    assert_eq!(read_answer(b"<html>", &expected(1, Base64::Trusted)), Err(AnswerFault::Shape));
}

#[test]
fn float64_in_base64_is_rejected_once_the_dimension_is_known() {
    let body = br#"{"data":[{"index":0,"embedding":"AAAAAAAA8D8AAAAAAAAAQA=="}]}"#;
    assert_eq!(read_answer(body, &expected(1, Base64::Proven(2))), Err(AnswerFault::Dimension));
}

#[test]
fn base64_is_rejected_until_its_dimension_is_proven() {
    let body = br#"{"data":[{"index":0,"embedding":"AACAPwAAAEA="}]}"#;
    assert_eq!(read_answer(body, &expected(1, Base64::Unproven)), Err(AnswerFault::Dimension));
    assert!(read_answer(body, &expected(1, Base64::Proven(2))).is_ok());
}

#[test]
fn an_answer_marked_as_a_mock_is_rejected() {
    let answer = |marks: &str| format!(r#"{{"data":[{{"index":0,"embedding":[1]}}],"vecho":{marks}}}"#);
    let read = |marks: &str| read_answer(answer(marks).as_bytes(), &expected(1, Base64::Trusted));
    assert_eq!(read(r#"{"mock":[0]}"#), Err(AnswerFault::UpstreamFallback));
    assert!(read(r#"{"mock":[]}"#).is_ok());
}

#[test]
fn escaped_base64_is_base64() {
    let data = r#"[{"index":0,"embedding":"AACAPwAA\u0041EA\u003d"}]"#;
    assert_eq!(vectors(data, 1), Ok(vec![vec![1.0, 2.0]]));
}

#[test]
fn numbers_are_rounded_once() {
    // This is just above the middle of two f32. Parsed by way of f64 it would be rounded to even, downwards.
    let data = r#"[{"index":0,"embedding":[1.00000005960464477540]}]"#;
    assert_eq!(vectors(data, 1), Ok(vec![vec![1.000_000_1]]));
}

#[test]
fn malformed_json_answers_are_rejected() {
    let item = r#"{"index":0,"embedding":"AACAPwAAAEA="}"#;
    let good = format!(r#"{{"data":[{item}]}}"#);
    let cases = [
        format!("{good}x"),
        format!("{good}{good}"),
        good[..good.len() - 1].to_owned(),
        format!(r#"{{"data":[{item}],}}"#),
        format!(r#"{{"data":[{item},]}}"#),
        format!(r#"{{"data":[{item}] "model":"m"}}"#),
        format!(r#"{{"data":[{item}],"data":[{item}]}}"#),
        format!(r#"{{"data":[{item}],"model":"a","model":"b"}}"#),
        format!(r#"{{"data":[{item}],"other":nul}}"#),
        format!("[{good}]"),
        r#"{"model":"m"}"#.to_owned(),
        r#"{"data":[{"index":0,"index":0,"embedding":"AACAPwAAAEA="}]}"#.to_owned(),
        r#"{"data":[{"index":0,"embedding":"AACAPwAAAEA=","embedding":[1,2]}]}"#.to_owned(),
        r#"{"data":[{"index":0}]}"#.to_owned(),
        r#"{"data":[{"index":0,"embedding":"AACAPwAAAEA="#.to_owned(),
        r#"{"data":[{"index":0,"embedding":"AACAPwAAAEA=\"#.to_owned(),
        r#"{"data":[{"index":0,"embedding":"AACAPwAA\x41EA="}]}"#.to_owned(),
    ];
    assert!(read_answer(good.as_bytes(), &expected(1, Base64::Trusted)).is_ok());
    for body in cases {
        assert_eq!(read_answer(body.as_bytes(), &expected(1, Base64::Trusted)), Err(AnswerFault::Shape), "{body}");
    }
}

#[test]
fn spaces_escapes_and_unknown_members_are_tolerated() {
    let body = r#"
        { "object" : "li\"st", "x" : { "data" : [ 1, {} ], "y" : "\\" } ,
          "d\u0061ta" : [ { "embedding" : "AACAPwAA\/AA=" , "object" : null, "index" : 0 } ] , "usage" : null } "#;
    let answer = read_answer(body.as_bytes(), &expected(1, Base64::Trusted)).expect("it is readable");
    assert_eq!(answer.vectors[0].as_le_bytes(), [0, 0, 0x80, 0x3f, 0, 0, 0xfc, 0]);
}

#[test]
fn an_item_without_an_index_counts_by_position_if_the_others_agree() {
    for data in [
        r#"[{"embedding":[1,2]},{"index":1,"embedding":[3,4]}]"#,
        r#"[{"embedding":[1,2]},{"embedding":[3,4]}]"#,
        r#"[{"index":null,"embedding":[1,2]},{"index":1.0,"embedding":[3,4]}]"#,
    ] {
        assert_eq!(vectors(data, 2), Ok(vec![vec![1.0, 2.0], vec![3.0, 4.0]]), "{data}");
    }
}

#[test]
fn each_usage_field_is_read_independently() {
    let tokens = |usage: &str| {
        let body = format!(r#"{{"data":[{{"index":0,"embedding":[1]}}],"usage":{usage}}}"#);
        read_answer(body.as_bytes(), &expected(1, Base64::Trusted)).expect("usage costs no vectors").prompt_tokens
    };
    for (usage, expected) in [
        (r#"{"prompt_tokens":3,"total_tokens":9}"#, Some(3)),
        (r#"{"total_tokens":355}"#, Some(355)),
        (r#"{"prompt_tokens":null,"total_tokens":12.0}"#, Some(12)),
        (r#"{"prompt_tokens":"3","total_tokens":4}"#, Some(4)),
        (r#"{"prompt_tokens":0,"total_tokens":0}"#, Some(0)),
        (r#"{"prompt_tokens":-1}"#, None),
        (r#"{"prompt_tokens":1e30}"#, None),
        (r#"{"prompt_tokens":4294967296}"#, None),
        (r#"{"prompt_tokens":{"a":1},"x":[]}"#, None),
        ("null", None),
        ("[1,2]", None),
        ("7", None),
        (r#""many""#, None),
    ] {
        assert_eq!(tokens(usage), expected, "{usage}");
    }
}

#[test]
fn a_model_name_of_another_type_is_ignored() {
    for model in ["1", "null", "{}", "\"\"", r#""\ud800""#] {
        let body = format!(r#"{{"data":[{{"index":0,"embedding":[1]}}],"model":{model}}}"#);
        let answer = read_answer(body.as_bytes(), &expected(1, Base64::Trusted)).expect("it is readable");
        assert_eq!(answer.model, None, "{model}");
    }
}

#[test]
fn scalar_members_are_kept_as_written() {
    let body = r#"{"id":"embd-\u0031","object":"list","created":1.50e3,"data":[{"index":0,"embedding":[1]}],"x":{"a":1},
        "y":[1],"ok":true,"none":null,"id":"second","model":"m","usage":{}}"#;
    let answer = read_answer(body.as_bytes(), &expected(1, Base64::Trusted)).expect("it is readable");
    let members: Vec<(&str, &str)> = answer.members.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
    assert_eq!(members, [("id", r#""embd-\u0031""#), ("created", "1.50e3"), ("ok", "true"), ("none", "null")]);
}

#[test]
fn additional_members_are_bounded() {
    let kept = |members: String| {
        let body = format!(r#"{{{members}"data":[{{"index":0,"embedding":[1]}}]}}"#);
        read_answer(body.as_bytes(), &expected(1, Base64::Trusted)).expect("it is readable").members
    };
    assert_eq!(kept((0..100).map(|n| format!("\"n{n}\":{n},")).collect::<Vec<String>>().concat()).len(), MAX_MEMBERS);
    let long = format!("\"long\":\"{}\",\"short\":1,", "x".repeat(MAX_MEMBER_BYTES));
    assert_eq!(kept(long), [("short".to_owned(), "1".into())]);
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let body = b"\xef\xbb\xbf{\"data\":[{\"index\":0,\"embedding\":[1]}]}";
    assert!(read_answer(body, &expected(1, Base64::Trusted)).is_ok());
}

#[test]
fn an_unexpected_dimension_is_reported() {
    let body = br#"{"data":[{"index":0,"embedding":[1,2,3]}]}"#;
    let read = |asked, known| {
        let expected = Expected { inputs: 1, asked, known, base64: Base64::Unproven };
        read_answer(body, &expected).map(|answer| answer.vectors[0].dimension())
    };
    assert_eq!(read(None, None), Ok(3));
    assert_eq!(read(Some(2), Some(3)), Ok(3));
    assert_eq!(read(Some(2), None), Ok(3), "the server ignores what was asked");
    assert_eq!(read(Some(4), None), Err(AnswerFault::OtherDimension(3)));
    assert_eq!(read(Some(3), Some(2)), Err(AnswerFault::OtherDimension(3)));
}

/// Returns an answer with this vector as base64.
fn base64_answer(bytes: &[u8]) -> String {
    format!(r#"{{"data":[{{"index":0,"embedding":"{}"}}]}}"#, base64_simd::STANDARD.encode_to_string(bytes))
}

#[test]
fn unproven_base64_is_accepted_only_if_it_looks_like_f32() {
    let read = |bytes: &[u8], base64| {
        let expected = Expected { inputs: 1, asked: Some(16), known: None, base64 };
        read_answer(base64_answer(bytes).as_bytes(), &expected).map(|answer| answer.vectors[0].dimension())
    };
    let narrow: Vec<u8> = [0.25_f32; 16].iter().flat_map(|component| component.to_le_bytes()).collect();
    let wide: Vec<u8> = [0.25_f64; 16].iter().flat_map(|component| component.to_le_bytes()).collect();
    let half: Vec<u8> = [0.125_f64.sqrt(); 8].iter().flat_map(|component| component.to_le_bytes()).collect();
    for base64 in [Base64::Unproven, Base64::Proven(16), Base64::Proven(4)] {
        assert_eq!(read(&narrow, base64), Ok(16), "{base64:?}");
        assert_eq!(read(&wide, base64), Err(AnswerFault::Dimension), "{base64:?}");
        // As long as sixteen f32.
        assert_eq!(read(&half, base64), Err(AnswerFault::Dimension), "{base64:?}");
    }
}
