//! A way to Redis that is up: what can be asked of it, each within a limit of ours.
//!
//! On one server everything that belongs together goes up in one round trip. A cluster knows no commands across slots, so
//! there each key is asked for by itself, all at once over one connection for each node, and what one node does not answer
//! takes nothing from the others. Values are asked for by GETRANGE: an MGET brings them whole, however large they are.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::ConnectionLike as _;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo};
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value, cmd};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::Connection;
use super::trouble::Trouble;
use crate::config::Redis;
use crate::vector::COMPONENT_BYTES;
use crate::wire::MAX_DIMENSIONS;

/// Compares fields with what they were, and sets all of them or none.
const SWAP: &str = "for i = 1, #ARGV, 3 do \
    if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end end \
    for i = 1, #ARGV, 3 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end \
    return 1";

/// Deletes a lease that still is the holder's.
const GIVE_BACK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// The longest record: a vector of as many f32 as one may have, with what stands beside it.
pub(super) const MAX_RECORD_BYTES: usize = MAX_DIMENSIONS as usize * COMPONENT_BYTES + 4096;

/// A working connection, twice: what is written in bulk must not stand before a question.
pub(super) struct Link {
    questions: Connection,
    writes: Connection,
}

/// What came back for several keys, as far as it did.
#[derive(Debug)]
pub(super) struct Answers<T> {
    /// In the order of the keys.
    pub(super) each: Vec<Option<T>>,
    /// The first trouble that speaks of more than one key.
    pub(super) trouble: Option<Trouble>,
}

/// A change of one field of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub field: String,
    /// What it must be for the change to happen; empty where it must not be there.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

/// Commands that concern one key, and what became of each; nothing if that took too long.
type Group = Vec<Cmd>;
type Outcome = Option<RedisResult<Vec<RedisResult<Value>>>>;

impl Link {
    pub(super) async fn open(config: &Redis) -> Result<Self, Trouble> {
        let (questions, writes) = tokio::join!(Connection::open(config), Connection::open(config));
        Ok(Self { questions: questions?, writes: writes? })
    }

    /// Tries whether questions are answered, by each node of a cluster.
    pub(super) async fn probe(&self, names: &[String], within: Duration) -> Result<(), Trouble> {
        let probe = async {
            match self.questions.clone() {
                Connection::Single(mut server) => {
                    let Some(name) = names.first() else { return Ok(Value::Nil) };
                    server.req_packed_command(&get(name)).await
                }
                Connection::Cluster(mut cluster) => {
                    let all = (MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::AllSucceeded));
                    cluster.route_command(cmd("PING"), RoutingInfo::MultiNode(all)).await
                }
            }
        };
        let answered = timeout(within, probe).await.map_err(|_| Trouble::slow(within))?;
        answered.and_then(Value::extract_error).map(drop).map_err(|error| lost(&error))
    }

    /// What is stored under each name, asked for in one go; nothing where it is longer than any record.
    pub(super) async fn read(&self, names: &[String], within: Duration) -> Answers<Bytes> {
        let groups = names.iter().map(|name| vec![get(name)]).collect();
        let outcomes = self.questions.all(groups, within).await;
        Answers::of(outcomes, within, |mut values| bytes(values.pop()?))
    }

    /// Stores entries, each with the milliseconds that it is of use. Says which are stored.
    pub(super) async fn write(&self, entries: Vec<(String, Bytes, u64)>, within: Duration) -> Answers<()> {
        let set = |(name, value, for_ms): (String, Bytes, u64)| {
            vec![cmd("SET").arg(name).arg(&value[..]).arg("PX").arg(for_ms).to_owned()]
        };
        let outcomes = self.writes.all(entries.into_iter().map(set).collect(), within).await;
        Answers::of_writes(outcomes, within, |values| values.first().map(drop))
    }

    /// Asks for leases and looks at what is stored, in this order for each: `(lease, record)`. Says whether the lease
    /// was free.
    pub(super) async fn lease(
        &self,
        names: Vec<(String, String)>,
        token: &str,
        length: Duration,
        within: Duration,
    ) -> Answers<(bool, Option<Bytes>)> {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let ask = |(lease, record): (String, String)| {
            let take = cmd("SET").arg(lease).arg(token).arg("NX").arg("PX").arg(length_ms).to_owned();
            vec![take, get(&record)]
        };
        let outcomes = self.questions.all(names.into_iter().map(ask).collect(), within).await;
        Answers::of(outcomes, within, |mut values| {
            let stored = bytes(values.pop()?);
            Some((values.pop()? == Value::Okay, stored))
        })
    }

    /// Deletes leases where they still hold this token.
    pub(super) async fn give_back(&self, leases: Vec<String>, token: &str, within: Duration) -> Answers<()> {
        let give = |lease| vec![cmd("EVAL").arg(GIVE_BACK).arg(1).arg(lease).arg(token).to_owned()];
        let outcomes = self.questions.all(leases.into_iter().map(give).collect(), within).await;
        Answers::of(outcomes, within, |values| values.first().map(drop))
    }

    /// All fields of a hash.
    pub(super) async fn fields(&self, name: &str, within: Duration) -> Result<BTreeMap<String, String>, Trouble> {
        let fields = self.ask(cmd("HGETALL").arg(name), within).await?;
        fields.map_err(|error| lost(&error))
    }

    /// Makes all of these changes in a hash, or none if one of them does not find what it expects.
    pub(super) async fn swap(&self, name: &str, changes: &[Change], within: Duration) -> Result<bool, Trouble> {
        let mut swap = cmd("EVAL");
        swap.arg(SWAP).arg(1).arg(name);
        for change in changes {
            swap.arg(&change.field).arg(&change.from).arg(&change.to);
        }
        let swapped = self.ask(&swap, within).await?;
        swapped.map_err(|error| Trouble::of_write(&error))
    }

    async fn ask<T: FromRedisValue>(&self, question: &Cmd, within: Duration) -> Result<RedisResult<T>, Trouble> {
        let asked = async {
            match self.questions.clone() {
                Connection::Single(mut server) => question.query_async(&mut server).await,
                Connection::Cluster(mut cluster) => question.query_async(&mut cluster).await,
            }
        };
        timeout(within, asked).await.map_err(|_| Trouble::slow(within))
    }
}

