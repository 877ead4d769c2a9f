//! `file`: JSON lines in a file, or on standard output.
//!
//! Input: events. One line each, in order: of an event with a patch the message (`DataKey`, `VersionId`,
//! `PreviousVersionId`, `PatchItems`), of another its document. A bounded run truncates the file first; a live
//! one appends, and may repeat the last batch after a crash. A batch counts as written when the operating system
//! has it.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::message::{push_integer, push_json_string};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::{Batch, Event};
use std::io::ErrorKind as IoKind;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Writes JSON lines to a file, or to standard output.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The file; `-` is standard output. Its folder must exist.
    path: String,
}

impl Config for FileConfig {
    const TYPE: &'static str = "file";

    fn validate(&self, check: &mut Check<'_>) {
        if self.path.is_empty() {
            check.problem("path", "the path is empty", Some("name a file, or `-` for standard output".to_owned()));
        }
    }
}

#[async_trait]
impl SinkConfig for FileConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        let output: Box<dyn AsyncWrite + Send + Unpin> = if self.path == "-" {
            Box::new(tokio::io::stdout())
        } else {
            let mut options = tokio::fs::OpenOptions::new();
            options.create(true).write(true).truncate(cx.fresh).append(!cx.fresh);
            let file = options
                .open(&self.path)
                .await
                .map_err(|error| Error::fatal(format!("cannot write {}", self.path)).because(error))?;
            Box::new(file)
        };
        Ok(Box::new(FileSink { path: self.path.clone(), output, buffer: Vec::new() }))
    }
}

struct FileSink {
    path: String,
    output: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: Vec<u8>,
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        self.buffer.clear();
        let mut rejected = Vec::new();
        for (index, event) in batch.events.iter().enumerate() {
            if !push_line(event, &mut self.buffer) {
                rejected.push(Rejected { index, reason: "the event has neither patch nor document".to_owned() });
            }
        }
        let written = match self.output.write_all(&self.buffer).await {
            Ok(()) => self.output.flush().await,
            error => error,
        };
        written.map_err(|error| self.failed(error))?;
        Ok(rejected)
    }

    async fn close(&mut self) -> Result<()> {
        let closed = self.output.shutdown().await;
        closed.map_err(|error| self.failed(error))
    }
}

impl FileSink {
    fn failed(&self, error: std::io::Error) -> Error {
        let message = format!("cannot write {}", self.path);
        match error.kind() {
            // A full disk is an outage: it is waited for.
            IoKind::StorageFull | IoKind::QuotaExceeded => Error::unavailable(message).because(error),
            _ => Error::fatal(message).because(error),
        }
    }
}

/// Appends an event's line; false when it has nothing to say.
fn push_line(event: &Event, out: &mut Vec<u8>) -> bool {
    if let Some(patch) = &event.patch {
        out.extend_from_slice(b"{\"DataKey\":");
        push_json_string(out, &event.key);
        out.extend_from_slice(b",\"VersionId\":");
        push_integer(out, event.version);
        out.extend_from_slice(b",\"PreviousVersionId\":");
        match event.previous_version {
            Some(version) => push_integer(out, version),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"PatchItems\":");
        push_one_line(&patch.items, out);
        out.extend_from_slice(b"}\n");
        return true;
    }
    let Some(document) = &event.document else { return false };
    push_one_line(document.bytes(), out);
    out.push(b'\n');
    true
}

/// Appends JSON text. Line breaks between its tokens become spaces; inside strings JSON has none.
fn push_one_line(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(json);
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use smartpulse_json::Document;
    use smartpulse_pipeline::{Operation, Patch};

    fn check(event: &Event, expected: &str) {
        let mut out = Vec::new();
        assert!(push_line(event, &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_patch_is_one_message_per_line_and_a_document_itself() {
        let document = Document::parse(Bytes::from_static(b"{\n \"a\": \"x\\n\"\r\n}")).unwrap();
        let mut event = Event::new("s".into(), "k\"".into(), 7, Operation::Update, Some(document));
        check(&event, "{  \"a\": \"x\\n\"  }\n");
        event.patch = Some(Patch { items: Bytes::from_static(b"[]"), whole: false });
        check(&event, "{\"DataKey\":\"k\\\"\",\"VersionId\":7,\"PreviousVersionId\":null,\"PatchItems\":[]}\n");
        event.previous_version = Some(6);
        check(&event, "{\"DataKey\":\"k\\\"\",\"VersionId\":7,\"PreviousVersionId\":6,\"PatchItems\":[]}\n");
    }
}
