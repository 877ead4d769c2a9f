//! What can be wrong with a text, a pointer and a patch.

use thiserror::Error;

/// A text that is not a JSON document as SmartPulse accepts it. Offsets are bytes from the start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    /// The grammar of RFC 8259 wants something else here.
    #[error("expected {expected} at byte {offset}")]
    Syntax {
        /// What would have been right.
        expected: &'static str,
        /// Where.
        offset: usize,
    },
    /// Not UTF-8 (RFC 8259 section 8.1).
    #[error("invalid utf-8 at byte {offset}")]
    Utf8 {
        /// The first byte that belongs to no character.
        offset: usize,
    },
    /// A `\u` escape of half a surrogate pair, which no Rust string can hold.
    #[error("lone surrogate escape at byte {offset}")]
    LoneSurrogate {
        /// Where the escape starts.
        offset: usize,
    },
    /// Arrays and objects nest to [`DEPTH_MAX`](crate::DEPTH_MAX) or deeper.
    #[error("nested too deep at byte {offset}")]
    TooDeep {
        /// The bracket that is one too many.
        offset: usize,
    },
    /// A number beyond the range of a 64-bit float, such as `1e400`.
    #[error("number out of range at byte {offset}")]
    NumberOutOfRange {
        /// Where the number starts.
        offset: usize,
    },
    /// One object has two members of one name, so readers would disagree about its value.
    #[error("duplicate member `{name}` at byte {offset}")]
    DuplicateMember {
        /// The name, cut to 64 characters.
        name: Box<str>,
        /// Where the second name starts.
        offset: usize,
    },
    /// Spans are 32-bit offsets; longer texts are refused.
    #[error("text of {len} bytes is too long")]
    TooLong {
        /// The length.
        len: usize,
    },
}

/// A text that is not an RFC 6901 pointer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PointerError {
    /// A pointer is empty or starts with a slash.
    #[error("json pointer `{pointer}` must be empty or start with `/`")]
    NoLeadingSlash {
        /// The text, cut to 64 characters.
        pointer: Box<str>,
    },
    /// `~` is followed by something other than `0` or `1`.
    #[error("json pointer `{pointer}` has `~` without 0 or 1 at byte {offset}")]
    BadEscape {
        /// The text, cut to 64 characters.
        pointer: Box<str>,
        /// Where the `~` stands.
        offset: usize,
    },
}

/// A patch that cannot be applied. The document it was meant for is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    /// The patch is not JSON.
    #[error("patch is not json")]
    Json(#[from] JsonError),
    /// The patch is JSON, but not a list of operations.
    #[error("operation {index}: {reason}")]
    Shape {
        /// Which operation, from 0.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path is not a pointer.
    #[error("operation {index}: invalid path")]
    Pointer {
        /// Which operation, from 0.
        index: usize,
        /// Why.
        source: PointerError,
    },
    /// A path leads to nothing.
    #[error("operation {index}: nothing at path `{path}`")]
    Missing {
        /// Which operation, from 0.
        index: usize,
        /// The path, cut to 64 characters.
        path: Box<str>,
    },
    /// A `test` operation found another value.
    #[error("operation {index}: test failed at path `{path}`")]
    Test {
        /// Which operation, from 0.
        index: usize,
        /// The path, cut to 64 characters.
        path: Box<str>,
    },
    /// There is no document to work on, and the operation does not set a whole one.
    #[error("operation {index}: no document to patch")]
    NoBase {
        /// Which operation, from 0; 0 for an empty patch too.
        index: usize,
    },
    /// A value would nest deeper than [`DEPTH_MAX`](crate::DEPTH_MAX).
    #[error("operation {index}: nested too deep")]
    TooDeep {
        /// Which operation, from 0.
        index: usize,
    },
    /// The `copy` operations of the patch copy more than 16 MiB together.
    #[error("operation {index}: copies too many bytes")]
    TooLarge {
        /// Which operation, from 0.
        index: usize,
    },
    /// The patched text is not a document, because it nests too deep or is too long.
    #[error("patched document is invalid")]
    Result(#[source] JsonError),
}

/// What of a text goes into an error: enough to recognise it, never a megabyte of someone's log.
pub(crate) fn excerpt(text: &str) -> Box<str> {
    const CHARS_MAX: usize = 64;
    text.chars().take(CHARS_MAX).collect()
}
