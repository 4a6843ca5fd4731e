//! The `Accept-Encoding` header (RFC 9110, section 12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use super::Coding;
use crate::observe::metrics::AnswerCoding;

/// Weights that a client gives to codings, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptedCodings {
    gzip: Option<u16>,
    brotli: Option<u16>,
    zstd: Option<u16>,
    plain: Option<u16>,
    others: Option<u16>,
}

/// Coding for one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChosenCoding {
    /// The coding.
    pub coding: AnswerCoding,
    /// True if the client refuses a plain answer.
    pub refuses_plain: bool,
}

impl AcceptedCodings {
    /// Reads these headers. Unknown codings and invalid weights are ignored.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        for value in headers.get_all(ACCEPT_ENCODING) {
            for item in value.as_bytes().split(|byte| *byte == b',') {
                accepted.read(item);
            }
        }
        accepted
    }

    /// Returns the offered coding with the highest weight, or the first of several. Returns `None` for a plain answer:
    /// the client accepts no offered coding, or gives a plain answer a higher weight.
    pub fn choose(&self, offered: &[AnswerCoding]) -> Option<ChosenCoding> {
        let weight = |coding: &AnswerCoding| self.named((*coding).into()).or(self.others).unwrap_or(0);
        // `max_by_key` returns the last of equal elements.
        let coding = *offered.iter().rev().max_by_key(|coding| weight(coding)).filter(|coding| weight(coding) > 0)?;
        // A plain answer is acceptable unless it is refused. A coding comes before it unless the client says otherwise.
        match self.plain.or(self.others.filter(|others| *others == 0)) {
            Some(plain) if plain > weight(&coding) => None,
            plain => Some(ChosenCoding { coding, refuses_plain: plain == Some(0) }),
        }
    }

    /// Returns true if the client names this coding and does not refuse it.
    pub fn names(&self, coding: Coding) -> bool {
        self.named(coding).is_some_and(|weight| weight > 0)
    }

    const fn named(&self, coding: Coding) -> Option<u16> {
        match coding {
            Coding::Gzip => self.gzip,
            Coding::Brotli => self.brotli,
            Coding::Zstd => self.zstd,
            // Servers do not agree about its format, so vecho never chooses it.
            Coding::Deflate => None,
        }
    }

    fn read(&mut self, item: &[u8]) {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let place = match Coding::named(name) {
            Some(Coding::Gzip) => &mut self.gzip,
            Some(Coding::Brotli) => &mut self.brotli,
            Some(Coding::Zstd) => &mut self.zstd,
            None if name.eq_ignore_ascii_case(b"identity") => &mut self.plain,
            None if name == b"*" => &mut self.others,
            Some(Coding::Deflate) | None => return,
        };
        let weight = match parts.next() {
            None => Some(1000),
            Some([b'q' | b'Q', b'=', weight @ ..]) => thousandths(weight),
            Some(_) => None,
        };
        // Of two weights the lower one counts, because a refusal must hold.
        *place = match (*place, weight) {
            (Some(known), Some(weight)) => Some(known.min(weight)),
            (known, weight) => weight.or(known),
        };
    }
}

impl From<AnswerCoding> for Coding {
    fn from(coding: AnswerCoding) -> Self {
        match coding {
            AnswerCoding::Gzip => Self::Gzip,
            AnswerCoding::Brotli => Self::Brotli,
            AnswerCoding::Zstd => Self::Zstd,
        }
    }
}

/// Parses a weight: at most 1, with at most three decimals.
fn thousandths(weight: &[u8]) -> Option<u16> {
    let (whole, decimals) = weight.split_first()?;
    let decimals = match decimals {
        [] => decimals,
        [b'.', decimals @ ..] if decimals.len() <= 3 => decimals,
        _ => return None,
    };
    let fraction = (0..3).try_fold(0, |sum, place| {
        let digit = decimals.get(place).copied().unwrap_or(b'0');
        digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0'))
    })?;
    match whole {
        b'0' => Some(fraction),
        b'1' if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OFFERED: [AnswerCoding; 2] = [AnswerCoding::Zstd, AnswerCoding::Gzip];

    fn accepted(values: &[&'static str]) -> AcceptedCodings {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
        }
        AcceptedCodings::of(&headers)
    }

    fn chosen(values: &[&'static str]) -> Option<AnswerCoding> {
        let chosen = accepted(values).choose(&OFFERED)?;
        assert!(!chosen.refuses_plain, "{values:?}");
        Some(chosen.coding)
    }

    #[test]
    fn the_coding_with_the_highest_weight_is_chosen() {
        for values in [
            &["gzip"][..],
            &["gzip, deflate"],
            &["br, GZip;q=0.001"],
            &["deflate", "x-gzip ; Q=1.000"],
            &["gzip, zstd;q=0.9"],
            &["zstd;q=0, *;q=0.5"],
            &["gzip, identity"],
            &["nothing;q=0, gzip;q=1."],
        ] {
            assert_eq!(chosen(values), Some(AnswerCoding::Gzip), "{values:?}");
        }
    }

    #[test]
    fn the_first_offered_coding_wins_among_equals() {
        for values in [&["gzip, zstd"][..], &["gzip, deflate, br, zstd"], &["*"], &["br;q=1.0, *;q=0.5"]] {
            assert_eq!(chosen(values), Some(AnswerCoding::Zstd), "{values:?}");
        }
    }

    #[test]
    fn clients_that_refuse_the_codings_or_prefer_plain_answers_get_none() {
        for values in [
            &[][..],
            &[""],
            &["identity"],
            &["br, deflate"],
            &["gzip;q=0"],
            &["gzip;q=0."],
            &["gzip;q=0.000, zstd;q=0, *"],
            &["*;q=0"],
            &["gzip;q=0.4, identity;q=0.5"],
            &["gzip", "gzip;q=0"],
            &["gzip;q=2"],
            &["gzip;q=0.1234"],
            &["gzip;q=1.001"],
            &["gzip;q=0,5"],
            &["gzip;q=-1"],
            &["gzip;level=1"],
            &["gzip2"],
            &["identity;q=0, br"],
        ] {
            assert_eq!(accepted(values).choose(&OFFERED), None, "{values:?}");
        }
    }

    #[test]
    fn a_refusal_of_plain_answers_is_known() {
        for values in [&["gzip, identity;q=0"][..], &["gzip;q=0.5, *;q=0"], &["gzip, identity;q=0.0, zstd;q=0"]] {
            let required = ChosenCoding { coding: AnswerCoding::Gzip, refuses_plain: true };
            assert_eq!(accepted(values).choose(&OFFERED), Some(required), "{values:?}");
        }
        assert_eq!(chosen(&["gzip, identity, *;q=0"]), Some(AnswerCoding::Gzip));
    }

    #[test]
    fn only_codings_that_are_named_and_not_refused_count_as_named() {
        let accepted = accepted(&["gzip;q=0.1, br;q=0, *"]);
        let named = [Coding::Gzip, Coding::Brotli, Coding::Zstd, Coding::Deflate].map(|coding| accepted.names(coding));
        assert_eq!(named, [true, false, false, false]);
    }
}
