//! Properties of all requests and answers: written values are read back unchanged, bit for bit.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::vector::Vector;
use crate::vector::packed::Packed;

const EXTRAS: [&str; 3] = ["input_type", "task", "truncate"];

fn extra_fields() -> BTreeSet<String> {
    EXTRAS.map(str::to_owned).into()
}

/// Generates any text except the empty one, rich in characters that JSON escapes.
fn texts() -> impl Strategy<Value = String> {
    let awkward = prop::collection::vec(
        prop_oneof![
            Just('"'),
            Just('\\'),
            Just('/'),
            Just('\n'),
            Just('\u{0}'),
            Just('\u{7f}'),
            Just('\u{2028}'),
            Just('\u{d7ff}'),
            Just('\u{e000}'),
            Just('\u{ffff}'),
            Just('\u{1f980}'),
            Just('\u{10ffff}'),
            any::<char>(),
        ],
        1..20,
    );
    prop_oneof![awkward.prop_map(|letters| letters.into_iter().collect()), any::<String>()]
        .prop_filter("an empty text is refused", |text: &String| !text.is_empty())
}

fn inputs() -> impl Strategy<Value = Vec<Input<'static>>> {
    let ids = prop::collection::vec(any::<u32>(), 1..10);
    prop_oneof![
        prop::collection::vec(texts().prop_map(|text| Input::Text(Cow::Owned(text))), 1..8),
        prop::collection::vec(ids.prop_map(Input::Tokens), 1..8),
    ]
}

fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

fn spaces() -> impl Strategy<Value = Space> {
    let extras = prop::collection::btree_map(prop::sample::select(&EXTRAS[..]), scalars(), 0..3);
    (prop::option::of(any::<String>()), prop::option::of(1..=MAX_DIMENSIONS), extras).prop_map(
        |(model, dimensions, extras)| {
            let extras: BTreeMap<String, Extra> =
                extras.into_iter().map(|(name, value)| (name.to_owned(), value.to_string().into())).collect();
            Space { model, dimensions, extras }
        },
    )
}

fn encodings() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::Float), Just(Encoding::Base64)]
}

fn written_encodings() -> impl Strategy<Value = WrittenEncoding> {
    prop_oneof![
        Just(WrittenEncoding::Absent),
        Just(WrittenEncoding::Null),
        encodings().prop_map(WrittenEncoding::Value)
    ]
}

/// Generates vectors of components with any finite bits, at least one of them not zero.
fn vectors() -> impl Strategy<Value = Vec<Vector>> {
    let component = any::<u32>().prop_map(f32::from_bits).prop_filter("not finite", |value| value.is_finite());
    let awkward = prop_oneof![Just(0.0_f32), Just(-0.0), Just(f32::MIN_POSITIVE), Just(1.0e-45), Just(f32::MAX)];
    (1_usize..9).prop_flat_map(move |dimension| {
        let components = prop::collection::vec(prop_oneof![3 => component.clone(), 1 => awkward.clone()], dimension);
        let vector = components.prop_filter_map("all zero", |components| Vector::from_components(&components).ok());
        prop::collection::vec(vector, 1..6)
    })
}

fn renderings() -> impl Strategy<Value = Rendering> {
    (vectors(), encodings(), any::<String>(), any::<u32>()).prop_flat_map(|(vectors, encoding, model, tokens)| {
        let slots = prop::collection::vec(0..u32::try_from(vectors.len()).expect("a few"), 1..12);
        slots.prop_map(move |slots| Rendering {
            vectors: vectors.iter().cloned().map(Packed::from).collect(),
            slots: slots.into(),
            encoding,
            model: model.clone(),
            prompt_tokens: u64::from(tokens),
            members: Vec::new(),
            mocks: Vec::new(),
        })
    })
}

