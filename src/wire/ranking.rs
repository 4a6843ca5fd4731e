//! Orders the candidates of a similarity request by their scores, and writes the answer.

use bytes::Bytes;
use serde::Serialize;

/// One candidate in a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RankedCandidate {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Cosine of the angle between the candidate and the query, from -1 to 1.
    pub score: f32,
}

/// Returns the best `top_k` candidates with a score of at least `threshold`, best first. Of equal scores, the first
/// in the request comes first.
pub fn rank(scores: &[f32], top_k: usize, threshold: f32) -> Vec<RankedCandidate> {
    let candidates = scores.iter().enumerate().map(|(index, score)| RankedCandidate { index, score: *score });
    let mut ranked: Vec<_> = candidates.filter(|candidate| candidate.score >= threshold).collect();
    ranked.sort_unstable_by(|one, other| other.score.total_cmp(&one.score).then(one.index.cmp(&other.index)));
    ranked.truncate(top_k);
    ranked
}

/// Writes a ranking in vecho's own form.
pub fn write_ranking(ranked: &[RankedCandidate], model: &str, prompt_tokens: u64) -> Bytes {
    let usage = RankingUsage { prompt_tokens, total_tokens: prompt_tokens };
    write(&Ranking { object: "list", data: ranked, model, usage })
}

/// Writes the scores of all candidates in the order of the request, as TEI does.
pub fn write_scores(scores: &[f32]) -> Bytes {
    write(scores)
}

fn write(answer: &(impl Serialize + ?Sized)) -> Bytes {
    Bytes::from(serde_json::to_vec(answer).expect("names and finite numbers must serialize into memory"))
}

#[derive(Serialize)]
struct Ranking<'a> {
    object: &'static str,
    data: &'a [RankedCandidate],
    model: &'a str,
    usage: RankingUsage,
}

#[derive(Serialize)]
struct RankingUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(scores: &[f32], top_k: usize, threshold: f32) -> Vec<usize> {
        rank(scores, top_k, threshold).iter().map(|candidate| candidate.index).collect()
    }

    #[test]
    fn the_best_come_first_and_equal_scores_keep_their_order() {
        let scores = [0.5, 0.9, -1.0, 0.9, 0.0, -0.0];
        assert_eq!(places(&scores, 6, -1.0), [1, 3, 0, 4, 5, 2]);
        assert_eq!(places(&scores, 2, -1.0), [1, 3]);
        assert_eq!(places(&scores, 100, 0.5), [1, 3, 0], "a threshold includes its own value");
        assert_eq!(places(&scores, 1, 0.95), Vec::<usize>::new());
    }

    #[test]
    fn answers_have_their_documented_members() {
        let body = write_ranking(&rank(&[0.25, 0.5], 1, -1.0), "m\"", 7);
        let expected = r#"{"object":"list","data":[{"index":1,"score":0.5}],"model":"m\"","usage":{"prompt_tokens":7,"total_tokens":7}}"#;
        assert_eq!(body, expected);
        assert_eq!(write_scores(&[0.25, -1.0]), "[0.25,-1.0]");
    }
}
