//! The space of a vector, and the input that it represents.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::key::{Key, KeyBuilder, Tag};
use crate::wire::tokens;

/// All fields of a request that shape its vectors, except the inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Requested model; absent if the path names it.
    pub model: Option<String>,
    /// Requested dimension.
    pub dimensions: Option<u32>,
    /// Further members by name.
    pub extras: BTreeMap<String, Extra>,
}

/// Members that mean `dimensions` at Mistral, Voyage, and servers of sentence transformers.
const OTHER_DIMENSIONS: [&str; 3] = ["output_dimension", "truncate_dim", "dimension"];

/// Value of a further member. Values are equal if their canonical texts are.
#[derive(Clone, Debug)]
pub struct Extra {
    canonical: String,
    /// The caller's own text, if it differs.
    written: Option<Box<str>>,
}

impl Extra {
    /// Creates a value from its canonical JSON and the JSON that its caller wrote.
    pub fn new(canonical: String, written: &str) -> Self {
        let written = (canonical != written).then(|| written.into());
        Self { canonical, written }
    }

    /// Returns the text that joins the key.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Returns the text that is sent to the upstream.
    pub fn written(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.canonical)
    }
}

impl PartialEq for Extra {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Extra {}

impl From<String> for Extra {
    fn from(canonical: String) -> Self {
        Self { canonical, written: None }
    }
}

impl Space {
    /// Adds this space to a key.
    pub fn join_key(&self, key: &mut KeyBuilder) {
        if let Some(model) = &self.model {
            // Each part enters with its own tag and length, so an absent part equals no other key.
            key.part(Tag::Model, model.as_bytes());
        }
        if let Some(dimensions) = self.dimensions {
            key.part(Tag::Dimensions, &dimensions.to_le_bytes());
        }
        // `extras` is a sorted map, so the order of members in a request does not change the key.
        for (name, value) in &self.extras {
            key.part(Tag::ExtraName, name.as_bytes()).part(Tag::ExtraValue, value.canonical().as_bytes());
        }
    }

    /// Returns the requested dimension, including the names that other services use for `dimensions`.
    pub fn asked_dimension(&self) -> Option<usize> {
        let said = |name: &&str| self.extras.get(*name)?.canonical().parse().ok();
        let dimensions = self.dimensions.map(|dimensions| dimensions as usize);
        dimensions.or_else(|| OTHER_DIMENSIONS.iter().find_map(said))
    }

    /// Returns the requested model, or an empty text.
    pub fn model_name(&self) -> &str {
        self.model.as_deref().unwrap_or_default()
    }
}

/// Maximum number of tokens of an input at OpenAI's embedding models. Source: OpenAI's reference of the embeddings API.
pub const MAX_INPUT_TOKENS: usize = 8192;

/// Encoding of vectors in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Decimal numbers.
    Float,
    /// Little-endian f32 in base64.
    Base64,
}

impl Encoding {
    /// Returns the value of `encoding_format`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Base64 => "base64",
        }
    }
}

/// Kind of inputs: texts or tokens. One call carries one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// Text.
    Text,
    /// Token ids.
    Tokens,
}

impl InputKind {
    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Tokens => "tokens",
        }
    }
}

/// One input to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A text, unescaped but not normalised.
    Text(Cow<'a, str>),
    /// Token ids.
    Tokens(Vec<u32>),
}

impl Input<'_> {
    /// Returns the key of this input's vector in the space with the key `space`.
    pub fn key(&self, space: &Key) -> Key {
        match self {
            Self::Text(text) => space.extend(Tag::Text, text.as_bytes()),
            Self::Tokens(ids) => {
                // A fixed byte order keeps keys equal across machines that share a tier.
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                space.extend(Tag::Tokens, &bytes)
            }
        }
    }

    /// Returns its kind.
    pub const fn kind(&self) -> InputKind {
        match self {
            Self::Text(_) => InputKind::Text,
            Self::Tokens(_) => InputKind::Tokens,
        }
    }

    /// Returns true if the input is empty, which the service would refuse.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tokens(ids) => ids.is_empty(),
        }
    }

    /// Returns a quick estimate of its tokens.
    pub fn estimated_tokens(&self) -> usize {
        match self {
            Self::Text(text) => tokens::estimate(text),
            Self::Tokens(ids) => ids.len(),
        }
    }

    /// Returns its tokens as OpenAI's embedding models count them. See [`tokens::count`] for the memory that this takes.
    pub fn counted_tokens(&self) -> u32 {
        match self {
            Self::Text(text) => tokens::count(text),
            Self::Tokens(ids) => u32::try_from(ids.len()).unwrap_or(u32::MAX),
        }
    }

    /// Returns the length of its longest beginning with at most [`MAX_INPUT_TOKENS`] tokens, in bytes or in tokens, or
    /// `u32::MAX` if it has no more.
    pub fn allowed_len(&self) -> u32 {
        let len = match self {
            Self::Text(text) => tokens::beginning(text, MAX_INPUT_TOKENS),
            Self::Tokens(ids) => (ids.len() > MAX_INPUT_TOKENS).then_some(MAX_INPUT_TOKENS),
        };
        len.and_then(|len| u32::try_from(len).ok()).unwrap_or(u32::MAX)
    }

    /// Returns true if it may have more than [`MAX_INPUT_TOKENS`] tokens. A token has at least one byte.
    pub fn may_be_too_long(&self) -> bool {
        match self {
            Self::Text(text) => text.len() > MAX_INPUT_TOKENS,
            Self::Tokens(ids) => ids.len() > MAX_INPUT_TOKENS,
        }
    }

    /// Cuts it to `len` bytes or tokens.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Self::Text(text) => text.to_mut().truncate(len),
            Self::Tokens(ids) => ids.truncate(len),
        }
    }

    /// Returns a copy that outlives the request body.
    pub fn to_owned_input(&self) -> Input<'static> {
        match self {
            Self::Text(text) => Input::Text(Cow::Owned(text.clone().into_owned())),
            Self::Tokens(ids) => Input::Tokens(ids.clone()),
        }
    }
}
