//! The shared documents: the same hashes that publishing writes, as caches read and fill them.

use crate::map::Map;
use crate::nodes::Lane;
use crate::scripts::{DOCUMENT_LIFE, NOTE_LIFE, millis};
use crate::slots::Part;
use crate::{RedisPubSub, errors, names};
use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Value};
use smartpulse_clients::documents::{Shared, SharedDocuments};
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::Result;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many keys one command names at most.
const KEYS_MAX: usize = 256;

/// How many such commands one pipeline has at most.
const CALLS_MAX: usize = 256;

/// Where a cursor has which of the primaries it stands at. What a server has below it counts its keys.
const CURSOR_NODE_SHIFT: u32 = 48;

/// What is read of a hash.
const FIELDS: [&str; 7] =
    ["generation", "VersionId:latest", "VersionId:json", "VersionId:noted", "expires_at_ms", "tombstone", "json"];

/// What it answers: counter, document's version, noted version, expiry, tombstone, document.
type Fields = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<u8>, Option<Vec<u8>>);

/// A life of the data.
type Generation = Option<String>;

/// The server's time, the life of the part, and the hash with the life that it was written in.
type Read = (
    (i64, i64),
    Generation,
    (Generation, Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<u8>, Option<Vec<u8>>),
);

/// What is asked to know a document.
enum Question {
    Time,
    Generation,
    Fields,
}

#[async_trait]
impl SharedDocuments for RedisPubSub {
    async fn get(&self, section: &str, key: &str, age_max: Duration) -> Result<Shared> {
        const DOING: &str = "read a document";
        let map = self.inner.nodes.map().await?;
        let hash = names::entity(section, key);
        let part = map.part(&hash);
        let questions = [(part, Question::Time), (part, Question::Generation), (part, Question::Fields)];
        let ask = |question: &Question| match question {
            Question::Time => redis::cmd("TIME"),
            Question::Generation => redis::cmd("GET").arg(names::generation(map.tag(part))).clone(),
            Question::Fields => redis::cmd("HMGET").arg(&hash).arg(&FIELDS).clone(),
        };
        let answers = self.inner.nodes.send(Lane::Asking, DOING, &questions, ask).await?;
        let ((seconds, micros), now, (written, latest, version, noted, expires, tombstone, json)): Read =
            read(DOING, Value::Array(answers))?;
        if now.is_none() || now != written {
            return Ok(Shared::Nothing);
        }
        Ok(answer((latest, version, noted, expires, tombstone, json), seconds * 1_000 + micros / 1_000, age_max))
    }

    async fn fill(&self, section: &str, key: &str, version: i64, document: &Bytes) -> Result<bool> {
        let map = self.inner.nodes.map().await?;
        let hash = names::entity(section, key);
        let part = map.part(&hash);
        let mut fill = self.inner.nodes.scripts.fill.on(&[names::generation(map.tag(part)), hash]);
        fill.arg(version).arg(&document[..]).arg(millis(DOCUMENT_LIFE)).arg(NOTE_LIFE.as_secs());
        self.one("fill a document", part, fill).await
    }

    async fn note(&self, section: &str, versions: &[(Key, i64)]) -> Result<()> {
        let map = self.inner.nodes.map().await?;
        let hashes = versions.iter().map(|(key, version)| (names::entity(section, key), *version));
        let calls = by_part(&map, hashes, |(hash, _)| hash);
        let note = |versions: &Vec<(String, i64)>| {
            let generation = names::generation(map.tag(map.part(&versions[0].0)));
            let keys: Vec<&String> = [&generation].into_iter().chain(versions.iter().map(|(hash, _)| hash)).collect();
            let mut note = self.inner.nodes.scripts.note.on(&keys);
            note.arg(NOTE_LIFE.as_secs());
            for (_, version) in versions {
                note.arg(version);
            }
            note
        };
        for calls in calls.chunks(CALLS_MAX) {
            self.inner.nodes.send(Lane::Asking, "note versions", calls, note).await?;
        }
        Ok(())
    }

    async fn counters(&self, section: &str, keys: &[Key]) -> Result<Vec<Option<i64>>> {
        const DOING: &str = "read counters";
        let map = self.inner.nodes.map().await?;
        let hashes = keys.iter().enumerate().map(|(place, key)| (place, names::entity(section, key)));
        let parts = by_part(&map, hashes, |(_, hash)| hash);
        let mut counters = vec![None; keys.len()];
        for parts in parts.chunks(CALLS_MAX) {
            // The generation of a part, then its hashes.
            let questions: Vec<_> = parts
                .iter()
                .flat_map(|(part, hashes)| {
                    [None].into_iter().chain(hashes.iter().map(Some)).map(|hash| (*part, (*part, hash)))
                })
                .collect();
            let ask = |(part, hash): &(Part, Option<&(usize, String)>)| match hash {
                None => redis::cmd("GET").arg(names::generation(map.tag(*part))).clone(),
                Some((_, hash)) => redis::cmd("HMGET").arg(hash).arg(&["VersionId:latest", "generation"]).clone(),
            };
            let answers = self.inner.nodes.send(Lane::Asking, DOING, &questions, ask).await?;
            let mut now = None;
            for (answer, (_, (_, hash))) in answers.into_iter().zip(questions) {
                match hash {
                    None => now = read::<Generation>(DOING, answer)?,
                    Some((place, _)) => {
                        let (counter, written): (Option<i64>, Generation) = read(DOING, answer)?;
                        counters[*place] = counter.filter(|_| now.is_some() && now == written);
                    }
                }
            }
        }
        Ok(counters)
    }

