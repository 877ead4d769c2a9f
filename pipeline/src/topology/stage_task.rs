//! The task of a stage that does not begin with a source: behind a merge, or in a lane.

use super::chain::{Chain, Gate};
use crate::error::Result;
use crate::event::Batch;
use crate::source::sleep_until;
use std::sync::Arc;
use tokio::sync::mpsc;

pub(crate) struct StageTask {
    pub receiver: mpsc::Receiver<Batch>,
    pub gate: Arc<Gate>,
    pub chain: Chain,
}

impl StageTask {
    /// Runs until every sender is gone, then lets go of what is held.
    pub async fn run(mut self) -> Result<()> {
        loop {
            let deadline = self.chain.deadline();
            tokio::select! {
                biased;
                () = sleep_until(deadline) => self.chain.flush_due().await?,
                batch = self.receiver.recv() => match batch {
                    Some(batch) => {
                        self.chain.run(batch).await?;
                        self.gate.leave();
                    }
                    None => return self.chain.end().await,
                },
                () = self.chain.sink_idle() => self.chain.flush_idle().await?,
            }
        }
    }
}
