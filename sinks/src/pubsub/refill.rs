//! What is done about keys whose counter is unknown (Redis lost its data, or nobody wrote the key for days): each is
//! read from the database and that is broadcast whole, before any event of it is judged. Otherwise an old event, come
//! again after the loss, would set an old document in front of everybody.

use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::pubsub::{Outcome, Publication, Publisher, SharedPubSub};
use smartpulse_json::Document;
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) struct Refill {
    pub database: SharedDatabase,
    pub table: String,
    pub instance: Arc<str>,
    pub partition: Arc<str>,
}

impl Refill {
    /// Publishes anew what was held back, and sets its outcomes; gives how many keys were read.
    pub async fn settle(
        &self,
        pubsub: &SharedPubSub,
        publications: &[Publication],
        outcomes: &mut [Outcome],
    ) -> Result<usize> {
        let held_back: Vec<usize> = (0..outcomes.len()).filter(|n| outcomes[*n] == Outcome::Unknown).collect();
        // Of each key the newest that was held back: it names the channel, and the version if there is no row.
        let newest: BTreeMap<&Key, &Publication> =
            held_back.iter().map(|n| (&publications[*n].key, &publications[*n])).collect();
        if newest.is_empty() {
            return Ok(0);
        }
        let keys: Vec<Key> = newest.keys().map(|key| Key::clone(key)).collect();
        let rows = self.database.get(&self.table, &keys).await?;
        let rows: BTreeMap<&Key, _> = rows.iter().map(|row| (&row.key, row)).collect();
        let whole = newest.iter().filter_map(|(key, publication)| {
            let publisher = Publisher {
                instance: self.instance.clone(),
                partition: self.partition.clone(),
                section: publication.section.clone(),
            };
            let channel = publication.channel.clone();
            match rows.get(key) {
                None if is_delete(publication) => Some(publisher.whole(channel, key, publication.version, None)),
                None => None,
                Some(row) => match Document::parse(row.document.clone()) {
                    Ok(document) => Some(publisher.whole(channel, key, row.version, Some(&document))),
                    // The event itself has to do.
                    Err(error) => {
                        tracing::warn!(key = &***key, %error, "the row of an unknown counter cannot be read");
                        None
                    }
                },
            }
        });
        let whole: Vec<Publication> = whole.collect();
        pubsub.publish(&whole).await?;
        // Of a key that is gone nothing is told but its delete, which is still to come or was told before the loss.
        let (told, untold): (Vec<usize>, Vec<usize>) = held_back.into_iter().partition(|n| {
            let key = &publications[*n].key;
            rows.contains_key(key) || is_delete(newest[key])
        });
        for n in untold {
            outcomes[n] = Outcome::Stale;
        }
        // Where something was published the counter is known, unless the data was lost once more.
        let refilled: BTreeSet<&Key> = whole.iter().map(|publication| &publication.key).collect();
        let again = |publication: &Publication| Publication {
            known_only: refilled.contains(&publication.key),
            ..publication.clone()
        };
        let again: Vec<Publication> = told.iter().map(|n| again(&publications[*n])).collect();
        for (n, outcome) in told.into_iter().zip(pubsub.publish(&again).await?) {
            if outcome == Outcome::Unknown {
                return Err(Error::unavailable("the counters were lost again while they were read from the database"));
            }
            outcomes[n] = outcome;
        }
        Ok(keys.len())
    }
}

fn is_delete(publication: &Publication) -> bool {
    publication.document.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use serde_json::Value;
    use smartpulse_clients::database::{Database, Write};
    use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
    use smartpulse_clients::pubsub::{PubSub, Subscriber};
    use smartpulse_pipeline::error::ErrorKind;
    use smartpulse_testing::{forecast, uuid};
    use std::sync::Mutex;

    /// Forgets all counters after every call.
    #[derive(Default)]
    struct Forgetful(Mutex<Vec<(i64, Outcome)>>);

    #[async_trait]
    impl PubSub for Forgetful {
        async fn ping(&self) -> Result<()> {
            Ok(())
        }
        async fn publish(&self, publications: &[Publication]) -> Result<Vec<Outcome>> {
            let outcomes: Vec<Outcome> = publications.iter().map(|publication| publication.outcome(None)).collect();
            self.0.lock().unwrap().extend(publications.iter().map(|p| p.version).zip(outcomes.iter().copied()));
            Ok(outcomes)
        }
        async fn subscribe(&self, _: &str) -> Result<Box<dyn Subscriber>> {
            Err(Error::fatal("nobody subscribes"))
        }
    }

    #[tokio::test]
    async fn data_that_is_lost_again_meanwhile_gets_no_old_document() {
        let folder = tempfile::tempdir().unwrap();
        let registry = prometheus::Registry::new();
        let database = SqliteDatabase::open("main_db", &SqliteConfig::default(), folder.path(), &registry).unwrap();
        database.create_schema().await.unwrap();
        let key: Key = uuid(1).as_str().into();
        let members = serde_json::Map::from_iter([("demand".to_owned(), Value::from(2))]);
        let insert = Write::Insert { members: forecast(1, 0.5) };
        let update = Write::Update { key: key.clone(), expected_version: None, members };
        database.write("Forecasts", vec![insert, update]).await.unwrap();
        let (instance, partition): (Arc<str>, Arc<str>) = ("i".into(), "p".into());
        let publisher =
            Publisher { instance: instance.clone(), partition: partition.clone(), section: "forecast".into() };
        let refill = Refill { database: Arc::new(database), table: "Forecasts".to_owned(), instance, partition };
        let document: Document = "{}".parse().unwrap();
        let old = publisher.whole(publisher.channel(&key), &key, 1, Some(&document));
        let old = Publication { known_only: true, ..old };
        let forgetful = Arc::new(Forgetful::default());
        let pubsub: SharedPubSub = forgetful.clone();
        let error = refill.settle(&pubsub, &[old], &mut [Outcome::Unknown]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(*forgetful.0.lock().unwrap(), [(2, Outcome::Whole), (1, Outcome::Unknown)]);
    }
}
