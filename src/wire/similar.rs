//! Reads a similarity request: vecho's own form, or that of Hugging Face's Text Embeddings Inference (TEI).
//!
//! The inputs stay as the caller wrote them. They become embeddings requests with the caller's other members, which are
//! then read like any other.

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::MAX_DIMENSIONS;
use super::candidates::{has_lone_surrogate, is_empty, is_tokens, kind_of, read_candidates};
use super::inputs::Name;
use super::members::read_object;
use super::similar_fault::SimilarFault;
use super::{Bypass, BypassCause, InputKind, PathModel};
use crate::vector::{NotAVector, Vector};

/// Model of a request in TEI's form that names none. TEI serves one model and ignores the name; this one is in its
/// documentation.
const TEI_MODEL: &str = "\"text-embeddings-inference\"";

/// Upper bound of the text of a component of a query vector.
const COMPONENT_TEXT_BYTES: usize = 32;

/// A similarity request that is fully understood, apart from the members that are passed on.
#[derive(Debug)]
pub struct SimilarRequest<'a> {
    /// The text, the tokens or the vector that everything is compared with.
    pub query: SimilarQuery<'a>,
    /// The candidates in order, all of one kind, none empty.
    pub candidates: Vec<&'a RawValue>,
    /// Kind of the candidates.
    pub kind: InputKind,
    /// Number of candidates to return at most.
    pub top_k: usize,
    /// Least score of a candidate that is returned.
    pub threshold: f32,
    /// Form of the request and of its answer.
    pub form: SimilarForm,
    /// True if the request or its path names the model.
    pub names_model: bool,
    /// Members that embeddings requests need as well, such as the model.
    members: Vec<(String, &'a str)>,
}

/// The query of a similarity request.
#[derive(Debug)]
pub enum SimilarQuery<'a> {
    /// An input to embed.
    Input(&'a RawValue, InputKind),
    /// A vector.
    Vector(Vector),
}

/// Form of a similarity request and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimilarForm {
    /// vecho's own: the answer is a ranking with usage.
    Ranking,
    /// TEI's: the answer is a list of scores, in the order of the request.
    Scores,
}

impl<'a> SimilarRequest<'a> {
    /// Reads the body of a request. `path_model` tells whether the path names the model.
    pub fn read(body: &'a [u8], path_model: PathModel) -> Result<Self, SimilarFault> {
        let text = str::from_utf8(body).ok().map(str::trim_ascii).filter(|text| text.starts_with('{'));
        let text = text.ok_or(BypassCause::from(Bypass::NotJson))?;
        let mut fields = WrittenMembers::default();
        for (name, value) in read_object(text).map_err(BypassCause::from)? {
            fields.take(&name.0, value.get());
        }
        fields.check(path_model)
    }

    /// Returns the body of an embeddings request for some inputs, with the other members as the caller wrote them.
    pub fn embeddings_body<'i>(&self, inputs: impl Iterator<Item = &'i RawValue>) -> Bytes {
        let mut body = String::from("{\"input\":[");
        for (place, input) in inputs.enumerate() {
            body.push_str(if place > 0 { "," } else { "" });
            body.push_str(input.get());
        }
        body.push(']');
        for (name, value) in &self.members {
            body.push(',');
            body.push_str(&Value::from(name.as_str()).to_string());
            body.push(':');
            body.push_str(value);
        }
        body.push('}');
        Bytes::from(body)
    }
}

/// Members as they are written.
#[derive(Default)]
struct WrittenMembers<'a> {
    query: Option<&'a str>,
    candidates: Option<&'a str>,
    top_k: Option<&'a str>,
    threshold: Option<&'a str>,
    tei_inputs: Option<&'a str>,
    tei_parameters: Option<&'a str>,
    members: Vec<(String, &'a str)>,
}

impl<'a> WrittenMembers<'a> {
    fn take(&mut self, name: &str, value: &'a str) {
        let field = match name {
            "query" => &mut self.query,
            "candidates" => &mut self.candidates,
            "top_k" => &mut self.top_k,
            "threshold" => &mut self.threshold,
            "inputs" => &mut self.tei_inputs,
            "parameters" => &mut self.tei_parameters,
            other => return self.members.push((other.to_owned(), value)),
        };
        // Null means that the caller does not use the member.
        *field = (value != "null").then_some(value);
    }

