//! The difference of two documents as RFC 6902 operations in the wire form of `DataChanged`: members `Op`,
//! `Path` and `Value`.
//!
//! Law: `apply(diff(a, b), a) == b`, digit for digit. The order of members, white space and the way a
//! string is escaped are no difference. Arrays lose their common head and tail; what is left is compared
//! element by element. A nested patch that is longer than replacing the member is replaced by just that.
//!
//! Cost: a comparison of names and values in place for flat objects. A nested container that changed is
//! scanned once per level.

use std::borrow::Cow;

use crate::document::Document;
use crate::escape::{push_token, unescape};
use crate::members::{Side, for_each_change};
use crate::raw::{Kind, RawValue, same_text};
use crate::scan::{elements, members};

/// Appends the patch from `old` to `new` to `out` as a JSON array, and returns the number of operations.
/// Equal documents give `[]` and 0.
pub fn diff(old: &Document, new: &Document, out: &mut Vec<u8>) -> usize {
    out.push(b'[');
    let mut writer = Writer { out, operations: 0 };
    if old.is_object() && new.is_object() {
        writer.objects(&Path::Root, old.side(), new.side());
    } else {
        writer.root(old.root(), new.root());
    }
    let operations = writer.operations;
    out.push(b']');
    operations
}

/// Appends the patch that creates a document: `[{"Op":"add","Path":"","Value":…}]`.
pub fn whole_add(document: &Document, out: &mut Vec<u8>) {
    whole(b"[{\"Op\":\"add\",\"Path\":\"\",\"Value\":", document, out);
}

/// Appends the patch that replaces a document: `[{"Op":"replace","Path":"","Value":…}]`.
pub fn whole_replace(document: &Document, out: &mut Vec<u8>) {
    whole(b"[{\"Op\":\"replace\",\"Path\":\"\",\"Value\":", document, out);
}

/// Appends the patch that removes a document: `[{"Op":"remove","Path":""}]`.
pub fn whole_remove(out: &mut Vec<u8>) {
    out.extend_from_slice(b"[{\"Op\":\"remove\",\"Path\":\"\"}]");
}

fn whole(head: &[u8], document: &Document, out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    out.extend_from_slice(document.root().as_bytes());
    out.extend_from_slice(b"}]");
}

/// A top-level member that two versions do not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedMember<'a> {
    /// The name, unescaped.
    pub name: Cow<'a, str>,
    /// The value in the old document; `None` if the member is new.
    pub old: Option<RawValue<'a>>,
    /// The value in the new document; `None` if the member is gone.
    pub new: Option<RawValue<'a>>,
}

/// The top-level members that differ: those for which [`diff`] has operations. Empty unless both are
/// objects.
pub fn changed_members<'a>(old: &'a Document, new: &'a Document) -> Vec<ChangedMember<'a>> {
    let mut changed = Vec::new();
    if old.is_object() && new.is_object() {
        for_each_change(old.side(), new.side(), |name, old, new| {
            if let (Some(old), Some(new)) = (old, new)
                && same_text(old, new)
            {
                return;
            }
            changed.push(ChangedMember {
                name: unescape(name),
                old: old.map(RawValue::new),
                new: new.map(RawValue::new),
            });
        });
    }
    changed
}

/// Where a value is, as a list from the inside out that lives on the stack.
enum Path<'p> {
    Root,
    Member(&'p Path<'p>, &'p str),
    Element(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Path::Root => {}
            Path::Member(parent, name) => {
                parent.write(out);
                out.push(b'/');
                push_token(out, name);
            }
            Path::Element(parent, index) => {
                parent.write(out);
                out.push(b'/');
                out.extend_from_slice(index.to_string().as_bytes());
            }
        }
    }
}

struct Writer<'w> {
    out: &'w mut Vec<u8>,
    operations: usize,
}

