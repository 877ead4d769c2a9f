//! What a graph would do with events, without doing it: its operators run, and its sources and sinks are not even opened.

use super::blueprint::{Blueprint, Part};
use super::build::{BuildEnv, Builder, Entry};
use super::chain::Chain;
use crate::ack::Ack;
use crate::error::{Error, Result};
use crate::event::{Batch, Event};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Blueprint {
    /// What would reach each sink, by its id, if a source gave these events, one by one. What operators refuse goes to the
    /// dead letters of the environment's store, so that is better not the durable one.
    ///
    /// # Errors
    /// When an operator cannot be built, or there is no such source.
    pub async fn rehearse(&self, env: &BuildEnv, source: &str, events: Vec<Event>) -> Result<Vec<(Arc<str>, Event)>> {
        let mut builder = Builder::new(self, env);
        let mut receivers = builder.open_channels();
        let at = self.components.iter().position(|component| *component.id == *source);
        let at = at.ok_or_else(|| Error::fatal(format!("there is no source `{source}`")))?;
        let mut entry = builder.chain(at, Entry::BehindPart)?;
        let mut stages: BTreeMap<usize, Chain> = BTreeMap::new();
        for (&to, _) in receivers.iter().filter(|(to, _)| matches!(self.components[**to].part, Part::Operator(_))) {
            stages.insert(to, builder.chain(to, Entry::AtPart)?);
        }
        let mut reached = Vec::new();
        for event in events {
            // By itself, so that no channel is ever full.
            entry.run(Batch::new(vec![event], Ack::none(), Timestamp::now())).await?;
            entry.end().await?;
            // Stages stand behind what feeds them, so that one pass in the order of the graph would do; a merge may stand before.
            while let Some((to, batch)) = receivers.iter_mut().find_map(|(to, lanes)| {
                lanes.iter_mut().find_map(|(receiver, gate)| {
                    let batch = receiver.try_recv().ok()?;
                    gate.leave();
                    Some((*to, batch))
                })
            }) {
                match stages.get_mut(&to) {
                    Some(chain) => {
                        chain.run(batch).await?;
                        chain.end().await?;
                    }
                    None => {
                        let id = &self.components[to].id;
                        reached.extend(batch.events.into_iter().map(|event| (Arc::clone(id), event)));
                    }
                }
            }
        }
        Ok(reached)
    }
}