    fn check(mut self, path_model: PathModel) -> Result<SimilarRequest<'a>, SimilarFault> {
        if self.members.iter().any(|(name, _)| name == "input") {
            return Err(SimilarFault::of("input", "is not a member of this request. Write query and candidates."));
        }
        let names_model = path_model == PathModel::Yes || self.members.iter().any(|(name, _)| name == "model");
        let form = if self.tei_inputs.is_some() { SimilarForm::Scores } else { SimilarForm::Ranking };
        let (query, candidates) = if let Some(inputs) = self.tei_inputs.take() {
            self.tei_inputs(inputs)?
        } else {
            // Outside of TEI's form, it is a member of the embeddings requests.
            self.members.extend(self.tei_parameters.map(|value| ("parameters".to_owned(), value)));
            (self.query, self.candidates)
        };
        let query = query.ok_or_else(|| SimilarFault::of("query", "is missing: a text, a token array or a vector."))?;
        let candidates = candidates.ok_or_else(|| SimilarFault::of("candidates", "is missing: a list of texts."))?;
        match (names_model, form) {
            (true, _) => {}
            (false, SimilarForm::Scores) => self.members.push(("model".to_owned(), TEI_MODEL)),
            (false, SimilarForm::Ranking) => {
                return Err(SimilarFault::of("model", "is missing: the model that embeds query and candidates."));
            }
        }
        let (candidates, kind) = read_candidates(candidates)?;
        Ok(SimilarRequest {
            query: read_query(query)?,
            kind,
            top_k: self.top_k.map_or(Ok(candidates.len()), read_top_k)?,
            threshold: self.threshold.map_or(Ok(-1.0), read_threshold)?,
            candidates,
            form,
            names_model,
            members: self.members,
        })
    }

    /// Reads TEI's `inputs`. Its parameters change the vectors, so they must have their defaults.
    fn tei_inputs(&self, inputs: &'a str) -> Result<(Option<&'a str>, Option<&'a str>), SimilarFault> {
        if [self.query, self.candidates, self.top_k, self.threshold].iter().any(Option::is_some) {
            return Err(SimilarFault::of("inputs", "cannot be combined with query, candidates, top_k or threshold."));
        }
        let is_default = |(name, value): &(Name<'_>, &RawValue)| match value.get() {
            "null" | "false" => true,
            "\"right\"" | "\"Right\"" => name.0 == "truncation_direction",
            _ => false,
        };
        let parameters = self.tei_parameters.map_or(Ok(Vec::new()), read_object).map_err(BypassCause::from)?;
        if let Some((name, _)) = parameters.iter().find(|parameter| !is_default(parameter)) {
            let message = format!("parameters.{} changes the vectors, and is not supported here.", name.0);
            return Err(SimilarFault::new(Some("parameters"), message));
        }
        let (mut source, mut sentences) = (None, None);
        for (name, value) in read_object(inputs).map_err(BypassCause::from)? {
            match &*name.0 {
                "source_sentence" => source = Some(value.get()),
                "sentences" => sentences = Some(value.get()),
                _ => return Err(SimilarFault::of("inputs", "has a member besides source_sentence and sentences.")),
            }
        }
        Ok((source, sentences))
    }
}

/// Reads a query. Whole numbers are tokens. A list with a fraction, an exponent or a minus sign is a vector.
fn read_query(text: &str) -> Result<SimilarQuery<'_>, SimilarFault> {
    let fault = |message: &str| SimilarFault::of("query", message);
    let wrong = || fault("must be a text, a token array or a vector.");
    let kind = kind_of(text).ok_or_else(wrong)?;
    if is_empty(text) {
        return Err(fault("is empty."));
    }
    if kind == InputKind::Tokens && text.contains(['.', 'e', 'E', '-']) {
        if text.len() > MAX_DIMENSIONS as usize * COMPONENT_TEXT_BYTES {
            return Err(fault("has too many components."));
        }
        let components: Vec<f32> = serde_json::from_str(text).map_err(|_| wrong())?;
        let explained = |error: NotAVector| fault(&format!("is not a valid vector: {error}."));
        return Vector::from_components(&components).map(SimilarQuery::Vector).map_err(explained);
    }
    if kind == InputKind::Tokens && !is_tokens(text) {
        return Err(wrong());
    }
    if kind == InputKind::Text && has_lone_surrogate(text) {
        return Err(fault("must not hold half of a surrogate pair."));
    }
    let input: &RawValue = serde_json::from_str(text).map_err(|_| wrong())?;
    Ok(SimilarQuery::Input(input, kind))
}

fn read_top_k(text: &str) -> Result<usize, SimilarFault> {
    let fault = || SimilarFault::of("top_k", "must be a whole number from 1.");
    text.parse().ok().filter(|top_k| *top_k > 0).ok_or_else(fault)
}

