//! Capture instances: which one is read, up to where, and when another takes over.
//!
//! A table has at most two. One that was made later has another set of columns, or its columns under other names; the older
//! one is read up to where the newer begins, and then [`Next::Changed`] says so. The newer one is told by when it was made:
//! clean-up raises the start of both to the same LSN. From the start of the newer instance on it has everything, so that
//! capture may also change over in the middle of a transaction.
//!
//! Documents have the columns that both the table and the instance have, under the table's names. A column that was added
//! since is absent until a new instance is made (the plan says so); one that was dropped is gone from documents at once.

use super::position::{CdcAt, CdcPosition, InstanceId, Lsn};
use crate::catalogue::{ColumnInfo, TableInfo};
use crate::rows::Shape;
use smartpulse_pipeline::error::{Error, Result};

/// A capture instance, as the server knows it at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// Its name.
    pub name: String,
    /// Where it begins; nothing until the capture job has come to it.
    pub start: Option<Lsn>,
    /// The lowest LSN that it still has; [`Lsn::ZERO`] when it has none, or when the login may not read it.
    pub min: Lsn,
}

/// How far capture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdcState {
    /// Of which database.
    pub incarnation: String,
    /// How far the capture job has come; [`Lsn::ZERO`] when it has never run.
    pub max: Lsn,
    /// The instances of the table, by when they were made.
    pub instances: Vec<Instance>,
}

/// What is to be done about a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing has happened.
    Idle,
    /// Reading this instance up to here.
    Read {
        /// Which.
        instance: Instance,
        /// Everything up to here is stable.
        upto: Lsn,
    },
    /// Another instance goes on from the same place.
    Changed {
        /// The one that was read; nothing when it was dropped.
        from: Option<Instance>,
        /// The one that follows.
        to: Instance,
        /// Where.
        at: CdcAt,
    },
    /// What follows is gone.
    Lost(String),
}

impl CdcState {
    /// Where a stream begins that is to miss nothing from now on.
    ///
    /// # Errors
    /// Unavailable while the capture job has not come to the instance; fatal where there is none, or none to read.
    pub fn head(&self, table: &str) -> Result<CdcPosition> {
        let established = self.instances.iter().rev().find(|instance| instance.start.is_some());
        let Some(instance) = established.or(self.instances.last()) else { return Err(disabled(table)) };
        instance.readable(table)?;
        // The job may not have come to a new instance yet (edge case 7): then everything that the instance will have is
        // still to come.
        let lsn = self.max.max(instance.min.predecessor());
        Ok(CdcPosition { incarnation: self.incarnation.clone(), instance: instance.id, at: CdcAt::Through(lsn) })
    }

    /// What is to be done about a position.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn next(&self, table: &str, position: &CdcPosition) -> Result<Next> {
        let at = position.at;
        if self.instances.is_empty() {
            return Err(disabled(table));
        }
        if position.incarnation != self.incarnation {
            return Ok(Next::Lost(format!(
                "the position is of the database {}, and this one is {}: it was restored, or is another",
                position.incarnation, self.incarnation
            )));
        }
        let Some(place) = self.instances.iter().position(|instance| instance.id == position.instance) else {
            return self.dropped(table, at);
        };
        let (own, newer) = (&self.instances[place], &self.instances[place + 1..]);
        own.readable(table)?;
        if own.min > at.needs() {
            return Ok(Next::Lost(own.cleaned(at)));
        }
        // A stream that waits for the job to come to its instance is ahead of the job, and nothing else is.
        if at.lsn() > self.max && at != CdcAt::Through(own.min.predecessor()) {
            return Ok(Next::Lost(format!(
                "the position is at LSN {}, and the newest is {}: an older copy was restored",
                at.lsn(),
                self.max
            )));
        }
        let mut upto = self.max;
        if let Some((newer, start)) = newer.iter().rev().find_map(|newer| Some((newer, newer.start?))) {
            if at.needs() >= start {
                return Ok(Next::Changed { from: Some(own.clone()), to: newer.clone(), at });
            }
            upto = upto.min(start.predecessor());
        }
        let all_read = match at {
            CdcAt::Through(lsn) => lsn >= upto,
            CdcAt::After(place) => place.lsn > upto,
        };
        Ok(if all_read { Next::Idle } else { Next::Read { instance: own.clone(), upto } })
    }

    fn dropped(&self, table: &str, at: CdcAt) -> Result<Next> {
        let Some(newest) = self.instances.last() else { return Err(disabled(table)) };
        // What has everything from the position on makes up for the one that is gone.
        let heir = self.instances.iter().rev().find(|i| i.min != Lsn::ZERO && i.min <= at.needs());
        Ok(match heir {
            Some(heir) => Next::Changed { from: None, to: heir.clone(), at },
            None => Next::Lost(format!(
                "the capture instance that was read is gone, and {}, which is there now, begins later: what was \
                 committed in between was captured by none",
                newest.name
            )),
        })
    }
}

