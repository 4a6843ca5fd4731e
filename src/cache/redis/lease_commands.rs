//! Commands for leases. A decision that depends on a value and its effect are one script.
//!
//! The scripts use only commands that a login needs anyway. A cluster runs a script for keys of one slot only, so each
//! key gets its own script there.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value, cmd};

use super::connect::Connection;
use super::lease_value::FAILED;
use super::link::{Answers, Group, GroupResult, Link, bytes, get};
use crate::key::Key;

/// Takes the lease of each key without a record and without a lease. For each pair of a lease and a record it returns 1
/// if the lease was taken, 0 if there is a record, its value if another fetch holds it, or -1 if Redis refused it. The
/// records themselves are read by plain commands, which cost Redis a fifth.
const TAKE_MISSING: &str = "local out = {} \
    for i = 1, #KEYS, 2 do \
    local held = 0 \
    if redis.pcall('GETRANGE', KEYS[i + 1], 0, 0) == '' then \
    held = redis.pcall('SET', KEYS[i], ARGV[1], 'NX', 'PX', ARGV[2]) \
    if held == false then held = redis.pcall('GET', KEYS[i]) \
    elseif held.ok then held = 1 end \
    if type(held) == 'table' or held == false then held = -1 end end \
    out[#out + 1] = held end \
    return out";

/// Renews each lease whose value begins with the holder's token. Returns 1 for each that was renewed, else 0.
const RENEW: &str = "local out = {} \
    for i = 1, #KEYS do \
    local held = redis.pcall('GET', KEYS[i]) \
    if type(held) == 'string' and string.sub(held, 1, #ARGV[1]) == ARGV[1] \
    then redis.call('SET', KEYS[i], held, 'PX', ARGV[2]); out[i] = 1 else out[i] = 0 end end \
    return out";

/// Ends each lease whose value begins with the holder's token: deletes it, or gives it another value for a time. The
/// lease may have expired and passed to another replica meanwhile.
const END: &str = "for i = 1, #KEYS do \
    local held = redis.pcall('GET', KEYS[i]) \
    if type(held) == 'string' and string.sub(held, 1, #ARGV[1]) == ARGV[1] then \
    local left = {err = ''} \
    if ARGV[2] ~= '' then left = redis.pcall('SET', KEYS[i], ARGV[2], 'PX', ARGV[3]) end \
    if left.err then redis.call('DEL', KEYS[i]) end end end \
    return 0";

/// Maximum number of keys of one script. Redis serves no other client while a script runs: well under a millisecond.
const KEYS_PER_SCRIPT: usize = 64;

/// Time for which a failed lease tells waiting replicas to ask for themselves. They look for it more often than this.
const FAILED_FOR: Duration = Duration::from_secs(2);

/// Result of a request for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeaseText {
    /// The lease was free and is now taken.
    Granted,
    /// Another fetch holds it, with this value.
    Held(Vec<u8>),
    /// There is a record, so no lease was requested.
    Unwanted,
    /// Redis accepts no lease.
    Refused,
}

/// Value and length of the leases of one request.
#[derive(Clone, Debug)]
pub(super) struct LeaseForm {
    pub(super) value: String,
    pub(super) length: Duration,
}

/// Leases that a look-up takes of missing keys.
pub(super) struct LookupForm {
    pub(super) form: LeaseForm,
    /// Number of keys at the beginning whose leases are wanted.
    pub(super) leased: usize,
}

/// Keys of one round trip, with the names of their records. `first` is their place in the look-up.
pub(super) struct LookupPart<'a> {
    pub(super) keys: &'a [Key],
    pub(super) records: &'a [String],
    pub(super) first: usize,
}

impl Link {
    /// Reads records, and requests the lease of each pair `(lease, record)` that has no record, in one round trip.
    pub(super) async fn read_and_lease(
        &self,
        records: &[String],
        (pairs, form): (Vec<(String, String)>, &LeaseForm),
        within: Duration,
    ) -> (Answers<Bytes>, Answers<LeaseText>) {
        let scripts = self.scripts(&pairs, |pairs| {
            let mut take = script(TAKE_MISSING, pairs.iter().flat_map(|(lease, record)| [lease, record]));
            take.arg(&form.value).arg(millis(form.length));
            take
        });
        let reads = records.iter().map(|record| vec![get(record)]);
        let (counts, mut groups): (Vec<usize>, Vec<Group>) =
            scripts.into_iter().map(|(count, script)| (count, vec![script])).unzip();
        groups.extend(reads);
        let mut outcomes = self.queries.all(groups, within).await;
        let reads = outcomes.split_off(counts.len());
        let leases = spread(outcomes, counts, within, |values| values.into_iter().map(lease_text).collect());
        (Answers::of(reads, within, |mut values| bytes(values.pop()?)), leases)
    }

