//! `file`: documents from a file of JSON lines, or from standard input.
//!
//! Output: one event per line, in order; the line *is* the document, and key and version are found in it by
//! pointers. Bounded: it ends with the file, always starts at its beginning and commits nothing. A line that is
//! not a JSON object, has no key or no version, or a version below 1, goes to the dead letters with its number;
//! its neighbours are unaffected. Empty lines are passed over. Cost: one pass over the bytes; documents are
//! slices of the read buffer.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_json::{Document, Pointer};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SourceConfig};
use smartpulse_pipeline::source::{BuiltSource, Emission, Source, SourceContext, Unreadable};
use smartpulse_pipeline::state::Origin;
use smartpulse_pipeline::{Event, Key, Operation};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Read at once: large enough that system calls do not count, small enough to stay in the processor's cache.
const READ_BYTES: usize = 256 * 1024;

/// A line longer than this is not kept in memory; its beginning goes to the dead letters.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How much of an overlong line is kept to recognise it by.
const EXCERPT_BYTES: usize = 1024;

/// Reads documents from a file of JSON lines, or from standard input. Ends with the file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The file; `-` is standard input.
    path: String,
    /// Where the key is in a document, as a JSON pointer; `/id` by default.
    #[serde(default = "default_key")]
    key: String,
    /// Where the version is in a document, as a JSON pointer; `/versionId` by default.
    #[serde(default = "default_version")]
    version: String,
    /// The section that the events are of; `record` by default.
    #[serde(default = "default_section")]
    section: String,
}

fn default_key() -> String {
    "/id".to_owned()
}

fn default_version() -> String {
    "/versionId".to_owned()
}

fn default_section() -> String {
    "record".to_owned()
}

impl Config for FileConfig {
    const TYPE: &'static str = "file";

    fn validate(&self, check: &mut Check<'_>) {
        if self.path.is_empty() {
            check.problem("path", "the path is empty", Some("name a file, or `-` for standard input".to_owned()));
        }
        for (name, text) in [("key", &self.key), ("version", &self.version)] {
            if let Err(error) = text.parse::<Pointer>() {
                check.problem(
                    name,
                    format!("`{text}` is no JSON pointer: {error}"),
                    Some("write it like `/id`".to_owned()),
                );
            }
        }
    }
}

#[async_trait]
impl SourceConfig for FileConfig {
    const BOUNDED: bool = true;

    async fn build(&self, _cx: &BuildContext<'_>) -> Result<BuiltSource> {
        let input: Box<dyn AsyncRead + Send + Unpin> = if self.path == "-" {
            Box::new(tokio::io::stdin())
        } else {
            let file = tokio::fs::File::open(&self.path)
                .await
                .map_err(|error| Error::fatal(format!("cannot read {}", self.path)).because(error))?;
            Box::new(file)
        };
        let pointer =
            |text: &str| text.parse().map_err(|error| Error::fatal(format!("bad pointer {text}")).because(error));
        let reader = LineReader {
            name: self.path.clone(),
            key: pointer(&self.key)?,
            version: pointer(&self.version)?,
            section: self.section.as_str().into(),
            line: 0,
            before: None,
        };
        Ok(BuiltSource::forgetful(FileSource { input, reader }))
    }
}

struct FileSource {
    input: Box<dyn AsyncRead + Send + Unpin>,
    reader: LineReader,
}

