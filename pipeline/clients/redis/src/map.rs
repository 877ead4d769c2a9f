//! Who has what: a single server everything, or each node of a cluster its slots.

use crate::nodes::Node;
use crate::slots::{Part, SLOTS, Tag, Tags, slot};
use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A slot that no node has.
const NOBODY: u16 = u16::MAX;

/// Who has what.
#[derive(Clone)]
pub(crate) struct Map {
    /// The single server, or whoever has slots.
    pub primaries: Vec<Arc<Node>>,
    slots: Option<Slots>,
}

#[derive(Clone)]
struct Slots {
    /// For each slot, which of the primaries has it.
    owners: Vec<u16>,
    tags: Arc<Tags>,
}

/// Slots that are together on a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub first: u16,
    pub last: u16,
    pub host: String,
    pub port: u16,
}

impl Map {
    pub(crate) fn single(server: Arc<Node>) -> Self {
        Self { primaries: vec![server], slots: None }
    }

    pub(crate) fn cluster(owned: Vec<(RangeInclusive<u16>, Arc<Node>)>, tags: Arc<Tags>) -> Self {
        let slots = Slots { owners: vec![NOBODY; usize::from(SLOTS)], tags };
        let mut map = Self { primaries: Vec::new(), slots: Some(slots) };
        for (range, node) in owned {
            for slot in range {
                map.give(slot, &node);
            }
        }
        map
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.slots.is_some()
    }

    /// The same, but that a slot is somewhere else.
    pub(crate) fn moved(&self, slot: u16, node: &Arc<Node>) -> Self {
        let mut map = self.clone();
        map.give(slot, node);
        map
    }

    fn give(&mut self, slot: u16, node: &Arc<Node>) {
        let known = self.primaries.iter().position(|known| Arc::ptr_eq(known, node));
        let owner = known.unwrap_or_else(|| {
            self.primaries.push(node.clone());
            self.primaries.len() - 1
        });
        if let Some(place) = self.slots.as_mut().and_then(|slots| slots.owners.get_mut(usize::from(slot))) {
            *place = u16::try_from(owner).unwrap_or(NOBODY);
        }
    }

    /// The part that a key is in.
    pub(crate) fn part(&self, key: &str) -> Part {
        if self.is_cluster() { Part::Slot(slot(key.as_bytes())) } else { Part::Whole }
    }

    /// What brings a name into a part.
    pub(crate) fn tag(&self, part: Part) -> Tag {
        match (part, &self.slots) {
            (Part::Slot(slot), Some(slots)) => slots.tags.of(slot),
            _ => Tag::NONE,
        }
    }

    /// Who has a part.
    pub(crate) fn owner(&self, part: Part) -> Option<&Arc<Node>> {
        match (part, &self.slots) {
            (Part::Slot(slot), Some(slots)) => self.primaries.get(usize::from(slots.owners[usize::from(slot)])),
            (Part::Whole, None) => self.primaries.first(),
            // It was a single server before, or is one now.
            _ => None,
        }
    }
}

/// What `CLUSTER SLOTS` answered; nothing where there is no cluster, or the user may not ask.
pub(crate) fn ranges(answer: RedisResult<Value>) -> RedisResult<Option<Vec<Range>>> {
    let ranges = match answer {
        Ok(answer) => Vec::<Value>::from_redis_value(answer)?,
        Err(error) if is_no_cluster(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let parse = |range| {
        let mut range = Vec::<Value>::from_redis_value(range)?.into_iter();
        let mut next = || range.next().unwrap_or(Value::Nil);
        let (first, last) = (u16::from_redis_value(next())?, u16::from_redis_value(next())?);
        let mut node = Vec::<Value>::from_redis_value(next())?.into_iter();
        let mut next = || node.next().unwrap_or(Value::Nil);
        // Nothing where the node does not know its own address: then it is the one that was asked.
        let host = Option::<String>::from_redis_value(next())?.unwrap_or_default();
        Ok(Range { first: first.min(SLOTS - 1), last: last.min(SLOTS - 1), host, port: u16::from_redis_value(next())? })
    };
    ranges.into_iter().map(parse).collect::<RedisResult<_>>().map(Some)
}

fn is_no_cluster(error: &RedisError) -> bool {
    let text = error.to_string();
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || ["cluster support disabled", "unknown command", "unknown subcommand"].iter().any(|no| text.contains(no))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_with_and_without_the_host_of_who_tells() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(vec![])]);
        let answer = Value::Array(vec![
            Value::Array(vec![Value::Int(0), Value::Int(99), node(text("10.0.0.1"), 7000), node(text("x"), 7009)]),
            Value::Array(vec![Value::Int(100), Value::Int(16_383), node(Value::Nil, 7001)]),
        ]);
        let range = |first, last, host: &str, port| Range { first, last, host: host.to_owned(), port };
        let expected = vec![range(0, 99, "10.0.0.1", 7000), range(100, 16_383, "", 7001)];
        assert_eq!(ranges(Ok(answer)).unwrap(), Some(expected));
        assert!(ranges(Ok(Value::Array(vec![Value::Array(vec![text("no number")])]))).is_err());
        for (kind, text, none) in [
            (ServerErrorKind::ResponseError, "This instance has cluster support disabled", true),
            (ServerErrorKind::NoPerm, "this user has no permissions to run the 'cluster|slots' command", true),
            (ServerErrorKind::BusyLoading, "Redis is loading the dataset in memory", false),
        ] {
            assert_eq!(ranges(Err((ErrorKind::Server(kind), text).into())).is_ok(), none, "{text}");
        }
    }
}
