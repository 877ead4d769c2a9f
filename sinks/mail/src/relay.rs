//! Who takes mails: the contract of the resources of kind `mail`.

use async_trait::async_trait;
use smartpulse_clients::delivery::QueuedMail;
use std::sync::Arc;
use std::time::Duration;

/// Why a mail was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// It never will be.
    Refused(String),
    /// Not this time; the mail may be the reason.
    Later(String),
    /// Nobody is there who could take any mail.
    Away(String),
}

/// Takes mails.
#[async_trait]
pub trait Relay: Send + Sync {
    /// How many mails may be sent at once.
    fn concurrency(&self) -> usize;
    /// How long [`Self::send`] takes at most.
    fn patience(&self) -> Duration;
    /// Returns once the mail is somebody else's duty. It may have been taken although an error is returned: then it is sent
    /// twice, under one message id.
    async fn send(&self, mail: &QueuedMail) -> Result<(), SendError>;
}

/// What a resource of kind `mail` gives.
pub type SharedRelay = Arc<dyn Relay>;
