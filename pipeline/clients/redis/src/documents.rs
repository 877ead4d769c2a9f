//! The shared documents: the same hashes that publishing writes, as caches read and fill them.

use crate::scripts::{DOCUMENT_LIFE, NOTE_LIFE, millis};
use crate::{RedisPubSub, names};
use async_trait::async_trait;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use smartpulse_clients::documents::{Shared, SharedDocuments};
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::Result;
use std::time::Duration;

/// How many keys one command names at most.
const KEYS_MAX: usize = 256;

/// What is read of a hash: counter, document's version, noted version, expiry, tombstone, document.
type Fields = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<u8>, Option<Vec<u8>>);

/// A life of the data.
type Generation = Option<String>;

#[async_trait]
impl SharedDocuments for RedisPubSub {
    async fn get(&self, section: &str, key: &str, age_max: Duration) -> Result<Shared> {
        let mut pipeline = redis::pipe();
        let hash = names::entity(section, key);
        pipeline.cmd("TIME").cmd("GET").arg(names::GENERATION).cmd("HGET").arg(&hash).arg("generation");
        pipeline.cmd("HMGET").arg(&hash).arg(&[
            "VersionId:latest",
            "VersionId:json",
            "VersionId:noted",
            "expires_at_ms",
            "tombstone",
            "json",
        ]);
        let read = |mut connection| async move { pipeline.query_async(&mut connection).await };
        let ((seconds, micros), now, written, fields): ((i64, i64), Generation, Generation, Fields) =
            self.inner.asking.ask("read a document", read).await?;
        if now.is_none() || now != written {
            return Ok(Shared::Nothing);
        }
        Ok(answer(fields, seconds * 1_000 + micros / 1_000, age_max))
    }

    async fn fill(&self, section: &str, key: &str, version: i64, document: &Bytes) -> Result<bool> {
        let mut call = self.inner.scripts.fill.key(names::GENERATION);
        call.key(names::entity(section, key))
            .arg(version)
            .arg(&document[..])
            .arg(millis(DOCUMENT_LIFE))
            .arg(NOTE_LIFE.as_secs());
        self.inner.asking.ask("fill a document", |mut c| async move { call.invoke_async(&mut c).await }).await
    }

    async fn note(&self, section: &str, versions: &[(Key, i64)]) -> Result<()> {
        for versions in versions.chunks(KEYS_MAX) {
            let mut call = self.inner.scripts.note.key(names::GENERATION);
            call.arg(NOTE_LIFE.as_secs());
            for (key, version) in versions {
                call.key(names::entity(section, key)).arg(version);
            }
            self.inner
                .asking
                .ask("note versions", |mut c| async move { call.invoke_async::<()>(&mut c).await })
                .await?;
        }
        Ok(())
    }

    async fn counters(&self, section: &str, keys: &[Key]) -> Result<Vec<Option<i64>>> {
        let mut counters = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_MAX) {
            let mut generation = redis::cmd("GET");
            generation.arg(names::GENERATION);
            let mut pipeline = redis::pipe();
            for key in keys {
                pipeline.cmd("HMGET").arg(names::entity(section, key)).arg("VersionId:latest").arg("generation");
            }
            let read = |mut c: MultiplexedConnection| async move {
                let now: Generation = generation.query_async(&mut c).await?;
                let stored: Vec<(Option<i64>, Generation)> = pipeline.query_async(&mut c).await?;
                Ok(stored
                    .into_iter()
                    .map(|(counter, written)| counter.filter(|_| now.is_some() && now == written))
                    .collect())
            };
            counters.extend::<Vec<_>>(self.inner.asking.ask("read counters", read).await?);
        }
        Ok(counters)
    }

    async fn expire(&self, section: &str, cursor: u64, keys_max: usize) -> Result<(u64, usize)> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}:*", names::glob(section))).arg("COUNT").arg(keys_max);
        let scan = |mut c| async move { scan.query_async(&mut c).await };
        let (cursor, keys): (u64, Vec<String>) = self.inner.asking.ask("scan documents", scan).await?;
        let mut dropped = 0;
        for keys in keys.chunks(KEYS_MAX) {
            let mut call = self.inner.scripts.expire.prepare_invoke();
            for key in keys {
                call.key(key);
            }
            let expire = |mut c| async move { call.invoke_async::<usize>(&mut c).await };
            dropped += self.inner.asking.ask("drop documents", expire).await?;
        }
        Ok((cursor, dropped))
    }

    async fn hold_duty(&self, name: &str, term: Duration) -> Result<bool> {
        let mut call = self.inner.scripts.duty.key(names::duty(name));
        call.arg(&*self.inner.instance).arg(millis(term));
        self.inner.asking.ask("hold a duty", |mut c| async move { call.invoke_async(&mut c).await }).await
    }
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
