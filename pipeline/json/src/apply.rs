//! Applying an RFC 6902 patch to a document.
//!
//! Input: the operations as a JSON array, with members `Op`, `Path`, `Value`, `From` or, as RFC 6902
//! spells them, in lower case; all six operations. Output: a new document, or the news that it is gone.
//! Atomic: the base is never changed, and an error leaves nothing behind. Beyond RFC 6902, `remove` at the
//! path "" removes the document, `add` and `replace` there create one where none was.
//!
//! Cost: only containers on a path are opened; the result is written once and validated like any other
//! text, so no patch can produce something that [`Document::parse`] refuses.

use std::borrow::Cow;
use std::str;

use bytes::Bytes;

use crate::document::Document;
use crate::error::{JsonError, PatchError, excerpt};
use crate::escape::unescape;
use crate::pointer::tokens;
use crate::raw::RawValue;
use crate::scan::{DEPTH_MAX, Scanner};
use crate::tree::{Node, Nowhere};

/// What `copy` operations may copy in one patch. Each can double a document, so forty of them would fill
/// any memory; sixteen times the largest document accepted by default (1 MiB) is far beyond honest use.
const COPIED_BYTES_MAX: usize = 16 << 20;

/// The result of a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patched {
    /// The document as it is now.
    Document(Document),
    /// The last thing that happened to the document as a whole was `remove` at "".
    Removed,
}

/// Applies `patch_items` to `base`, or to nothing yet. Removing where nothing is gives
/// [`Patched::Removed`] too: a delete that arrives twice is not an error.
///
/// # Errors
///
/// If the patch is not a list of operations, or one of them fails; with its index from 0.
pub fn apply(base: Option<&Document>, patch_items: &[u8]) -> Result<Patched, PatchError> {
    let patch = str::from_utf8(patch_items).map_err(|error| JsonError::Utf8 { offset: error.valid_up_to() })?;
    let mut state = State { root: base.map(Node::of), removed: false, copied: 0 };
    for_each_operation(patch, |index, operation| state.operate(index, operation))?;
    match state.root {
        Some(root) => {
            let mut text = Vec::with_capacity(base.map_or(0, |base| base.as_str().len()) + patch.len());
            root.write(&mut text);
            let document = Document::parse(Bytes::from(text)).map_err(PatchError::Result)?;
            Ok(Patched::Document(document))
        }
        None if state.removed => Ok(Patched::Removed),
        None => Err(PatchError::NoBase { index: 0 }),
    }
}

/// One operation of a patch, its members not yet checked against each other.
#[derive(Default)]
struct Operation<'a> {
    op: Option<Cow<'a, str>>,
    path: Option<Cow<'a, str>>,
    from: Option<Cow<'a, str>>,
    value: Option<&'a str>,
}

/// Scans the patch once, and hands over each operation as soon as it is complete.
fn for_each_operation<'a>(
    patch: &'a str,
    mut operate: impl FnMut(usize, Operation<'a>) -> Result<(), PatchError>,
) -> Result<(), PatchError> {
    // Two levels more than a document, for the array and the operation that are around it.
    let mut scanner = Scanner::new(patch, DEPTH_MAX + 2)?;
    let open = scanner.space(0);
    let mut index = 0;
    let mut failed = None;
    let scanned = scanner.array(open, |scanner, start| {
        scanner.members.clear();
        let end = scanner.value(start, 0)?;
        if failed.is_none() {
            let operation = if patch.as_bytes()[start] == b'{' {
                read_operation(patch, index, scanner)
            } else {
                Err(PatchError::Shape { index, reason: "not an object" })
            };
            failed = operation.and_then(|operation| operate(index, operation)).err();
        }
        index += 1;
        Ok(end)
    });
    scanned.and_then(|end| scanner.end(end)).map_err(|error| *error)?;
    failed.map_or(Ok(()), Err)
}

/// The operation whose members the scanner has just left.
fn read_operation<'a>(patch: &'a str, index: usize, scanner: &Scanner<'a>) -> Result<Operation<'a>, PatchError> {
    let mut operation = Operation::default();
    for member in &scanner.members {
        let value = member.value(patch);
        let text = || match RawValue::new(value).as_str() {
            Some(text) => Ok(Some(text)),
            None => Err(PatchError::Shape { index, reason: "op, path and from must be strings" }),
        };
        match unescape(member.name(patch)).as_ref() {
            "Op" | "op" => operation.op = text()?,
            "Path" | "path" => operation.path = text()?,
            "From" | "from" => operation.from = text()?,
            "Value" | "value" => operation.value = Some(value),
            // RFC 6902 section 4: members that the operation does not define are ignored.
            _ => {}
        }
    }
    Ok(operation)
}

