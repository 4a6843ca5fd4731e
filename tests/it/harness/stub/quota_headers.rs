//! Headers and refusals by which services report their rate limits.

use std::time::Duration;

use super::quota::{Meter, Reported, Resource, Verdict};
use super::reply::Reply;

/// Adds the headers that report the limits.
pub(super) fn report(verdict: &Verdict, reply: &mut Reply) {
    for (name, meter) in ["requests", "tokens"].into_iter().zip(verdict.meters) {
        if matches!(verdict.reported, Reported::OpenAi | Reported::Azure) {
            reply.set(&format!("x-ratelimit-remaining-{name}"), &meter.remaining().to_string());
        }
        if verdict.reported == Reported::OpenAi {
            reply.set(&format!("x-ratelimit-limit-{name}"), &meter.per_minute.to_string());
            reply.set(&format!("x-ratelimit-reset-{name}"), &written(meter.reset()));
        }
    }
}

/// Adds the headers of a service with limits that no test reaches.
pub(super) fn report_plenty(reply: &mut Reply) {
    for (name, value) in [
        ("x-ratelimit-limit-requests", "3000"),
        ("x-ratelimit-limit-tokens", "1000000"),
        ("x-ratelimit-remaining-requests", "2999"),
        ("x-ratelimit-remaining-tokens", "999000"),
        ("x-ratelimit-reset-requests", "20ms"),
        ("x-ratelimit-reset-tokens", "60ms"),
    ] {
        reply.set_default(name, value);
    }
}

/// Builds the refusal of a call, if it exceeds a limit.
pub(super) fn refusal(verdict: &Verdict) -> Option<Reply> {
    let (resource, amount) = verdict.refused_by?;
    let meter = &verdict.meters[resource as usize];
    let wait = meter.wait_for(amount);
    let mut reply = match verdict.reported {
        Reported::Azure => {
            let message = format!(
                "Requests to the Embeddings_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded \
                 call rate limit of your current OpenAI S0 pricing tier. Please retry after {} seconds.",
                whole_seconds(wait)
            );
            let body = serde_json::json!({"error": {"code": "429", "message": message}});
            Reply::new(429, "application/json", body.to_string())
        }
        _ => openai_refusal(verdict, meter, (resource, amount)),
    };
    // A call that is larger than all of the limit is never accepted, so no time helps.
    if amount <= meter.capacity && verdict.reported != Reported::Nothing {
        reply.set("retry-after", &whole_seconds(wait).to_string());
        if verdict.reported != Reported::RetryAfter {
            reply.set("retry-after-ms", &whole_millis(wait).to_string());
        }
    }
    report(verdict, &mut reply);
    Some(reply)
}

fn openai_refusal(verdict: &Verdict, meter: &Meter, (resource, amount): (Resource, f64)) -> Reply {
    let (kind, unit) = match resource {
        Resource::Requests => ("requests", "requests per min (RPM)"),
        Resource::Tokens => ("tokens", "tokens per min (TPM)"),
    };
    let (model, limit) = (&verdict.model, meter.per_minute);
    let message = if amount > meter.capacity {
        format!(
            "Request too large for {model} in organization org-stub on {unit}: Limit {limit}, Requested {amount}. The \
             input or output tokens must be reduced in order to run successfully."
        )
    } else {
        let (used, wait) = (limit - meter.remaining(), written(meter.wait_for(amount)));
        format!(
            "Rate limit reached for {model} in organization org-stub on {unit}: Limit {limit}, Used {used}, Requested \
             {amount}. Please try again in {wait}."
        )
    };
    Reply::error(429, kind, Some("rate_limit_exceeded"), &message)
}

/// Writes a duration as the service does: `6m0s`, `1.5s`, `20ms`.
fn written(time: Duration) -> String {
    let millis = whole_millis(time);
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    match (minutes, rest) {
        (0, 1..1_000) => format!("{rest}ms"),
        (0, _) => format!("{}s", seconds(rest)),
        _ => format!("{minutes}m{}s", seconds(rest)),
    }
}

/// Writes milliseconds as seconds without needless zeros.
fn seconds(millis: u128) -> String {
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn whole_millis(time: Duration) -> u128 {
    time.as_nanos().div_ceil(1_000_000)
}

fn whole_seconds(time: Duration) -> u128 {
    time.as_nanos().div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_the_service_writes_them() {
        for (millis, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (83_050, "1m23.05s"),
            (360_000, "6m0s"),
        ] {
            assert_eq!(written(Duration::from_millis(millis)), text);
        }
    }
}