fn read_threshold(text: &str) -> Result<f32, SimilarFault> {
    let fault = || SimilarFault::of("threshold", "must be a number from -1 to 1.");
    serde_json::from_str(text).ok().filter(|threshold| (-1.0..=1.0).contains(threshold)).ok_or_else(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<SimilarRequest<'_>, SimilarFault> {
        SimilarRequest::read(body.as_bytes(), PathModel::No)
    }

    fn fault(body: &str) -> String {
        read(body).expect_err(body).to_string()
    }

    #[test]
    fn members_of_embeddings_requests_are_passed_on_as_written() {
        let body = r#"{"model":"m","query":"q","candidates":["a","b\u0062"],"top_k":1,"dimensions":8.0,"user":"u"}"#;
        let request = read(body).expect("it is understood");
        assert_eq!((request.top_k, request.form, request.kind), (1, SimilarForm::Ranking, InputKind::Text));
        let embeddings = request.embeddings_body(request.candidates.iter().copied());
        assert_eq!(embeddings, r#"{"input":["a","b\u0062"],"dimensions":8.0,"model":"m","user":"u"}"#);
    }

    #[test]
    fn whole_numbers_are_tokens_and_others_a_vector() {
        let query = |query: &str| {
            let body = format!(r#"{{"model":"m","query":{query},"candidates":["a"]}}"#);
            match read(&body).expect("it is understood").query {
                SimilarQuery::Input(_, kind) => kind.name().to_owned(),
                SimilarQuery::Vector(vector) => format!("{:?}", vector.components().collect::<Vec<_>>()),
            }
        };
        assert_eq!(query("[1, 2]"), "tokens");
        assert_eq!(query("[1.0, 2]"), "[1.0, 2.0]");
        assert_eq!(query("[1, -2]"), "[1.0, -2.0]");
        assert_eq!(query("[1e0]"), "[1.0]");
        assert_eq!(query("\"1.5\""), "text");
    }

    #[test]
    fn the_form_of_tei_gives_scores_and_needs_no_model() {
        let request = read(r#"{"inputs":{"source_sentence":"q","sentences":["a"]},"parameters":{"truncate":false,"truncation_direction":"Right"}}"#)
            .expect("it is understood");
        assert_eq!(request.form, SimilarForm::Scores);
        let body = request.embeddings_body(request.candidates.iter().copied());
        assert_eq!(body, r#"{"input":["a"],"model":"text-embeddings-inference"}"#);
        let named = read(r#"{"model":"m","inputs":{"source_sentence":"q","sentences":["a"]}}"#).expect("understood");
        assert_eq!(named.embeddings_body(named.candidates.iter().copied()), r#"{"input":["a"],"model":"m"}"#);
        let prompted = r#"{"inputs":{"source_sentence":"q","sentences":["a"]},"parameters":{"prompt_name":"query"}}"#;
        assert!(fault(prompted).starts_with("parameters.prompt_name changes the vectors"));
    }

    #[test]
    fn each_fault_names_its_member_and_its_cause() {
        for (body, start) in [
            ("", "The body is not a JSON object."),
            ("[]", "The body is not a JSON object."),
            ("{\"model\":\"m\"", "The body is not a JSON object."),
            (r#"{"model":"m","candidates":["a"]}"#, "query is missing"),
            (r#"{"model":"m","query":"q"}"#, "candidates is missing"),
            (r#"{"model":"m","query":"q","candidates":null}"#, "candidates is missing"),
            (r#"{"query":"q","candidates":["a"]}"#, "model is missing"),
            (r#"{"model":"m","query":"q","candidates":[]}"#, "candidates is empty"),
            (r#"{"model":"m","query":"q","candidates":"a"}"#, "candidates must be a list"),
            (r#"{"model":"m","query":"q","candidates":["a",[1]]}"#, "candidates must hold entries of one kind"),
            (r#"{"model":"m","query":"q","candidates":["a",""]}"#, "candidates must not hold empty entries"),
            (r#"{"model":"m","query":"q","candidates":[[1],[ ]]}"#, "candidates must not hold empty entries"),
            (r#"{"model":"m","query":"q","candidates":[7]}"#, "candidates must hold texts"),
            (r#"{"model":"m","query":"q","candidates":[["a"]]}"#, "candidates must hold whole numbers"),
            (r#"{"model":"m","query":[[1]],"candidates":["a"]}"#, "query must be a text"),
            (r#"{"model":"m","query":"","candidates":["a"]}"#, "query is empty"),
            (r#"{"model":"m","query":7,"candidates":["a"]}"#, "query must be a text"),
            (r#"{"model":"m","query":[0.0,0.0],"candidates":["a"]}"#, "query is not a valid vector"),
            (r#"{"model":"m","query":[1e99],"candidates":["a"]}"#, "query"),
            (r#"{"model":"m","query":["x-1"],"candidates":["a"]}"#, "query must be a text"),
            (r#"{"model":"m","query":"\ud800","candidates":["a"]}"#, "query must not hold half of a surrogate pair."),
            (
                r#"{"model":"m","query":"q","candidates":["\ud83e\udd80","\udc00"]}"#,
                "candidates must not hold half of a surrogate pair, and entry 1 does.",
            ),
            (r#"{"model":"m","query":"q","candidates":["a"],"top_k":0}"#, "top_k must be a whole number"),
            (r#"{"model":"m","query":"q","candidates":["a"],"top_k":1.5}"#, "top_k must be a whole number"),
            (r#"{"model":"m","query":"q","candidates":["a"],"threshold":2}"#, "threshold must be a number"),
            (r#"{"model":"m","query":"q","candidates":["a"],"threshold":"x"}"#, "threshold must be a number"),
            (r#"{"model":"m","query":"q","candidates":["a"],"input":"x"}"#, "input is not a member"),
            (r#"{"model":"m","query":"q","query":"q","candidates":["a"]}"#, "a member occurs twice"),
            (r#"{"inputs":{"source_sentence":"q","sentences":["a"]},"top_k":1}"#, "inputs cannot be combined"),
            (r#"{"inputs":{"source_sentence":"q","sentences":["a"],"x":1}}"#, "inputs has a member"),
        ] {
            assert!(fault(body).starts_with(start), "{body}: {}", fault(body));
        }
    }
}
