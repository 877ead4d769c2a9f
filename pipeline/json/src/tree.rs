//! A document expanded just as far as a patch reaches into it. Everything else stays a slice of the text it
//! came from, so values keep their digits and cost nothing.

use std::borrow::Cow;

use crate::document::Document;
use crate::escape::{has_escape, push_escaped, unescape};
use crate::names::Member;
use crate::pointer::array_index;
use crate::scan::{elements, members};

/// A value that is text, or has been opened.
#[derive(Debug, Clone)]
pub(crate) enum Node<'a> {
    Raw(&'a str),
    Object(Object<'a>),
    Array(Vec<Node<'a>>),
}

/// An opened object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object<'a> {
    members: Vec<Entry<'a>>,
    /// Where the next search starts: patches follow the order of members.
    next: usize,
}

/// A member of an opened object.
#[derive(Debug, Clone)]
struct Entry<'a> {
    /// The name as it stands between its quotes.
    name: Cow<'a, str>,
    escaped: bool,
    /// `None` once the member is removed: its place stays, so that removing many stays linear.
    value: Option<Node<'a>>,
}

/// The place that a path does not lead to.
pub(crate) struct Nowhere;

impl<'a> Node<'a> {
    /// A document whose members are known already.
    pub(crate) fn of(document: &'a Document) -> Node<'a> {
        if document.is_object() {
            Node::Object(Object::new(document.as_str(), document.spans()))
        } else {
            Node::Raw(document.root().as_raw())
        }
    }

    /// Opens a container that is still text, one level.
    fn open(&mut self) {
        if let Node::Raw(text) = *self {
            match text.as_bytes().first() {
                Some(b'{') => *self = Node::Object(Object::new(text, &members(text))),
                Some(b'[') => {
                    *self = Node::Array(elements(text).into_iter().map(Node::Raw).collect());
                }
                _ => {}
            }
        }
    }

    /// The value of `token` in this container.
    pub(crate) fn child(&mut self, token: &str) -> Result<&mut Node<'a>, Nowhere> {
        self.open();
        match self {
            Node::Object(object) => {
                let index = object.find(token).ok_or(Nowhere)?;
                object.members[index].value.as_mut().ok_or(Nowhere)
            }
            Node::Array(items) => {
                let index = array_index(token).ok_or(Nowhere)?;
                items.get_mut(index).ok_or(Nowhere)
            }
            Node::Raw(_) => Err(Nowhere),
        }
    }

    /// Adds a member or replaces it; inserts an element before an index, or after the last for `-`
    /// (RFC 6902 section 4.1).
    pub(crate) fn add(&mut self, token: &str, value: Node<'a>) -> Result<(), Nowhere> {
        self.open();
        match self {
            Node::Object(object) => match object.find(token) {
                Some(index) => object.members[index].value = Some(value),
                None => object.members.push(Entry::new(token, value)),
            },
            Node::Array(items) => {
                let index = match token {
                    "-" => items.len(),
                    _ => array_index(token).ok_or(Nowhere)?,
                };
                if index > items.len() {
                    return Err(Nowhere);
                }
                items.insert(index, value);
            }
            Node::Raw(_) => return Err(Nowhere),
        }
        Ok(())
    }

    /// Takes a member or an element out.
    pub(crate) fn remove(&mut self, token: &str) -> Result<Node<'a>, Nowhere> {
        self.open();
        match self {
            Node::Object(object) => {
                let index = object.find(token).ok_or(Nowhere)?;
                object.members[index].value.take().ok_or(Nowhere)
            }
            Node::Array(items) => match array_index(token) {
                Some(index) if index < items.len() => Ok(items.remove(index)),
                _ => Err(Nowhere),
            },
            Node::Raw(_) => Err(Nowhere),
        }
    }

    /// Appends the value as JSON.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Node::Raw(text) => out.extend_from_slice(text.as_bytes()),
            Node::Object(object) => {
                out.push(b'{');
                let start = out.len();
                for Entry { name, value, .. } in &object.members {
                    let Some(node) = value else { continue };
                    if out.len() > start {
                        out.push(b',');
                    }
                    out.push(b'"');
                    out.extend_from_slice(name.as_bytes());
                    out.extend_from_slice(b"\":");
                    node.write(out);
                }
                out.push(b'}');
            }
            Node::Array(items) => {
                out.push(b'[');
                let start = out.len();
                for item in items {
                    if out.len() > start {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
        }
    }

    /// How deep opened containers nest. Unopened text counts nothing: it nests less than `DEPTH_MAX` deep
    /// by itself.
    pub(crate) fn opened_depth(&self) -> usize {
        let deepest = match self {
            Node::Raw(_) => return 0,
            Node::Object(object) => object.members.iter().flat_map(|entry| &entry.value).map(Node::opened_depth).max(),
            Node::Array(items) => items.iter().map(Node::opened_depth).max(),
        };
        1 + deepest.unwrap_or(0)
    }
}

impl<'a> Object<'a> {
    fn new(text: &'a str, spans: &[Member]) -> Object<'a> {
        let entry = |member: &Member| Entry {
            name: Cow::Borrowed(member.name(text)),
            escaped: member.name_is_escaped(),
            value: Some(Node::Raw(member.value(text))),
        };
        Object { members: spans.iter().map(entry).collect(), next: 0 }
    }

    /// The place of the member of that name, present or removed.
    fn find(&mut self, token: &str) -> Option<usize> {
        let (front, back) = self.members.split_at(self.next);
        let index = match back.iter().position(|entry| entry.is_named(token)) {
            Some(index) => self.next + index,
            None => front.iter().position(|entry| entry.is_named(token))?,
        };
        self.next = index;
        Some(index)
    }
}

impl<'a> Entry<'a> {
    fn new(token: &str, value: Node<'a>) -> Entry<'a> {
        let mut raw = Vec::with_capacity(token.len());
        push_escaped(&mut raw, token);
        let name = String::from_utf8(raw).expect("escaping changes ascii characters only");
        Entry { escaped: has_escape(&name), name: Cow::Owned(name), value: Some(value) }
    }

    fn is_named(&self, token: &str) -> bool {
        if self.escaped { unescape(&self.name) == token } else { self.name == token }
    }
}
