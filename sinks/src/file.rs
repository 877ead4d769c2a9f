//! `file`: JSON lines in a file, or on standard output.
//!
//! Input: events. One line each, in order: of an event with a patch the message (`DataKey`, `VersionId`,
//! `PreviousVersionId`, `PatchItems`), of another its document. A bounded run truncates the file first; a live
//! one appends behind the last whole line, and may repeat the last batch after a crash. A batch counts as written
//! when the operating system has it.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::message::{push_integer, push_json_string};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::{Batch, Event};
use std::io::{ErrorKind as IoKind, SeekFrom};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt};

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
        let output = match self.path.as_str() {
            "-" => Output::Stream(Box::new(tokio::io::stdout())),
            path => Output::open(path, cx.fresh)
                .await
                .map_err(|error| Error::fatal(format!("cannot write {path}")).because(error))?,
        };
        Ok(Box::new(FileSink { path: self.path.clone(), output, buffer: Vec::new() }))
    }
}

enum Output {
    /// Standard output, a pipe, a device: what was written cannot be taken back.
    Stream(Box<dyn AsyncWrite + Send + Sync + Unpin>),
    File {
        file: File,
        /// How much of the file is whole lines. What a failed or killed write left behind that is cut off, so that
        /// the next line does not stick to a torn one.
        whole: u64,
    },
}

impl Output {
    async fn open(path: &str, fresh: bool) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).read(true).write(true).truncate(fresh);
        let mut file = match tokio::fs::metadata(path).await {
            Ok(found) if !found.is_file() => {
                return Ok(Self::Stream(Box::new(OpenOptions::new().write(true).open(path).await?)));
            }
            _ => options.open(path).await?,
        };
        let whole = end_of_last_line(&mut file).await?;
        file.set_len(whole).await?;
        file.seek(SeekFrom::Start(whole)).await?;
        Ok(Self::File { file, whole })
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stream(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::File { file, whole } => {
                let mut written = file.write_all(bytes).await;
                if written.is_ok() {
                    written = file.flush().await;
                }
                match written {
                    Ok(()) => *whole += bytes.len() as u64,
                    Err(_) => {
                        file.set_len(*whole).await?;
                        file.seek(SeekFrom::Start(*whole)).await?;
                    }
                }
                written
            }
        }
    }
}

/// Behind the last line break of a file; 0 when there is none.
async fn end_of_last_line(file: &mut File) -> std::io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = file.metadata().await?.len();
    let mut buffer = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start)).await?;
        buffer.resize(usize::try_from(end - start).unwrap_or_default(), 0);
        file.read_exact(&mut buffer).await?;
        if let Some(at) = buffer.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

struct FileSink {
    path: String,
    output: Output,
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
        if let Err(error) = self.output.write(&self.buffer).await {
            return Err(self.failed(error));
        }
        Ok(rejected)
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
    if memchr::memchr2(b'\n', b'\r', json).is_none() {
        out.extend_from_slice(json);
    } else {
        out.extend(json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
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

    #[tokio::test]
    async fn a_torn_line_is_cut_off_before_the_next_one_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ndjson");
        for (before, fresh, after) in [
            ("{}\n{\"torn", false, "{}\n{\"next\":1}\n"),
            ("torn", false, "{\"next\":1}\n"),
            ("{}\n", false, "{}\n{\"next\":1}\n"),
            ("{}\n", true, "{\"next\":1}\n"),
        ] {
            std::fs::write(&path, before).unwrap();
            let mut output = Output::open(path.to_str().unwrap(), fresh).await.unwrap();
            output.write(b"{\"next\":1}\n").await.unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
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
