//! Requests that are understood, and requests that are left to the upstream.

use super::*;
use crate::wire::{MAX_INPUTS, write_request};

fn extras() -> BTreeSet<String> {
    ["task", "input_type"].map(str::to_owned).into()
}

fn read(body: &str) -> Result<EmbedRequest<'_>, Bypass> {
    read_request(body.as_bytes(), &extras(), PathModel::No).map_err(|cause| cause.reason)
}

fn texts(body: &str) -> Vec<String> {
    let request = read(body).expect("it is understood");
    request
        .inputs
        .iter()
        .map(|input| match input {
            Input::Text(text) => text.clone().into_owned(),
            Input::Tokens(ids) => format!("{ids:?}"),
        })
        .collect()
}

#[test]
fn all_four_forms_of_input_are_read() {
    assert_eq!(texts(r#"{"model":"m","input":"a"}"#), ["a"]);
    assert_eq!(texts(r#"{"model":"m","input":["a","b\u00e9\n"]}"#), ["a", "bé\n"]);
    assert_eq!(texts(r#"{"model":"m","input":[1,2,3]}"#), ["[1, 2, 3]"]);
    assert_eq!(texts(r#"{"model":"m","input":[[1],[2,3]]}"#), ["[1]", "[2, 3]"]);
}

#[test]
fn every_known_field_is_read() {
    let request = read(
        r#"{"input":"a","model":"m","encoding_format":"base64","dimensions":4.0,"user":"u","task":"x","input_type":null}"#,
    )
    .expect("it is understood");
    assert_eq!(request.encoding, Encoding::Base64);
    assert_eq!(request.user.as_deref(), Some("u"));
    assert_eq!(request.space.dimensions, Some(4));
    assert_eq!(request.space.extras["task"].canonical(), "\"x\"");
    assert_eq!(request.space.extras["input_type"].canonical(), "null");
}

#[test]
fn null_means_absent_for_the_documented_fields() {
    let request = read(r#"{"input":"a","model":"m","encoding_format":null,"dimensions":null,"user":null}"#);
    let plain = read(r#"{"input":"a","model":"m"}"#).expect("it is understood");
    let request = request.expect("it is understood");
    let nulls = RequestForm {
        is_single: true,
        encoding: WrittenEncoding::Null,
        has_null_dimensions: true,
        has_null_user: true,
    };
    assert_eq!(request.form, nulls);
    assert_eq!(EmbedRequest { form: plain.form, ..request }, plain);
}

#[test]
fn escaped_and_plain_texts_are_equal() {
    assert_eq!(texts(r#"{"model":"m","input":"\u003ca\u003e \u2028 \u0000"}"#), ["<a> \u{2028} \0"]);
}

#[test]
fn every_unsupported_request_has_a_bypass_reason() {
    let cases = [
        ("", Bypass::NotJson),
        ("[]", Bypass::NotJson),
        (r#"{"input":"a","model":"m"} x"#, Bypass::NotJson),
        (r#"{"input":"a","model":"m""#, Bypass::NotJson),
        (r#"{"input":"\ud800","model":"m"}"#, Bypass::LoneSurrogate),
        (r#"{"input":"a","model":"m","task":"\ud800"}"#, Bypass::LoneSurrogate),
        (r#"{"input":"\udc00 x","model":"m"}"#, Bypass::LoneSurrogate),
        (r#"{"input":"a","input":"b","model":"m"}"#, Bypass::DuplicateKey),
        (r#"{"input":"a","model":"m","late_chunking":true}"#, Bypass::UnknownField),
        (r#"{"input":"a","model":"m","task":["x","y"]}"#, Bypass::WrongType),
        (r#"{"input":"a","model":"m","task":{"a":1,"a":2}}"#, Bypass::DuplicateKey),
        (r#"{"input":"a","model":null}"#, Bypass::WrongType),
        (r#"{"input":"a","model":"m","dimensions":"4"}"#, Bypass::WrongType),
        (r#"{"input":"a","model":"m","dimensions":0}"#, Bypass::WrongType),
        (r#"{"input":"a","model":"m","dimensions":4.5}"#, Bypass::WrongType),
        (r#"{"input":"a","model":"m","dimensions":65537}"#, Bypass::WrongType),
        (r#"{"input":"a","model":"m","dimensions":4294967295}"#, Bypass::WrongType),
        (r#"{"input":"a","model":"m","encoding_format":"int8"}"#, Bypass::WrongType),
        (r#"{"input":"a","model":"m","encoding_format":""}"#, Bypass::WrongType),
        (r#"{"input":null,"model":"m"}"#, Bypass::WrongType),
        (r#"{"input":["a",1],"model":"m"}"#, Bypass::WrongType),
        (r#"{"input":[1,"a"],"model":"m"}"#, Bypass::WrongType),
        (r#"{"input":[1,-2],"model":"m"}"#, Bypass::WrongType),
        (r#"{"input":[1.0],"model":"m"}"#, Bypass::WrongType),
        (r#"{"input":[{"text":"a"}],"model":"m"}"#, Bypass::WrongType),
        (r#"{"input":"","model":"m"}"#, Bypass::EmptyInput),
        (r#"{"input":["a",""],"model":"m"}"#, Bypass::EmptyInput),
        (r#"{"input":[],"model":"m"}"#, Bypass::EmptyInput),
        (r#"{"input":[[1],[]],"model":"m"}"#, Bypass::EmptyInput),
        (r#"{"model":"m"}"#, Bypass::NoInput),
        (r#"{"input":"a"}"#, Bypass::NoInput),
    ];
    for (body, expected) in cases {
        assert_eq!(read(body).expect_err(body), expected, "{body}");
    }
    assert_eq!(
        read_request(b"{\"input\":\"\xff\",\"model\":\"m\"}", &extras(), PathModel::No).unwrap_err(),
        Bypass::NotJson.into()
    );
}

#[test]
fn the_maximum_of_inputs_is_accepted_and_one_more_is_not() {
    for input in ["\"a\"", "[1]"] {
        let body = |count: usize, end: &str| format!(r#"{{"model":"m","input":[{}{end}"#, vec![input; count].join(","));
        let most = body(MAX_INPUTS, "]}");
        assert_eq!(read(&most).expect("it is understood").inputs.len(), MAX_INPUTS);
        assert_eq!(read(&body(MAX_INPUTS + 1, "]}")), Err(Bypass::TooManyInputs));
        // Parsing ends there, so the rest is not read.
        assert_eq!(read(&body(MAX_INPUTS + 1, ",no json")), Err(Bypass::TooManyInputs));
    }
}

#[test]
fn a_long_token_array_is_one_input() {
    let body = format!(r#"{{"model":"m","input":[{}]}}"#, vec!["7"; MAX_INPUTS + 1].join(","));
    assert_eq!(read(&body).expect("it is understood").inputs.len(), 1);
}

#[test]
fn the_model_field_is_optional_if_the_path_names_the_model() {
    let request = read_request(br#"{"input":"a"}"#, &extras(), PathModel::Yes).expect("it is understood");
    assert_eq!(request.space.model, None);
}

#[test]
fn a_written_request_reads_back_unchanged() {
    let body = r#"{"model":"m","input":["a\"b","é"],"dimensions":4,"user":"u","task":"x"}"#;
    let request = read(body).expect("it is understood");
    let inputs: Vec<&Input<'_>> = request.inputs.iter().collect();
    let written = write_request(&request.space, &inputs, request.form, request.user.as_deref());
    assert_eq!(read_request(&written, &extras(), PathModel::No), Ok(request));
}

#[test]
fn the_member_that_cannot_be_read_is_named() {
    let cases = [
        (r#"{"input":"a","model":"m","late_chunking":true}"#, r#"unknown_field; member="late_chunking""#),
        (r#"{"input":"a","model":"m","dimensions":"4"}"#, r#"wrong_type; member="dimensions""#),
        (r#"{"input":["a",1],"model":"m"}"#, r#"wrong_type; member="input""#),
        (r#"{"input":"a","model":"m","mod\u0065l":"m"}"#, r#"duplicate_key; member="model""#),
        (r#"{"input":"a","model":"m","task":{"a":1,"a":2}}"#, r#"duplicate_key; member="task""#),
        (r#"{"input":"a","model":"m""#, "not_json"),
        (r#"{"input":"","model":"m"}"#, "empty_input"),
    ];
    for (body, expected) in cases {
        let cause = read_request(body.as_bytes(), &extras(), PathModel::No).expect_err(body);
        assert_eq!(cause.header_text(), expected, "{body}");
    }
}

#[test]
fn a_null_member_is_part_of_the_key_and_is_forwarded() {
    let body = r#"{"model":"m","input":"a","output_dtype":null,"anything":null}"#;
    let request = read(body).expect("it is understood");
    let names: Vec<&String> = request.space.extras.keys().collect();
    assert_eq!(names, ["anything", "output_dtype"]);
    let inputs: Vec<&Input<'_>> = request.inputs.iter().collect();
    let written = write_request(&request.space, &inputs, request.form, None);
    assert_eq!(read_request(&written, &extras(), PathModel::No).as_ref(), Ok(&request));
    assert_ne!(request.space, read(r#"{"model":"m","input":"a"}"#).expect("it is understood").space);
}

#[test]
fn bodies_with_too_many_members_or_long_names_are_unsupported() {
    let with = |names: Vec<String>| {
        let members: String = names.iter().flat_map(|name| [",\"", name, "\":null"]).collect();
        format!(r#"{{"model":"m","input":"a"{members}}}"#)
    };
    let numbered = |count: usize| with((0..count).map(|number| format!("n{number}")).collect());
    assert!(read(&numbered(MAX_MEMBERS - 2)).is_ok());
    assert_eq!(read(&numbered(MAX_MEMBERS - 1)), Err(Bypass::UnknownField));
    assert!(read(&with(vec!["x".repeat(MAX_NAME_BYTES)])).is_ok());
    assert_eq!(read(&with(vec!["x".repeat(MAX_NAME_BYTES + 1)])), Err(Bypass::UnknownField));
}

#[test]
fn model_and_user_names_are_bounded_in_length() {
    for name in ["model", "user"] {
        let body = |length: usize| {
            let other = if name == "user" { r#""model":"m","# } else { "" };
            format!(r#"{{{other}"{name}":"{}","input":"a"}}"#, "n".repeat(length))
        };
        assert!(read(&body(MAX_NAME_VALUE_BYTES)).is_ok(), "{name}");
        assert_eq!(read(&body(MAX_NAME_VALUE_BYTES + 1)), Err(Bypass::TooLarge), "{name}");
    }
}
