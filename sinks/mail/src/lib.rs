//! E-mail: rendered, queued, sent.
//!
//! - The sink `mail_queue` renders what a pipeline brings with [`Templates`] and inserts it into `NheaMailQueue`, once per id.
//! - The source `mail_sender` claims mails of the queue, has a relay send them, and keeps the outcome with each.
//! - A relay is a resource: `mail_folder` writes files, for trials; `smtp` (a feature of the build) sends.
//!
//! The queue is a table that other programs write too, with attempts, errors and states of its own. So sending is one
//! component that claims and settles rows, not a source and a sink: these would keep the same things a second time, as positions
//! and dead letters, and the two could differ after a crash.

#![warn(missing_docs)]

mod folder;
#[cfg(feature = "smtp")]
mod message;
mod queue;
mod relay;
mod request;
mod sender;
#[cfg(feature = "smtp")]
mod smtp;
mod templates;

pub use folder::MailFolderConfig;
#[cfg(feature = "smtp")]
pub use message::compose;
pub use queue::MailQueueConfig;
pub use relay::{Relay, SendError, SharedRelay};
pub use request::MailRequest;
pub use sender::MailSenderConfig;
#[cfg(feature = "smtp")]
pub use smtp::{SmtpConfig, SmtpRelay, SmtpTls};
pub use templates::{Rendered, Templates};

use smartpulse_pipeline::registry::Registry;

/// The table of queued mails.
pub const QUEUE: &str = "NheaMailQueue";

/// Registers the components and resources of this crate.
pub fn register(registry: &mut Registry) {
    registry.sink::<MailQueueConfig>().source::<MailSenderConfig>().resource::<MailFolderConfig>();
    #[cfg(feature = "smtp")]
    registry.resource::<SmtpConfig>();
}