#[async_trait]
impl Source for FileSource {
    async fn run(mut self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        // True while the rest of an overlong line is passed over.
        let mut skipping = false;
        loop {
            buffer.reserve(READ_BYTES);
            let Some(read) = cx.next(self.input.read_buf(&mut buffer)).await? else { return Ok(()) };
            let read =
                read.map_err(|error| Error::fatal(format!("cannot read {}", self.reader.name)).because(error))?;
            let end = match (memchr::memrchr(b'\n', &buffer), read) {
                (Some(newline), _) => newline + 1,
                (None, 0) => buffer.len(),
                (None, _) => 0,
            };
            let mut emission = Emission::default();
            let mut lines = buffer.split_to(end).freeze();
            if skipping && !lines.is_empty() {
                let newline = memchr::memchr(b'\n', &lines).map_or(lines.len(), |at| at + 1);
                lines = lines.slice(newline..);
                skipping = false;
            }
            self.reader.read(&lines, &mut emission);
            if buffer.len() > LINE_BYTES_MAX {
                if !skipping {
                    emission.unreadable.push(self.reader.overlong(&buffer));
                }
                skipping = true;
                buffer.clear();
            }
            if !emission.events.is_empty() || !emission.unreadable.is_empty() {
                cx.emit(emission).await?;
            }
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// Turns lines into events.
struct LineReader {
    name: String,
    key: Pointer,
    version: Pointer,
    section: Arc<str>,
    line: u64,
    /// The line before: the next one usually has the same members, which makes it cheaper to read.
    before: Option<Document>,
}

impl LineReader {
    fn read(&mut self, lines: &Bytes, emission: &mut Emission) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', lines).chain([lines.len()]) {
            let line = lines[start..end].trim_ascii();
            if !line.is_empty() {
                self.line += 1;
                let line = lines.slice_ref(line);
                match self.event(line.clone()) {
                    Ok(event) => emission.events.push(event),
                    Err(reason) => emission.unreadable.push(self.unreadable(&line, &reason)),
                }
            } else if end < lines.len() {
                self.line += 1;
            }
            start = (end + 1).min(lines.len());
        }
    }

    fn event(&mut self, line: Bytes) -> Result<Event, String> {
        let parsed = match &self.before {
            Some(before) => Document::parse_after(line, before),
            None => Document::parse(line),
        };
        let document = parsed.map_err(|error| format!("not JSON: {error}"))?;
        if !document.is_object() {
            return Err("not a JSON object".to_owned());
        }
        let key: Key = match document.pointer(&self.key) {
            None => return Err(format!("no key: there is nothing at {}", self.key)),
            Some(value) => match value.as_str() {
                Some(text) if text.is_empty() => return Err(format!("the key at {} is empty", self.key)),
                Some(text) => Key::from(&*text),
                None if value.as_i64().is_some() => Key::from(value.as_raw()),
                None => return Err(format!("the key at {} is neither text nor an integer", self.key)),
            },
        };
        let version = match document.pointer(&self.version) {
            None => return Err(format!("no version: there is nothing at {}", self.version)),
            Some(value) => {
                value.as_i64().ok_or_else(|| format!("the version at {} is not an integer", self.version))?
            }
        };
        if version < 1 {
            return Err(format!("the version is {version}, but versions start at 1"));
        }
        self.before = Some(document.clone());
        Ok(Event::new(self.section.clone(), key, version, Operation::Update, Some(document)))
    }

    fn unreadable(&self, payload: &[u8], reason: &str) -> Unreadable {
        Unreadable {
            // A copy: the line must not pin the whole buffer.
            payload: Bytes::copy_from_slice(payload),
            reason: format!("line {}: {reason}", self.line),
            key: None,
            origin: Origin::File(self.name.clone()),
        }
    }

    fn overlong(&mut self, beginning: &[u8]) -> Unreadable {
        self.line += 1;
        let excerpt = &beginning[..EXCERPT_BYTES.min(beginning.len())];
        self.unreadable(excerpt, &format!("longer than {LINE_BYTES_MAX} bytes; only its beginning is kept"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, i64)], reasons: &[&str]) {
        let mut reader = LineReader {
            name: "test".into(),
            key: "/id".parse().unwrap(),
            version: "/versionId".parse().unwrap(),
            section: "record".into(),
            line: 0,
            before: None,
        };
        let mut emission = Emission::default();
        reader.read(&Bytes::copy_from_slice(text.as_bytes()), &mut emission);
        let events: Vec<(&str, i64)> = emission.events.iter().map(|event| (&*event.key, event.version)).collect();
        assert_eq!(events, expected);
        let found: Vec<&str> = emission.unreadable.iter().map(|input| input.reason.as_str()).collect();
        assert_eq!(found, reasons);
    }

    #[test]
    fn each_line_is_a_document_with_its_key_and_version() {
        check("{\"id\":\"a\",\"versionId\":1}\n\r\n{\"id\":7,\"versionId\":2}", &[("a", 1), ("7", 2)], &[]);
    }

    #[test]
    fn a_bad_line_is_set_aside_with_its_number_and_its_neighbours_pass() {
        check(
            "{\"id\":\"a\",\"versionId\":1}\n{\"id\":\n\n{\"versionId\":2}\n{\"id\":\"b\"}\n{\"id\":\"c\",\"versionId\":-4}\n7\n{\"id\":\"d\",\"versionId\":1.5}\n{\"id\":\"e\",\"versionId\":1}\n",
            &[("a", 1), ("e", 1)],
            &[
                "line 2: not JSON: expected a value at byte 6",
                "line 4: no key: there is nothing at /id",
                "line 5: no version: there is nothing at /versionId",
                "line 6: the version is -4, but versions start at 1",
                "line 7: not a JSON object",
                "line 8: the version at /versionId is not an integer",
            ],
        );
    }
}