impl Writer<'_> {
    fn operation(&mut self, head: &[u8], path: &Path<'_>, value: Option<&str>) {
        if self.operations > 0 {
            self.out.push(b',');
        }
        self.operations += 1;
        self.out.extend_from_slice(head);
        path.write(self.out);
        match value {
            None => self.out.extend_from_slice(b"\"}"),
            Some(value) => {
                self.out.extend_from_slice(b"\",\"Value\":");
                self.out.extend_from_slice(value.as_bytes());
                self.out.push(b'}');
            }
        }
    }

    fn add(&mut self, path: &Path<'_>, value: &str) {
        self.operation(b"{\"Op\":\"add\",\"Path\":\"", path, Some(value));
    }

    fn replace(&mut self, path: &Path<'_>, value: &str) {
        self.operation(b"{\"Op\":\"replace\",\"Path\":\"", path, Some(value));
    }

    fn remove(&mut self, path: &Path<'_>) {
        self.operation(b"{\"Op\":\"remove\",\"Path\":\"", path, None);
    }

    /// Documents of which at least one is no object.
    fn root(&mut self, old: RawValue<'_>, new: RawValue<'_>) {
        match (old.kind(), new.kind()) {
            (Kind::Array, Kind::Array) => self.arrays(&Path::Root, old.as_raw(), new.as_raw()),
            _ if same_text(old.as_raw(), new.as_raw()) => {}
            _ => self.replace(&Path::Root, new.as_raw()),
        }
    }

    /// A value below the root whose text differs.
    fn values(&mut self, path: &Path<'_>, old: &str, new: &str) {
        let (old, new) = (RawValue::new(old), RawValue::new(new));
        match (old.kind(), new.kind()) {
            (Kind::Object, Kind::Object) | (Kind::Array, Kind::Array) => {
                self.containers(path, old, new);
            }
            // Numbers are compared digit for digit, so these two differ.
            (Kind::Number, Kind::Number) => self.replace(path, new.as_raw()),
            _ if same_text(old.as_raw(), new.as_raw()) => {}
            _ => self.replace(path, new.as_raw()),
        }
    }

    /// Two objects or two arrays below the root: operations on their parts, or one on the whole, whichever
    /// is shorter.
    fn containers(&mut self, path: &Path<'_>, old: RawValue<'_>, new: RawValue<'_>) {
        // What surrounds the path and the value of a replace.
        const REPLACE_LEN: usize = r#"{"Op":"replace","Path":"","Value":}"#.len();
        let (start, operations) = (self.out.len(), self.operations);
        if old.kind() == Kind::Object {
            let (old_members, new_members) = (members(old.as_raw()), members(new.as_raw()));
            let old = Side { text: old.as_raw(), members: &old_members };
            let new = Side { text: new.as_raw(), members: &new_members };
            self.objects(path, old, new);
        } else {
            self.arrays(path, old.as_raw(), new.as_raw());
        }
        let nested = self.out.len() - start;
        if nested <= new.as_raw().len() + REPLACE_LEN {
            return;
        }
        let nested_operations = std::mem::replace(&mut self.operations, operations);
        self.replace(path, new.as_raw());
        if self.out.len() - start < 2 * nested {
            self.out.drain(start..start + nested);
        } else {
            self.out.truncate(start + nested);
            self.operations = nested_operations;
        }
    }

    fn objects(&mut self, path: &Path<'_>, old: Side<'_, '_>, new: Side<'_, '_>) {
        for_each_change(old, new, |name, old, new| {
            let path = Path::Member(path, name);
            match (old, new) {
                (Some(old), Some(new)) => self.values(&path, old, new),
                (Some(_), None) => self.remove(&path),
                (None, Some(new)) => self.add(&path, new),
                (None, None) => {}
            }
        });
    }

    fn arrays(&mut self, path: &Path<'_>, old: &str, new: &str) {
        let (old, new) = (elements(old), elements(new));
        let shorter = old.len().min(new.len());
        let equal = |&(a, b): &(&&str, &&str)| a == b;
        let head = old.iter().zip(&new).take_while(equal).count();
        let tail = old.iter().rev().zip(new.iter().rev()).take(shorter - head);
        let tail = tail.take_while(equal).count();
        for index in head..shorter - tail {
            if old[index] != new[index] {
                self.values(&Path::Element(path, index), old[index], new[index]);
            }
        }
        // From the back, so that the indexes in front stay what they are.
        for index in (shorter - tail..old.len() - tail).rev() {
            self.remove(&Path::Element(path, index));
        }
        for (index, value) in new.iter().enumerate().take(new.len() - tail).skip(shorter - tail) {
            self.add(&Path::Element(path, index), value);
        }
    }
}