/// A document on its way through a patch.
struct State<'a> {
    root: Option<Node<'a>>,
    removed: bool,
    copied: usize,
}

impl<'a> State<'a> {
    fn operate(&mut self, index: usize, operation: Operation<'a>) -> Result<(), PatchError> {
        let shape = |reason| PatchError::Shape { index, reason };
        let path = operation.path.ok_or_else(|| shape("no path"))?;
        let value = || operation.value.map(Node::Raw).ok_or_else(|| shape("no value"));
        let from = || operation.from.as_deref().ok_or_else(|| shape("no from"));
        match operation.op.as_deref() {
            Some("add") => self.add(index, &path, value()?),
            Some("replace") if path.is_empty() => self.add(index, &path, value()?),
            Some("replace") => {
                let value = value()?;
                *self.find(index, &path)? = value;
                Ok(())
            }
            Some("remove") => self.remove(index, &path).map(drop),
            Some("move") => {
                let from = from()?;
                let inside = path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/'));
                if inside {
                    return Err(shape("a value cannot move into itself"));
                }
                if *from == *path {
                    return self.find(index, from).map(drop);
                }
                let value = self.remove(index, from)?;
                self.add(index, &path, value)
            }
            Some("copy") => {
                let value = self.find(index, from()?)?.clone();
                let mut text = Vec::new();
                value.write(&mut text);
                self.copied += text.len();
                if self.copied > COPIED_BYTES_MAX {
                    return Err(PatchError::TooLarge { index });
                }
                self.add(index, &path, value)
            }
            Some("test") => {
                let expected = operation.value.ok_or_else(|| shape("no value"))?;
                let mut found = Vec::new();
                self.find(index, &path)?.write(&mut found);
                match str::from_utf8(&found) {
                    Ok(found) if RawValue::new(found).same_value(RawValue::new(expected)) => Ok(()),
                    _ => Err(PatchError::Test { index, path: excerpt(&path) }),
                }
            }
            Some(_) => Err(shape("unknown op")),
            None => Err(shape("no op")),
        }
    }

    /// The value at `path`.
    fn find(&mut self, index: usize, path: &str) -> Result<&mut Node<'a>, PatchError> {
        let mut tokens = tokens(path).map_err(|source| PatchError::Pointer { index, source })?;
        let root = self.root.as_mut().ok_or(PatchError::NoBase { index })?;
        tokens.try_fold(root, |node, token| node.child(&token)).map_err(missing(index, path))
    }

    fn add(&mut self, index: usize, path: &str, value: Node<'a>) -> Result<(), PatchError> {
        if path.is_empty() {
            self.root = Some(value);
            return Ok(());
        }
        // `move` and `copy` can stack values ever higher, and functions that walk the tree are recursive.
        if path.matches('/').count() + value.opened_depth() > DEPTH_MAX {
            return Err(PatchError::TooDeep { index });
        }
        let (parent, token) = self.parent(index, path)?;
        parent.add(&token, value).map_err(missing(index, path))
    }

    fn remove(&mut self, index: usize, path: &str) -> Result<Node<'a>, PatchError> {
        if path.is_empty() {
            self.removed = true;
            return Ok(self.root.take().unwrap_or(Node::Raw("null")));
        }
        let (parent, token) = self.parent(index, path)?;
        parent.remove(&token).map_err(missing(index, path))
    }

    /// The container of what `path` points to, and the last token.
    fn parent<'s, 'p>(
        &'s mut self,
        index: usize,
        path: &'p str,
    ) -> Result<(&'s mut Node<'a>, Cow<'p, str>), PatchError> {
        let pointer = |source| PatchError::Pointer { index, source };
        let last = tokens(path).map_err(pointer)?.next_back();
        let last = last.ok_or_else(|| missing(index, path)(Nowhere))?;
        let container = &path[..path.rfind('/').unwrap_or(0)];
        Ok((self.find(index, container)?, last))
    }
}

fn missing(index: usize, path: &str) -> impl Fn(Nowhere) -> PatchError {
    move |Nowhere| PatchError::Missing { index, path: excerpt(path) }
}
