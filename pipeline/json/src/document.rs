//! A validated JSON text with the spans of its top-level members.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::Value;

use crate::error::JsonError;
use crate::escape::unescape;
use crate::members::Side;
use crate::names::Member;
use crate::pointer::Pointer;
use crate::raw::RawValue;
use crate::scan::{DEPTH_MAX, Scanner};

/// A complete, validated JSON text. If it is an object, the document knows where its members are, so that
/// nobody scans it again. A clone shares text and spans.
///
/// Equality is that of the texts; [`RawValue::same_value`] compares values.
#[derive(Clone)]
pub struct Document {
    text: ByteString,
    root: [u32; 2],
    /// `None` if the document is not an object.
    members: Option<Arc<[Member]>>,
}

impl Document {
    /// Validates `bytes` in one pass and keeps them, not a copy.
    ///
    /// The text must be one RFC 8259 value in UTF-8. Beyond the grammar, refused are: nesting of
    /// [`DEPTH_MAX`] or more, two members of one name in one object at any depth, escapes of lone
    /// surrogates, numbers that overflow a 64-bit float, and texts of 4 GiB or more.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its offset.
    pub fn parse(bytes: Bytes) -> Result<Document, JsonError> {
        match ByteString::try_from(bytes) {
            Ok(text) => Document::parse_text(text),
            Err(error) => Err(JsonError::Utf8 { offset: error.valid_up_to() }),
        }
    }

    /// The same as [`Document::parse`], but cheaper (`benches/diff.rs`) if the text is the next version of
    /// `previous`: members that repeat it are compared, not scanned.
    ///
    /// # Errors
    ///
    /// Those of [`Document::parse`].
    pub fn parse_after(bytes: Bytes, previous: &Document) -> Result<Document, JsonError> {
        match ByteString::try_from(bytes) {
            Ok(text) => Document::scan(text, previous.side()),
            Err(error) => Err(JsonError::Utf8 { offset: error.valid_up_to() }),
        }
    }

    /// Validates a text that lives in the program.
    ///
    /// # Errors
    ///
    /// Those of [`Document::parse`].
    pub fn from_static(text: &'static str) -> Result<Document, JsonError> {
        Document::parse_text(ByteString::from_static(text))
    }

    /// Prints a value.
    ///
    /// # Errors
    ///
    /// A value built by a program may nest too deep; one that was parsed never does.
    pub fn from_value(value: &Value) -> Result<Document, JsonError> {
        Document::parse_text(ByteString::from(value.to_string()))
    }

    #[inline]
    fn parse_text(text: ByteString) -> Result<Document, JsonError> {
        Document::scan(text, Side::default())
    }

    fn scan(text: ByteString, previous: Side<'_, '_>) -> Result<Document, JsonError> {
        let mut scanner = Scanner::new(&text, DEPTH_MAX)?;
        let root = scanner.whole(previous).map_err(|error| *error)?;
        let is_object = text.as_bytes()[root[0] as usize] == b'{';
        let members = is_object.then(|| Arc::from(scanner.members.as_slice()));
        Ok(Document { text, root, members })
    }

    /// The bytes as they were given.
    pub fn bytes(&self) -> &Bytes {
        self.text.as_bytes()
    }

    /// The text as it was given, white space around the value included.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True if the value is an object.
    pub fn is_object(&self) -> bool {
        self.members.is_some()
    }

    /// The whole value, without the white space around it.
    pub fn root(&self) -> RawValue<'_> {
        RawValue::new(&self.text[self.root[0] as usize..self.root[1] as usize])
    }

    /// The top-level member of that name. Names are compared one by one; nothing is scanned.
    pub fn get(&self, name: &str) -> Option<RawValue<'_>> {
        let member = self.spans().iter().find(|member| member.is_named(&self.text, name))?;
        Some(RawValue::new(member.value(&self.text)))
    }

    /// The top-level members in their order; none if the value is not an object.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (Cow<'_, str>, RawValue<'_>)> {
        self.spans().iter().map(|member| (unescape(member.name(&self.text)), RawValue::new(member.value(&self.text))))
    }

    /// The value a pointer leads to. The first token costs no scan, each further one a scan of one
    /// container.
    pub fn pointer(&self, pointer: &Pointer) -> Option<RawValue<'_>> {
        match pointer.tokens() {
            [] => Some(self.root()),
            [name, rest @ ..] if self.is_object() => self.get(name)?.descend(rest),
            tokens => self.root().descend(tokens),
        }
    }

    /// The document as a tree. Numbers beyond 64 bits become floats.
    pub fn to_value(&self) -> Value {
        self.root().to_value()
    }

    /// A copy with bytes of its own. A small document that was sliced out of a read buffer pins all of
    /// that buffer; state that outlives its batch must not.
    #[must_use]
    pub fn detach(&self) -> Document {
        Document { text: ByteString::from(self.as_str()), root: self.root, members: self.members.clone() }
    }

    /// The bytes that a document on its own takes: its text and its spans.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.text.len() + size_of_val(self.spans())
    }

    /// The top-level members, to be walked beside those of another document.
    pub(crate) fn side(&self) -> Side<'_, '_> {
        Side { text: &self.text, members: self.spans() }
    }

    /// The spans of the top-level members.
    pub(crate) fn spans(&self) -> &[Member] {
        self.members.as_deref().unwrap_or_default()
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Document) -> bool {
        self.text == other.text
    }
}

impl Eq for Document {}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({})", self.as_str())
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Document {
    type Err = JsonError;

    fn from_str(text: &str) -> Result<Document, JsonError> {
        Document::parse_text(ByteString::from(text))
    }
}

impl From<Value> for Document {
    /// # Panics
    ///
    /// If the value nests to [`DEPTH_MAX`] or deeper, which only a value built by hand can; see
    /// [`Document::from_value`].
    fn from(value: Value) -> Document {
        Document::from_value(&value).expect("a value nests less deep than DEPTH_MAX")
    }
}

impl serde::Serialize for Document {
    /// The text itself, as [`RawValue`] does it.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.root().serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Document {
    /// The text as it stands in the input; works with `serde_json` only.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Document, D::Error> {
        let raw = Box::<serde_json::value::RawValue>::deserialize(deserializer)?;
        let text = ByteString::from(String::from(Box::<str>::from(raw)));
        Document::parse_text(text).map_err(serde::de::Error::custom)
    }
}
