//! The positioned YAML tree.
//!
//! Collections are shared (`Arc`), so an alias or a clone of a subtree costs one pointer, whatever its size.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A text that configuration was read from: a file, an environment variable or a `--set` argument.
pub struct SourceText {
    name: String,
    text: String,
    kind: SourceKind,
}

#[derive(Clone, PartialEq, Eq)]
enum SourceKind {
    /// Lines and columns mean something; `${file:..}` is relative to this folder.
    File { directory: PathBuf },
    /// The name says all; the text is one value and is not excerpted.
    Variable,
}

impl SourceText {
    /// A text with lines and columns, named in errors as `name`; `${file:..}` in it is relative to the
    /// folder of `name`.
    pub fn file(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        let name = name.into();
        let directory = Path::new(&name).parent().map(Path::to_path_buf).unwrap_or_default();
        Arc::new(Self { name, text: text.into(), kind: SourceKind::File { directory } })
    }

    /// A single value that has a name instead of lines, such as `environment variable SMARTPULSE__LOG__LEVEL`.
    pub fn variable(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), text: text.into(), kind: SourceKind::Variable })
    }

    /// What errors call this text: the path of a file, or the name of a variable.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the text has lines worth showing; false for environment variables and `--set`.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, SourceKind::File { .. })
    }

    /// The folder that `${file:..}` is relative to; empty (the working folder) for variables.
    pub fn directory(&self) -> &Path {
        match &self.kind {
            SourceKind::File { directory } => directory,
            SourceKind::Variable => Path::new(""),
        }
    }
}

impl fmt::Debug for SourceText {
    /// The name only: the text may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceText({})", self.name)
    }
}

/// Where something stands in a [`SourceText`].
#[derive(Clone)]
pub struct Span {
    /// The text it stands in.
    pub source: Arc<SourceText>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// First byte.
    pub offset: u32,
    /// Length in bytes; 0 points between two characters.
    pub len: u32,
}

impl Span {
    /// The whole of a variable, or the start of a file.
    pub fn start_of(source: &Arc<SourceText>) -> Self {
        let len = if source.is_file() { 0 } else { u32::try_from(source.text.len()).unwrap_or(u32::MAX) };
        Self { source: Arc::clone(source), line: 1, column: 1, offset: 0, len }
    }

    /// One past the last byte.
    pub fn end(&self) -> u32 {
        self.offset + self.len
    }
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.offset == other.offset && self.len == other.len
    }
}

impl Eq for Span {}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_file() {
            write!(f, "{}:{}:{}", self.source.name, self.line, self.column)
        } else {
            f.write_str(&self.source.name)
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One value of a YAML document, with its position.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value stands (for an alias: where the anchor was defined).
    pub span: Span,
    /// The value.
    pub value: NodeValue,
}

/// The three kinds of YAML value.
#[derive(Clone, Debug)]
pub enum NodeValue {
    /// Text whose type is decided by who reads it.
    Scalar(Scalar),
    /// A list.
    Sequence(Arc<Vec<Node>>),
    /// A mapping, in the order written.
    Mapping(Arc<Mapping>),
}

/// A scalar before it has a type.
#[derive(Clone)]
pub struct Scalar {
    /// The text after unquoting and interpolation.
    pub text: Arc<str>,
    /// How it was written.
    pub style: Style,
    /// Where the text came from.
    pub origin: Origin,
}

impl fmt::Debug for Scalar {
    /// Text from the environment or a file may be a secret and is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Literal | Origin::Fallback => write!(f, "{:?}", self.text),
            Origin::Outside => f.write_str("(from outside)"),
            Origin::Unresolved => f.write_str("(unresolved)"),
        }
    }
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bare: may become a number, a boolean or null where one is wanted.
    Plain,
    /// In quotes or as a block: a string, unless its text was interpolated.
    Quoted,
}

/// Where the text of a scalar came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Written in the file as it is.
    Literal,
    /// Interpolated, but only from defaults (`${env:NAME:-default}`), which stand in the file too.
    Fallback,
    /// At least partly from the environment or another file: the only origin a secret may have.
    Outside,
    /// The interpolation failed and was reported; readers skip the value without a second complaint.
    Unresolved,
}

/// The entries of a mapping, in the order written; keys are unique.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    /// The entries.
    pub entries: Vec<Entry>,
}

/// One key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Node,
}

/// The key of an entry.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its text.
    pub name: Arc<str>,
    /// Where it stands.
    pub span: Span,
}

impl Mapping {
    /// The entry of that key. Linear: mappings of settings are short.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| &*entry.key.name == name)
    }

    /// A copy without the named keys.
    pub fn without(&self, names: &[&str]) -> Self {
        let entries = self.entries.iter().filter(|entry| !names.contains(&&*entry.key.name)).cloned().collect();
        Self { entries }
    }
}

impl Node {
    /// A node that holds a mapping.
    pub fn mapping(span: Span, mapping: Mapping) -> Self {
        Self { span, value: NodeValue::Mapping(Arc::new(mapping)) }
    }

    /// The entries, if this is a mapping.
    pub fn as_mapping(&self) -> Option<&Mapping> {
        match &self.value {
            NodeValue::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// The items, if this is a list.
    pub fn as_sequence(&self) -> Option<&[Node]> {
        match &self.value {
            NodeValue::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The scalar, if this is one.
    pub fn as_scalar(&self) -> Option<&Scalar> {
        match &self.value {
            NodeValue::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The text, if this is a scalar that is not null.
    pub fn as_text(&self) -> Option<&str> {
        self.as_scalar().filter(|_| !self.is_null()).map(|scalar| &*scalar.text)
    }

    /// Whether this is a bare `null`, `~` or nothing at all.
    pub fn is_null(&self) -> bool {
        self.as_scalar().is_some_and(|scalar| {
            scalar.style == Style::Plain && matches!(&*scalar.text, "" | "~" | "null" | "Null" | "NULL")
        })
    }

    /// Whether this is nothing at all, as in `key:` with only comments below it.
    pub fn is_empty(&self) -> bool {
        self.is_null() && self.as_scalar().is_some_and(|scalar| scalar.text.is_empty())
    }
}
