//! Tracks the model that answered last in each space. Vectors of an earlier model must not be served any more.

use std::collections::HashMap;

use serde_json::Value;

use super::wish::Wish;
use crate::harness::client::Answer;

/// Credential (unless the cache is shared), namespace, model and dimensions.
type Space = (&'static str, Option<&'static str>, &'static str, Option<usize>);

#[derive(Debug, Default)]
pub(super) struct Newest {
    shared: bool,
    models: HashMap<Space, String>,
}

impl Newest {
    pub(super) fn new(shared: bool) -> Self {
        Self { shared, ..Self::default() }
    }

    fn space(&self, wish: &Wish) -> Space {
        (if self.shared { "" } else { wish.credential }, wish.namespace, wish.model, wish.dimensions)
    }

    pub(super) fn forget(&mut self, wish: &Wish) {
        self.models.remove(&self.space(wish));
    }

    /// Checks the answers of a step that came from memory alone, and records the models that answered in it.
    pub(super) fn judge_and_learn(&mut self, wishes: &[Wish], answers: &[(&Wish, Answer)]) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut spaces: HashMap<Space, (usize, Vec<&Answer>)> = HashMap::new();
        for wish in wishes {
            spaces.entry(self.space(wish)).or_default().0 += 1;
        }
        for (wish, answer) in answers {
            spaces.entry(self.space(wish)).or_default().1.push(answer);
        }
        for (space, (asked, answers)) in spaces {
            let quiet = asked == answers.len() && answers.iter().all(|answer| made_no_call(answer));
            let models: Vec<String> = answers.iter().filter(|answer| answer.status == 200).map(|a| model(a)).collect();
            if quiet {
                let known = self.models.get(&space);
                let old = known.and_then(|known| models.iter().find(|model| *model != known));
                complaints.extend(old.map(|old| format!("{old} was served although {known:?} is newer, {space:?}")));
            } else if asked == 1 && models.len() == 1 && answers[0].header("x-vecho-cache") == Some("miss") {
                self.models.insert(space, models[0].clone());
            } else {
                self.models.remove(&space);
            }
        }
        complaints
    }
}

/// Returns true if the answer came from memory alone, or is the error of a miss with `only-if-cached`.
fn made_no_call(answer: &Answer) -> bool {
    answer.header("x-vecho-cache") == Some("hit")
        || (answer.status == 504 && answer.json()["error"]["code"] == "not_cached")
}

fn model(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["model"].as_str().unwrap_or_default().to_owned()
}
