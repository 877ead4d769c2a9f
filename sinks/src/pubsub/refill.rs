//! What is done about keys whose counter is unknown (Redis lost its data, or nobody wrote the key for days): each is
//! read from the database and that is broadcast whole, before any event of it is judged. Otherwise an old event, come
//! again after the loss, would set an old document in front of everybody.

use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::pubsub::{Outcome, Publication, Publisher, SharedPubSub};
use smartpulse_json::Document;
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::Result;
use std::collections::BTreeMap;
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
        let again: Vec<Publication> =
            told.iter().map(|n| Publication { known_only: false, ..publications[*n].clone() }).collect();
        for (n, outcome) in told.into_iter().zip(pubsub.publish(&again).await?) {
            outcomes[n] = outcome;
        }
        Ok(keys.len())
    }
}

fn is_delete(publication: &Publication) -> bool {
    publication.document.is_none()
}
