//! JSON documents as bytes: validate once, compare raw slices, patch without trees.
//!
//! Most fields of a changed row are the same bytes as before, so the hot path never builds a value:
//! [`Document::parse`] validates a text and remembers where its top-level members lie, [`diff`] compares
//! those slices with the previous version's and appends the RFC 6902 patch to a buffer, and [`apply`]
//! expands only the containers that a patch passes through. Numbers are never re-printed: what goes in
//! comes out byte for byte, however many digits it has.
//!
//! | file | idea |
//! | --- | --- |
//! | `scan` | the validating scanner, RFC 8259 |
//! | `document` | a validated text with the spans of its members |
//! | `raw` | one value inside a document, still text |
//! | `escape` | JSON string escapes, both ways |
//! | `pointer` | RFC 6901 |
//! | `names` | the members of one object, and that their names differ |
//! | `members` | which members of two objects correspond |
//! | `diff` | two documents to a patch |
//! | `tree` | a document expanded as far as a patch needs |
//! | `apply` | a patch onto a document |
//!
//! Pure: no I/O, no clock, no unsafe code.

#![warn(missing_docs)]

mod apply;
mod diff;
mod document;
mod error;
mod escape;
mod members;
mod names;
mod pointer;
mod raw;
mod scan;
mod tree;

pub use apply::{Patched, apply};
pub use diff::{ChangedMember, changed_members, diff, whole_add, whole_remove, whole_replace};
pub use document::Document;
pub use error::{JsonError, PatchError, PointerError};
pub use pointer::Pointer;
pub use raw::{Kind, RawValue};
pub use scan::DEPTH_MAX;