impl Instance {
    /// Why a position is lost to clean-up.
    #[must_use]
    pub fn cleaned(&self, at: CdcAt) -> String {
        format!("clean-up has come to LSN {} of {}, and what follows LSN {} is gone", self.min, self.name, at.lsn())
    }

    /// # Errors
    /// Unavailable while the capture job has not come to it; fatal without the right to read it.
    fn readable(&self, table: &str) -> Result<()> {
        if self.min != Lsn::ZERO {
            return Ok(());
        }
        let name = &self.name;
        if self.start.is_none() {
            return Err(Error::unavailable(format!(
                "the capture job has not come to the capture instance {name} of {table} yet: is SQL Server Agent running?"
            )));
        }
        Err(Error::fatal(format!(
            "the login may not read the capture instance {name} of {table}: grant it SELECT on the schema cdc and on \
             {table}, and membership in the instance's role where it has one; `smartpulse plan` prints the statements"
        )))
    }
}

fn disabled(table: &str) -> Error {
    Error::fatal(format!(
        "change data capture of {table} is off, or the login may not see it: `smartpulse plan` prints the statements that \
         switch it on"
    ))
}

/// A column of a change table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Its name in the change table.
    pub name: String,
    /// The number of the table's column.
    pub column: i32,
    /// Its bit in the update mask, from 1.
    pub ordinal: i32,
    /// Whether the table computes it: the log has no values of it.
    pub computed: bool,
    /// Whether the image after an update may lack its value: that of an unchanged `max` type is NULL.
    pub partial: bool,
}

/// Which columns a capture instance has, and what its rows become.
#[derive(Debug, Clone)]
pub struct InstanceShape {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub captured: Vec<Captured>,
    /// The name of `VersionId` in it.
    pub version: Option<String>,
    /// What rows become whose columns are those of [`Self::images`].
    pub shape: Shape,
    /// Columns of the table that it does not have.
    pub absent: Vec<String>,
}

impl InstanceShape {
    /// The shape of an instance of a table.
    ///
    /// # Errors
    /// Fatal when it lacks the key, or the `VersionId` that the table has.
    pub fn new(table: &TableInfo, name: &str, captured: Vec<Captured>) -> Result<Self> {
        let has = |column: &ColumnInfo| captured.iter().find(|captured| captured.column == column.id);
        let lacking = |column: &str| {
            Error::fatal(format!(
                "the capture instance {name} does not have {column} of {}: make one that captures it",
                table.table.name
            ))
        };
        let needed = table.keys().into_iter().chain(table.columns.iter().filter(|c| c.name == "VersionId"));
        for column in needed {
            has(column).ok_or_else(|| lacking(&column.name))?;
        }
        let columns: Vec<ColumnInfo> = table.columns.iter().filter(|c| has(c).is_some()).cloned().collect();
        let keys: Vec<&str> = table.keys().into_iter().map(|key| key.name.as_str()).collect();
        let version = table.columns.iter().find(|c| c.name == "VersionId").and_then(has).map(|c| c.name.clone());
        let absent = table.columns.iter().filter(|c| has(c).is_none()).map(|c| c.name.clone()).collect();
        let shape = Shape::new(&table.table.name, &columns, &keys)?;
        Ok(Self { name: name.to_owned(), captured, version, shape, absent })
    }

    /// The table's columns that it has, in the table's order.
    pub fn images<'a>(&'a self, table: &'a TableInfo) -> impl Iterator<Item = (&'a ColumnInfo, &'a Captured)> {
        table
            .columns
            .iter()
            .filter_map(|column| Some((column, self.captured.iter().find(|captured| captured.column == column.id)?)))
    }

    /// The table's key columns, each with its name in the change table.
    #[must_use]
    pub fn keys<'a>(&'a self, table: &'a TableInfo) -> Vec<(&'a ColumnInfo, &'a str)> {
        let name = |key: &ColumnInfo| self.captured.iter().find(|c| c.column == key.id).map(|c| c.name.as_str());
        table.keys().into_iter().filter_map(|key| Some((key, name(key)?))).collect()
    }

    /// Whether the image after an update may lack something that the row has.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.captured.iter().any(|captured| captured.partial || captured.computed)
    }

    /// What tells this instance from the one before, for a person.
    #[must_use]
    pub fn differs_from(&self, before: &Self) -> String {
        let without = |one: &Self, other: &Self| -> Vec<String> {
            let other: Vec<i32> = other.captured.iter().map(|c| c.column).collect();
            one.captured.iter().filter(|c| !other.contains(&c.column)).map(|c| c.name.clone()).collect()
        };
        let (new, gone) = (without(self, before), without(before, self));
        let mut parts = Vec::new();
        for (what, names) in [("has", new), ("no longer has", gone)] {
            if !names.is_empty() {
                parts.push(format!("{what} {}", names.join(", ")));
            }
        }
        if parts.is_empty() { "has the same columns".to_owned() } else { parts.join(" and ") }
    }
}

#[cfg(test)]
#[path = "instances_tests.rs"]
mod tests;