impl Connection {
    /// Sends all groups at once; what is not answered in time is left out.
    async fn all(&self, groups: Vec<Group>, within: Duration) -> Vec<Outcome> {
        match self.clone() {
            Connection::Single(mut server) => {
                let lengths: Vec<usize> = groups.iter().map(Vec::len).collect();
                let pipeline = pipeline(groups.into_iter().flatten());
                match timeout(within, pipeline.query_async::<Vec<RedisResult<Value>>>(&mut server)).await {
                    Ok(Ok(values)) => {
                        let mut values = values.into_iter();
                        lengths.into_iter().map(|length| Some(Ok(values.by_ref().take(length).collect()))).collect()
                    }
                    Ok(Err(error)) => lengths.iter().map(|_| Some(Err(error.clone()))).collect(),
                    Err(_) => lengths.iter().map(|_| None).collect(),
                }
            }
            Connection::Cluster(cluster) => {
                let until = Instant::now() + within;
                let mut outcomes: Vec<Outcome> = groups.iter().map(|_| None).collect();
                let ask = |(place, group): (usize, Group)| {
                    let mut cluster = cluster.clone();
                    async move { (place, pipeline(group).query_async(&mut cluster).await) }
                };
                let mut asked: FuturesUnordered<_> = groups.into_iter().enumerate().map(ask).collect();
                while let Ok(Some((place, outcome))) = timeout_at(until, asked.next()).await {
                    outcomes[place] = Some(outcome);
                }
                outcomes
            }
        }
    }
}

impl<T> Answers<T> {
    fn of(outcomes: Vec<Outcome>, within: Duration, read: impl Fn(Vec<Value>) -> Option<T>) -> Self {
        Self::judged(outcomes, within, read, Trouble::of)
    }

    fn of_writes(outcomes: Vec<Outcome>, within: Duration, read: impl Fn(Vec<Value>) -> Option<T>) -> Self {
        Self::judged(outcomes, within, read, |error| Some(Trouble::of_write(error)))
    }

    fn judged(
        outcomes: Vec<Outcome>,
        within: Duration,
        read: impl Fn(Vec<Value>) -> Option<T>,
        judge: impl Fn(&redis::RedisError) -> Option<Trouble>,
    ) -> Self {
        let mut trouble = None;
        let judge_one = |outcome: Outcome| match outcome {
            None => Err(Some(Trouble::slow(within))),
            Some(Err(error)) => Err(judge(&error)),
            Some(Ok(values)) => {
                let values =
                    values.into_iter().map(|value| value.or_else(|error| judge(&error).map_or(Ok(Value::Nil), Err)));
                values.collect::<Result<Vec<_>, Trouble>>().map_err(Some).map(&read)
            }
        };
        let each = outcomes.into_iter().map(|outcome| match judge_one(outcome) {
            Ok(answer) => answer,
            Err(found) => {
                trouble = trouble.take().or(found);
                None
            }
        });
        let each = each.collect();
        Self { each, trouble }
    }
}

fn pipeline(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline.ignore_errors();
    pipeline
}

/// Asks for a value, and for no more of it than tells that it is no record: whatever lies there must not fill memory.
fn get(name: &str) -> Cmd {
    cmd("GETRANGE").arg(name).arg(0).arg(MAX_RECORD_BYTES).to_owned()
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) if (1..=MAX_RECORD_BYTES).contains(&bytes.len()) => Some(Bytes::from(bytes)),
        _ => None,
    }
}

/// Where there is one question, an error is the answer to all of it.
fn lost(error: &redis::RedisError) -> Trouble {
    Trouble::of(error).unwrap_or_else(|| Trouble::Lost(error.to_string()))
}
