//! The resource type `mail_folder`: mails as files, for trials. Each is a file `ID.txt` to read, and where it has an HTML part
//! `ID.html` to look at; attachments are named only.
//!
//! A file is there as a whole or not at all, and a mail that is sent twice is there once.

use crate::relay::{Relay, SendError, SharedRelay};
use crate::request::{Attachment, address};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::delivery::QueuedMail;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{Config, ResourceConfig, ResourceContext};
use std::any::Any;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A folder that takes mails as files instead of sending them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MailFolderConfig {
    /// The folder, relative to the data folder; created when it is missing. Default `mails`.
    #[serde(default = "path_default")]
    path: PathBuf,
}

fn path_default() -> PathBuf {
    "mails".into()
}

impl Config for MailFolderConfig {
    const TYPE: &'static str = "mail_folder";
}

#[async_trait]
impl ResourceConfig for MailFolderConfig {
    const KIND: &'static str = "mail";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let relay: SharedRelay = Arc::new(MailFolder { path: cx.data_dir.join(&self.path) });
        Ok(Arc::new(relay))
    }
}

struct MailFolder {
    path: PathBuf,
}

#[async_trait]
impl Relay for MailFolder {
    fn concurrency(&self) -> usize {
        1
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn send(&self, mail: &QueuedMail) -> Result<(), SendError> {
        let text = readable(mail).map_err(SendError::Refused)?;
        let (folder, mail) = (self.path.clone(), mail.clone());
        let written = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            if let Some(html) = &mail.body_html {
                write(&folder, &format!("{}.html", mail.id), html)?;
            }
            write(&folder, &format!("{}.txt", mail.id), &text)
        });
        let away = |error: String| SendError::Away(format!("{} takes no file: {error}", self.path.display()));
        written.await.map_err(|error| away(error.to_string()))?.map_err(|error| away(error.to_string()))
    }
}

/// The mail for a person's eyes.
fn readable(mail: &QueuedMail) -> Result<String, String> {
    address(&mail.to_address)?;
    let attachments: Vec<Attachment> = match mail.attachments.as_deref() {
        Some(json) => serde_json::from_str(json).map_err(|error| format!("the attachments cannot be read: {error}"))?,
        None => Vec::new(),
    };
    let mut text = format!("To: {}\nSubject: {}\n", mail.to_address, mail.subject.escape_debug());
    for attachment in &attachments {
        let _ = writeln!(text, "Attachment: {} ({} bytes)", attachment.name.escape_debug(), attachment.decode()?.len());
    }
    let _ = write!(text, "\n{}\n", mail.body_text.as_deref().unwrap_or("(there is an HTML part only)"));
    Ok(text)
}

fn write(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let unfinished = folder.join(format!(".{name}"));
    std::fs::write(&unfinished, text)?;
    std::fs::File::open(&unfinished)?.sync_all()?;
    std::fs::rename(unfinished, folder.join(name))
}