    async fn expire(&self, section: &str, cursor: u64, keys_max: usize) -> Result<(u64, usize)> {
        let map = self.inner.nodes.map().await?;
        let node = cursor >> CURSOR_NODE_SHIFT;
        let Some(server) = usize::try_from(node).ok().and_then(|node| map.primaries.get(node)) else {
            return Ok((0, 0));
        };
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor & ((1 << CURSOR_NODE_SHIFT) - 1));
        scan.arg("MATCH").arg(format!("{}:*", names::glob(section))).arg("COUNT").arg(keys_max);
        let scan = |mut c| async move { scan.query_async(&mut c).await };
        let (next, hashes): (u64, Vec<String>) = server.ask(Lane::Asking, "scan documents", scan).await?;
        let calls = by_part(&map, hashes.into_iter(), |hash| hash);
        let expire = |hashes: &Vec<String>| self.inner.nodes.scripts.expire.on(hashes);
        let mut dropped = 0;
        for calls in calls.chunks(CALLS_MAX) {
            for gone in self.inner.nodes.send(Lane::Asking, "drop documents", calls, expire).await? {
                dropped += read::<usize>("drop documents", gone)?;
            }
        }
        let next = match next {
            0 if node + 1 < map.primaries.len() as u64 => (node + 1) << CURSOR_NODE_SHIFT,
            0 => 0,
            next => node << CURSOR_NODE_SHIFT | next,
        };
        Ok((next, dropped))
    }

    async fn hold_duty(&self, name: &str, term: Duration) -> Result<bool> {
        let map = self.inner.nodes.map().await?;
        let duty = names::duty(name);
        let part = map.part(&duty);
        let mut hold = self.inner.nodes.scripts.duty.on(&[duty]);
        hold.arg(&*self.inner.instance).arg(millis(term));
        self.one("hold a duty", part, hold).await
    }
}

impl RedisPubSub {
    /// Sends one call, and reads its answer.
    async fn one<T: FromRedisValue>(&self, doing: &str, part: Part, call: Cmd) -> Result<T> {
        let answers = self.inner.nodes.send(Lane::Asking, doing, &[(part, call)], Cmd::clone).await?;
        read(doing, answers.into_iter().next().unwrap_or(Value::Nil))
    }
}

fn read<T: FromRedisValue>(doing: &str, answer: Value) -> Result<T> {
    T::from_redis_value(answer).map_err(|error| errors::unread(doing, error))
}

/// Sorts what is to be done by part, at most so much for one call.
fn by_part<T>(map: &Map, all: impl Iterator<Item = T>, hash: impl Fn(&T) -> &str) -> Vec<(Part, Vec<T>)> {
    let mut parts: BTreeMap<Part, Vec<T>> = BTreeMap::new();
    for one in all {
        parts.entry(map.part(hash(&one))).or_default().push(one);
    }
    let cut = |(part, mut all): (Part, Vec<T>)| {
        let mut calls = Vec::new();
        while all.len() > KEYS_MAX {
            let rest = all.split_off(KEYS_MAX);
            calls.push((part, std::mem::replace(&mut all, rest)));
        }
        calls.push((part, all));
        calls
    };
    parts.into_iter().flat_map(cut).collect()
}

/// What a hash answers: its document if it is the counter's, nothing newer is noted, and it is young enough.
fn answer(
    (latest, version, noted, expires_at_ms, tombstone, document): Fields,
    now_ms: i64,
    age_max: Duration,
) -> Shared {
    let (Some(latest), Some(version), Some(expires_at_ms), Some(document)) = (latest, version, expires_at_ms, document)
    else {
        return Shared::Nothing;
    };
    let written_ms = expires_at_ms - i64::try_from(DOCUMENT_LIFE.as_millis()).unwrap_or(i64::MAX);
    let age_max = i64::try_from(age_max.as_millis()).unwrap_or(i64::MAX);
    if version != latest || noted.is_some_and(|noted| noted > version) || now_ms - written_ms > age_max {
        return Shared::Nothing;
    }
    if tombstone == Some(1) {
        return Shared::Gone { version };
    }
    Shared::Document { version, document: document.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_given_only_at_the_counter_and_while_it_is_young() {
        let life = i64::try_from(DOCUMENT_LIFE.as_millis()).unwrap();
        let fields = |latest, version, noted, tombstone| {
            (latest, version, noted, Some(1_000 + life), Some(tombstone), Some(b"{}".to_vec()))
        };
        let document = Shared::Document { version: 7, document: Bytes::from_static(b"{}") };
        for (fields, now_ms, expected) in [
            (fields(Some(7), Some(7), None, 0), 1_000, document.clone()),
            (fields(Some(7), Some(7), Some(7), 0), 1_000, document.clone()),
            (fields(Some(7), Some(7), None, 0), 61_000, document),
            (fields(Some(7), Some(7), None, 0), 61_001, Shared::Nothing),
            (fields(Some(8), Some(7), None, 0), 1_000, Shared::Nothing),
            (fields(Some(7), Some(7), Some(8), 0), 1_000, Shared::Nothing),
            (fields(None, Some(7), None, 0), 1_000, Shared::Nothing),
            (fields(Some(7), None, None, 0), 1_000, Shared::Nothing),
            (fields(Some(7), Some(7), None, 1), 1_000, Shared::Gone { version: 7 }),
        ] {
            assert_eq!(answer(fields.clone(), now_ms, Duration::from_secs(60)), expected, "{fields:?} at {now_ms}");
        }
    }
}
