//! The behaviour of the upstream in one step: the models that answer, and the rates of faults.

use std::collections::HashMap;
use std::time::Duration;

use super::dice::Dice;
use crate::harness::Behaviour;
use crate::harness::stub::Call;

/// Returns the name of the model that replaces another one.
pub(super) fn successor(model: &str) -> String {
    format!("{model}-b")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weather {
    /// Percentage of calls that fail or get a wrong answer.
    pub(super) faults: usize,
    /// Percentage of calls that the model's successor answers.
    pub(super) drift: usize,
    /// Percentage of calls that are late.
    late: usize,
    seed: u64,
}

impl Weather {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        Self {
            faults: dice.pick(&[0, 0, 20, 60, 100]),
            drift: dice.pick(&[0, 0, 0, 100, 50]),
            late: dice.pick(&[0, 30, 100]),
            seed: dice.number(),
        }
    }

    pub(super) fn calm(dice: &mut Dice) -> Self {
        Self { faults: 0, ..Self::draw(dice) }
    }

    /// Returns a decision that depends on the content of a call and its repetitions, but not on the order of calls.
    pub(super) fn decision(self) -> impl FnMut(&Call) -> Behaviour + Send + 'static {
        let mut times: HashMap<[u8; 32], u8> = HashMap::new();
        move |call| {
            let name = *blake3::hash(&call.body).as_bytes();
            let time = times.entry(name).or_default();
            *time = time.wrapping_add(1);
            self.treat(call, &mut Dice::new(self.seed).aside(&[&name[..], &[*time]].concat()))
        }
    }

    fn treat(self, call: &Call, dice: &mut Dice) -> Behaviour {
        let mut all = Vec::new();
        if dice.percent(self.late) {
            all.push(Behaviour::Delay(Duration::from_millis(dice.number() % 8)));
        }
        if dice.percent(self.drift)
            && let Some(model) = call.json()["model"].as_str()
        {
            all.push(Behaviour::OtherModel(successor(model)));
        }
        // These behaviours change nothing that a caller can see.
        let harmless = dice.pick(&[Behaviour::Normal, Behaviour::Reorder, Behaviour::NoUsage]);
        let fault = dice.percent(self.faults).then(|| fault(call, dice));
        // Without `index`, every client relies on the order of the items.
        if !(matches!(harmless, Behaviour::Reorder) && matches!(fault, Some(Behaviour::NoIndex))) {
            all.push(harmless);
        }
        all.extend(fault);
        Behaviour::All(all)
    }
}

fn fault(call: &Call, dice: &mut Dice) -> Behaviour {
    let status = |code: u16, kind: &str| Behaviour::Status {
        code,
        headers: Vec::new(),
        body: format!(r#"{{"error":{{"message":"stub says {code}","type":"{kind}","param":null,"code":null}}}}"#),
    };
    // A vector that is one component short can be detected only if the request states the dimension.
    let says_dimensions = call.json()["dimensions"].is_number();
    match dice.below(16) {
        0 => Behaviour::HangUp,
        1 => Behaviour::CutBody,
        2 => Behaviour::DuplicateIndex,
        3 => Behaviour::MissingItem,
        4 => Behaviour::ExtraItem,
        5 if says_dimensions => Behaviour::WrongDimension,
        5 => status(502, "server_error"),
        6 => Behaviour::Nan,
        7 => Behaviour::AllZero,
        8 => Behaviour::Float64Base64,
        9 => Behaviour::FloatsForBase64,
        10 => Behaviour::NoIndex,
        11 => Behaviour::Garbage,
        12 => Behaviour::RateLimit { retry_after_ms: dice.number() % 5 },
        13 => status(400, "invalid_request_error"),
        14 => Behaviour::SlowBody { chunk_bytes: 40, pause: Duration::from_micros(200) },
        _ => status(500, "server_error"),
    }
}
