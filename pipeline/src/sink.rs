//! Sinks: where effects happen.
//!
//! Contract:
//! - [`Sink::write`] returns when the effects of the whole batch are durable, as far as the sink's medium can be.
//! - It is idempotent per (section, key, version): after an error or a crash the same batch comes again.
//! - It classifies its errors ([`crate::error::ErrorKind`]); the runtime retries, dead-letters or stops. Events
//!   that alone are at fault are returned as rejected, and their neighbours are written.

use crate::error::Result;
use crate::event::Batch;
use async_trait::async_trait;

/// An event of a batch that the sink refuses for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the batch.
    pub index: usize,
    /// Why, in one line.
    pub reason: String,
}

/// A running sink.
#[async_trait]
pub trait Sink: Send {
    /// Makes the effects of a batch durable, and says which events it refuses.
    ///
    /// # Errors
    /// When the batch as a whole has to be tried again or given up.
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>>;

    /// Called once after the last batch.
    ///
    /// # Errors
    /// When something of what was written could not be kept.
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