/// Returns the digits of a number's text, without sign, point, exponent and zeros at either end.
fn significant(text: &str) -> String {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

proptest! {
    #[test]
    fn a_written_request_round_trips(
        space in spaces(),
        inputs in inputs(),
        form in (any::<bool>(), written_encodings(), any::<bool>()),
        user in prop::option::of(any::<String>()),
    ) {
        let (single, written, nulls) = form;
        let form = RequestForm {
            is_single: single && inputs.len() == 1,
            encoding: written,
            has_null_dimensions: nulls && space.dimensions.is_none(),
            has_null_user: nulls && user.is_none(),
        };
        let body = write_request(&space, &inputs.iter().collect::<Vec<_>>(), form, user.as_deref());
        let read = read_request(&body, &extra_fields(), PathModel::Yes);
        prop_assert_eq!(read, Ok(EmbedRequest { space, inputs, encoding: written.meaning(), user, form }));
    }

    #[test]
    fn json_escapes_do_not_change_a_text(text in texts(), escapes in prop::collection::vec(0_u8..3, 1..9)) {
        let mut spelt = String::new();
        for (letter, how) in text.chars().zip(escapes.into_iter().cycle()) {
            let mut units = [0; 2];
            let units = letter.encode_utf16(&mut units).iter();
            let plain = Value::from(letter.to_string()).to_string();
            match how {
                0 => spelt.push_str(&plain[1..plain.len() - 1]),
                1 => spelt.extend(units.map(|unit| format!("\\u{unit:04x}"))),
                _ => spelt.extend(units.map(|unit| format!("\\u{unit:04X}"))),
            }
        }
        let body = format!(r#"{{ "model" : "m" , "input" : "{spelt}" }}"#);
        let read = read_request(body.as_bytes(), &extra_fields(), PathModel::No).expect("it is understood");
        prop_assert_eq!(read.inputs, vec![Input::Text(Cow::Owned(text))]);
    }

    #[test]
    fn an_answer_round_trips_bit_for_bit_in_both_encodings(rendering in renderings()) {
        let dimension = rendering.vectors[0].dimension();
        let read = read_answer(&rendering.to_bytes(), &Expected { inputs: rendering.slots.len(), asked: None, known: Some(dimension), base64: Base64::Proven(dimension) }).expect("it is readable");
        let expected: Vec<Vector> = rendering.slots.iter().map(|slot| rendering.vectors[*slot as usize].unpack()).collect();
        prop_assert_eq!(read.vectors, expected);
        prop_assert_eq!(read.model.unwrap_or_default(), rendering.model);
        prop_assert_eq!(read.prompt_tokens, Some(rendering.prompt_tokens));
    }

    #[test]
    fn the_predicted_length_is_correct(rendering in renderings()) {
        let length = rendering.to_bytes().len();
        prop_assert!(length <= rendering.largest_len());
        prop_assert!(rendering.exact_len().is_none_or(|told| told == length as u64));
    }

    #[test]
    fn components_are_written_as_the_shortest_decimal_that_round_trips(vectors in vectors()) {
        let rendering = Rendering {
            slots: [0].into(),
            encoding: Encoding::Float,
            model: String::new(),
            prompt_tokens: 0,
            members: Vec::new(),
            mocks: Vec::new(),
            vectors: vectors.into_iter().map(Packed::from).collect(),
        };
        let body = rendering.to_bytes();
        let body = std::str::from_utf8(&body).expect("it is text");
        let list = body.split_once("\"embedding\":[").and_then(|(_, rest)| rest.split_once(']')).expect("a list").0;
        for (text, component) in list.split(',').zip(rendering.vectors[0].unpack().components()) {
            prop_assert_eq!(text.parse::<f32>().map(f32::to_bits), Ok(component.to_bits()));
            let shortest = significant(&format!("{component:e}"));
            prop_assert_eq!(significant(text).len(), shortest.len(), "{} for {:e}", text, component);
        }
    }
}

/// Valid answers, and fragments that corrupt them.
const READABLE: [&str; 4] = [
    r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAEA="}],"model":"m","usage":{"prompt_tokens":3}}"#,
    r#" { "d\u0061ta" : [ { "embedding" : "AACAPwAA\/AA=" , "object" : null, "index" : 0 } ] , "usage" : null } "#,
    r#"{"data":[{"index":1,"embedding":[1.5, -2e-3,0]},{"embedding":"AACAPwAAAEAAAABA","index":0}],"x":[{"y":"\\"},-1.0e+7,true]}"#,
    r#"{"vecho":{"mock":[]},"data":[{"x":{"index":[]},"index":0,"embedding":"AACAPw\u003d="}]}"#,
];
const PIECES: [&str; 28] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    " ",
    "\n",
    "\u{0}",
    "\u{c}",
    "0",
    "-",
    "1e9",
    ".",
    "null",
    "nan",
    "true",
    "\"data\":",
    "\"index\":0,",
    "\"embedding\":",
    "{}",
    "[]",
    "\\u0041",
    "/",
    "=",
    "\u{7f}",
];

fn mutated_answers() -> impl Strategy<Value = Vec<u8>> {
    let cut = (any::<prop::sample::Index>(), 0_usize..6, prop::option::of(prop::sample::select(&PIECES[..])));
    (prop::sample::select(&READABLE[..]), prop::collection::vec(cut, 0..3), prop::option::weighted(0.05, any::<u8>()))
        .prop_map(|(whole, cuts, byte)| {
            let mut body = whole.as_bytes().to_vec();
            for (place, length, piece) in cuts {
                let from = place.index(body.len() + 1);
                let until = body.len().min(from + length);
                body.splice(from..until, piece.unwrap_or_default().bytes());
            }
            if let Some(byte) = byte {
                let middle = body.len() / 2;
                body.insert(middle, byte);
            }
            body
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn invalid_json_is_never_accepted_as_an_answer(body in mutated_answers()) {
        let expected = |inputs| Expected { inputs, asked: None, known: None, base64: Base64::Trusted };
        let read = [1, 2].map(|inputs| read_answer(&body, &expected(inputs)).is_ok());
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        prop_assert!(is_json || read == [false; 2]);
    }
}
