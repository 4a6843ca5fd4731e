//! Deterministic mock of an embedding: unit length, and close for texts that share words.
//!
//! Each word (or token) selects a fixed pseudo-random direction by the hash of model and word. A text's vector is the
//! sum of its words' directions plus a small direction of its own. This is feature hashing with dense features, so a
//! development system with similarity search still finds sensible results.
//!
//! Each mock of 64 components or more has a watermark, by which it can be found in a vector store. It is a linear
//! relation, so it changes little of the similarities.

use std::collections::BTreeMap;

use crate::key::{Key, KeyBuilder, Tag};
use crate::vector::{Vector, mark};
use crate::wire::Input;

/// Weight of a text's own direction, relative to one word. It suffices to tell two orders of the same words apart.
const OWN_SHARE: f32 = 0.3;

/// Returns the mock vector of an input.
pub fn vector(model: &str, dimension: usize, input: &Input<'_>) -> Vector {
    let mut context = KeyBuilder::new(None);
    let context = context.part(Tag::Model, model.as_bytes()).finish();
    let mut sum = vec![0.0_f32; dimension.max(1)];
    for (feature, count) in features(&context, input) {
        add_direction(&mut sum, &feature, count.sqrt());
    }
    add_direction(&mut sum, &input.key(&context), OWN_SHARE);
    mark(&mut sum);
    Vector::of_unit_length(&sum).unwrap_or_else(|_| unit(sum.len()))
}

/// Returns the dimension of widely used models if `dimensions` does not ask for another.
pub fn usual_dimension(model: &str) -> Option<usize> {
    match model {
        "text-embedding-3-small" | "text-embedding-ada-002" | "text-embedding-ada-002-v2" => Some(1_536),
        "text-embedding-3-large" => Some(3_072),
        _ => None,
    }
}

/// Returns the distinct words of an input, each with its count. The caller weighs a word by the square root of its
/// count, so a repeated word does not dominate the others.
fn features(context: &Key, input: &Input<'_>) -> BTreeMap<Key, f32> {
    // The order of the map fixes the order of the additions, so rounding gives the same vector each time.
    let mut counts = BTreeMap::new();
    let mut add = |key: Key| *counts.entry(key).or_insert(0.0) += 1.0;
    match input {
        Input::Text(text) => {
            for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
                // Letter case and punctuation are ignored, so texts with the same words are similar.
                add(context.extend(Tag::Text, word.to_lowercase().as_bytes()));
            }
        }
        Input::Tokens(ids) => ids.iter().for_each(|id| add(context.extend(Tag::Tokens, &id.to_le_bytes()))),
    }
    counts
}

fn add_direction(sum: &mut [f32], feature: &Key, weight: f32) {
    let mut bytes = feature.stream();
    let mut block = [0_u8; 256];
    for part in sum.chunks_mut(block.len()) {
        bytes.fill(&mut block);
        for (component, byte) in part.iter_mut().zip(block) {
            // Centres the byte around zero.
            *component += weight * (f32::from(byte) - 127.5);
        }
    }
}

/// Returns a unit vector for the case that the directions of all words cancel out, which needs very few dimensions.
fn unit(dimension: usize) -> Vector {
    let mut components = vec![0.0; dimension];
    components[0] = 1.0;
    Vector::from_components(&components).expect("a unit vector must be a vector")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn mock(text: &str) -> Vector {
        vector("m", 256, &Input::Text(Cow::Borrowed(text)))
    }

    fn cosine(a: &Vector, b: &Vector) -> f32 {
        a.components().zip(b.components()).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn a_mock_is_deterministic_and_of_unit_length() {
        let one = mock("a cat sat on a mat");
        assert_eq!(one, mock("a cat sat on a mat"));
        assert!((cosine(&one, &one) - 1.0).abs() < 1e-5);
        assert_eq!(one.dimension(), 256);
    }

    #[test]
    fn a_mock_depends_on_model_dimension_and_kind_of_input() {
        let text = Input::Text(Cow::Borrowed("1"));
        assert_ne!(vector("a", 8, &text), vector("b", 8, &text));
        assert_ne!(vector("a", 8, &text), vector("a", 8, &Input::Tokens(vec![1])));
        assert_eq!(vector("a", 1, &text).dimension(), 1);
    }

    #[test]
    fn mocks_of_texts_with_common_words_are_similar() {
        let (cat, also_cat, other) =
            (mock("The cat sat on the mat."), mock("the CAT lay on the mat"), mock("quarterly revenue by region"));
        assert!(cosine(&cat, &also_cat) > 0.5, "{}", cosine(&cat, &also_cat));
        assert!(cosine(&cat, &other) < 0.3, "{}", cosine(&cat, &other));
        assert_ne!(mock("a b"), mock("b a"));
    }
}