    /// Requests a lease, and then reads the record, for each pair `(lease, record)`.
    pub(super) async fn lease(
        &self,
        pairs: Vec<(String, String)>,
        form: &LeaseForm,
        within: Duration,
    ) -> Answers<(LeaseText, Option<Bytes>)> {
        let length_ms = millis(form.length);
        let query = |(lease, record): (String, String)| {
            // The lease comes first. A holder stores before it releases, so a free lease without a record means no
            // fetch yet.
            let take = cmd("SET").arg(&lease).arg(&form.value).arg("NX").arg("PX").arg(length_ms).to_owned();
            vec![take, cmd("GET").arg(lease).to_owned(), get(&record)]
        };
        let outcomes = self.queries.all(pairs.into_iter().map(query).collect(), within).await;
        Answers::of_writes(outcomes, within, |values| {
            let [taken, held, stored] = <[Value; 3]>::try_from(values).ok()?;
            // SET NX answers nil for a taken lease. A lease may end between the two commands.
            let held = match (taken, held) {
                (Value::Okay, _) => LeaseText::Granted,
                (_, Value::BulkString(value)) => LeaseText::Held(value),
                (_, _) => LeaseText::Held(Vec::new()),
            };
            Some((held, bytes(stored)))
        })
    }

    /// Renews leases that have this token. Returns for each whether it was renewed.
    pub(super) async fn renew(
        &self,
        leases: Vec<String>,
        (token, length): (&str, Duration),
        within: Duration,
    ) -> Answers<bool> {
        let scripts = self.scripts(&leases, |leases| script(RENEW, leases).arg(token).arg(millis(length)).to_owned());
        self.run(scripts, within, |values| values.into_iter().map(|value| value == Value::Int(1)).collect()).await
    }

    /// Ends leases that have this token. Failed ones are marked, so that each waiting replica asks for itself.
    pub(super) async fn end(
        &self,
        leases: Vec<String>,
        (token, has_failed): (&str, bool),
        within: Duration,
    ) -> Answers<()> {
        let mark = if has_failed { FAILED } else { "" };
        let scripts =
            self.scripts(&leases, |leases| script(END, leases).arg(token).arg(mark).arg(millis(FAILED_FOR)).to_owned());
        let groups = scripts.into_iter().map(|(_, script)| vec![script]).collect();
        let outcomes = self.queries.all(groups, within).await;
        Answers::of_writes(outcomes, within, |values| values.first().map(drop))
    }

    /// Divides keys among scripts. Returns the number of keys of each.
    fn scripts<T>(&self, names: &[T], write: impl Fn(&[T]) -> Cmd) -> Vec<(usize, Cmd)> {
        let count = match self.queries {
            Connection::Single(_) => KEYS_PER_SCRIPT,
            Connection::Cluster(_) => 1,
        };
        names.chunks(count).map(|names| (names.len(), write(names))).collect()
    }

    /// Runs scripts that return one result for each of their keys.
    async fn run<T>(
        &self,
        scripts: Vec<(usize, Cmd)>,
        within: Duration,
        read: impl Fn(Vec<Value>) -> Vec<T>,
    ) -> Answers<T> {
        let (counts, groups): (Vec<usize>, Vec<Group>) =
            scripts.into_iter().map(|(count, script)| (count, vec![script])).unzip();
        let outcomes = self.queries.all(groups, within).await;
        spread(outcomes, counts, within, read)
    }
}

/// Converts the results of scripts to one for each key. `counts` has the number of keys of each script.
fn spread<T>(
    outcomes: Vec<GroupResult>,
    counts: Vec<usize>,
    within: Duration,
    read: impl Fn(Vec<Value>) -> Vec<T>,
) -> Answers<T> {
    // A login without permission for scripts must not take the tier down, which works without leases.
    let answers = Answers::of_writes(outcomes, within, |mut values| match values.pop()? {
        Value::Array(values) => Some(read(values)),
        _ => None,
    });
    let each = answers.each.into_iter().zip(counts).flat_map(|(results, count): (Option<Vec<T>>, usize)| {
        let mut results = results.unwrap_or_default().into_iter();
        (0..count).map(move |_| results.next()).collect::<Vec<_>>()
    });
    Answers { each: each.collect(), error: answers.error }
}

fn lease_text(held: Value) -> LeaseText {
    match held {
        Value::Int(0) => LeaseText::Unwanted,
        Value::Int(1) => LeaseText::Granted,
        Value::BulkString(value) => LeaseText::Held(value),
        _ => LeaseText::Refused,
    }
}

fn script<'a>(text: &str, keys: impl IntoIterator<Item = &'a String>) -> Cmd {
    let keys: Vec<&String> = keys.into_iter().collect();
    let mut script = cmd("EVAL");
    script.arg(text).arg(keys.len()).arg(keys);
    script
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
