//! YAML text -> tree of nodes, within limits.
//!
//! What is refused, and why: tags and merge keys (they make a file mean something other than it says),
//! keys that are not strings, duplicate keys, more than one document. Aliases are allowed: they share the
//! anchored subtree, but count in full against the limits, since every reader walks them in full.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use crate::diagnostics::{Diagnostics, Problem};
use crate::interpolate::{Lookup, interpolate};
use crate::node::{Entry, Key, Mapping, Node, NodeValue, Origin, Scalar, SourceText, Span, Style};
use crate::scalar::is_string_key;

/// The longest text that is read. A pipeline of a hundred components has some 20 KiB.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// The deepest nesting of lists and mappings. Real files have six levels; readers recurse, so this also
/// bounds the stack.
pub const DEPTH_MAX: usize = 64;

/// The most values in one text, aliases counted as often as they are used: bounds the time of a check.
pub const NODES_MAX: usize = 50_000;

/// The most text in all scalars together after aliases and interpolation: bounds the memory of a check.
pub const EXPANDED_BYTES_MAX: usize = 4 << 20;

impl SourceText {
    /// Reads a file, named in errors by its path as given.
    ///
    /// # Errors
    /// A problem without position when the file cannot be read, is too long or is not UTF-8.
    pub fn read(path: &Path) -> Result<Arc<Self>, Problem> {
        let name = path.display().to_string();
        let unreadable = |error: &std::io::Error| {
            Problem::new(format!("cannot read {name}: {error}")).help("check the path and its permissions")
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        file.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
        let source = match String::from_utf8(bytes) {
            Ok(text) => SourceText::file(name, text),
            Err(error) if error.as_bytes().len() > TEXT_BYTES_MAX => {
                SourceText::file(name, String::from_utf8_lossy(error.as_bytes()))
            }
            Err(_) => {
                return Err(Problem::new(format!("{name} is not UTF-8 text")).help("save it with encoding UTF-8"));
            }
        };
        Ok(source)
    }
}

/// Reads one YAML document into a tree, with interpolation done.
///
/// `None` when there is no tree at all (syntax error, limit exceeded, empty text); problems that leave a
/// tree (a duplicate key, a missing variable) are reported and reading goes on.
pub fn read_yaml(source: &Arc<SourceText>, lookup: Lookup<'_>, diagnostics: &mut Diagnostics) -> Option<Node> {
    diagnostics.order(source);
    if source.text().len() > TEXT_BYTES_MAX {
        let problem = Problem::new(format!("the text is longer than {TEXT_BYTES_MAX} bytes"));
        diagnostics.push(problem.at(&Span::start_of(source)).help("split it into several files"));
        return None;
    }
    if let Some(problem) = too_many_marks(source) {
        diagnostics.push(problem);
        return None;
    }
    let mut reader = Reader::new(source, lookup, diagnostics);
    match reader.read() {
        Ok(root) => Some(root),
        Err(Stop(problem)) => {
            diagnostics.push(*problem);
            None
        }
    }
}

/// The parser holds all tokens of a `[..]` or `{..}` before it gives the first event, so that a list of a
/// megabyte would take 200 MB before its values could be counted. Each value in such a list needs one of
/// these marks, so counting them first refuses nothing that [`NODES_MAX`] would not, except texts inside
/// which (in a block of JSON, say) there are as many.
fn too_many_marks(source: &Arc<SourceText>) -> Option<Problem> {
    let marks = source.text().bytes().enumerate().filter(|(_, byte)| b",[{".contains(byte));
    let (at, _) = marks.skip(NODES_MAX).take(1).next()?;
    let before = &source.text()[..at];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let span = Span {
        source: Arc::clone(source),
        line: before.bytes().filter(|byte| *byte == b'\n').count() as u32 + 1,
        column: before[line_start..].chars().count() as u32 + 1,
        offset: at as u32,
        len: 1,
    };
    let problem = Problem::new(format!("more than {NODES_MAX} of `,`, `[` and `{{`: too many values"));
    Some(problem.at(&span).help("split the file"))
}

/// A problem after which there is no tree.
struct Stop(Box<Problem>);

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

/// How much a finished subtree counts.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
    /// Levels of lists and mappings.
    height: usize,
}

/// A list or mapping being read.
struct Frame {
    span: Span,
    anchor: usize,
    size: Size,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, seen: HashMap<Arc<str>, u32>, key: PendingKey },
}

enum PendingKey {
    /// The next node is a key.
    Wanted,
    /// The next node is the value of this key.
    Read(Key),
    /// The next node is the value of a key that was refused: it is read and dropped.
    Refused,
}

struct Reader<'a> {
    source: &'a Arc<SourceText>,
    lookup: Lookup<'a>,
    diagnostics: &'a mut Diagnostics,
    /// Byte offset of every character, for the parser counts characters; `None` when the text is ASCII.
    byte_offsets: Option<Vec<u32>>,
    frames: Vec<Frame>,
    anchors: HashMap<usize, (Node, Size)>,
    total: Size,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Arc<SourceText>, lookup: Lookup<'a>, diagnostics: &'a mut Diagnostics) -> Self {
        let text = source.text();
        let byte_offsets = (!text.is_ascii())
            .then(|| text.char_indices().map(|(at, _)| at as u32).chain([text.len() as u32]).collect());
        Self {
            source,
            lookup,
            diagnostics,
            byte_offsets,
            frames: Vec::new(),
            anchors: HashMap::new(),
            total: Size::default(),
        }
    }

    fn read(&mut self) -> Result<Node, Stop> {
        let source = Arc::clone(self.source);
        let mut parser = Parser::new_from_str(source.text());
        let mut root = None;
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, at) = event.map_err(|error| self.syntax(&error))?;
            let span = self.span(at);
            let finished = match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let problem = Problem::new("a second YAML document starts here").at(&span);
                        return Err(problem.help("put it into a file of its own").into());
                    }
                    None
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.refuse_tag(tag.is_some(), &span);
                    self.scalar(&text, style, anchor, span)?
                }
                Event::SequenceStart(anchor, tag) => {
                    self.refuse_tag(tag.is_some(), &span);
                    self.open(span, anchor, Content::Sequence(Vec::new()))?;
                    None
                }
                Event::MappingStart(anchor, tag) => {
                    self.refuse_tag(tag.is_some(), &span);
                    let content =
                        Content::Mapping { entries: Vec::new(), seen: HashMap::new(), key: PendingKey::Wanted };
                    self.open(span, anchor, content)?;
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(&span)?,
                Event::Alias(anchor) => self.alias(anchor, &span)?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => None,
            };
            root = finished.or(root);
        }
        match root {
            Some(root) if !root.is_empty() => Ok(root),
            _ => Err(Problem::new("there is nothing in this text")
                .at(&Span::start_of(self.source))
                .help("a configuration is a YAML mapping such as `name: my-pipeline`")
                .into()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, mut span: Span) -> Result<Option<Node>, Stop> {
        let style = if style == ScalarStyle::Plain { Style::Plain } else { Style::Quoted };
        if let Some(Frame { content: Content::Mapping { key: key @ PendingKey::Wanted, seen, .. }, .. }) =
            self.frames.last_mut()
        {
            let name: Arc<str> = text.into();
            let problem = if style == Style::Plain && text == "<<" {
                let problem = Problem::new("merge keys (`<<`) are not supported");
                Some(problem.help("write the keys out, or use an alias for a whole value"))
            } else if style == Style::Plain && !is_string_key(text) {
                let problem = Problem::new(format!("the key `{text}` is not a string"));
                Some(problem.help(format!("quote it: `\"{text}\":`")))
            } else if let Some(line) = seen.get(&name) {
                let problem = Problem::new(format!("duplicate key `{name}`"));
                Some(problem.help(format!("remove one of the two; the first is on line {line}")))
            } else {
                None
            };
            if let Some(problem) = problem {
                *key = PendingKey::Refused;
                let parent = self.path();
                let path = if parent.is_empty() { text.to_owned() } else { format!("{parent}.{text}") };
                self.diagnostics.push(problem.at(&span).path(path));
            } else {
                seen.insert(Arc::clone(&name), span.line);
                *key = PendingKey::Read(Key { name, span });
            }
            return Ok(None);
        }
        // Nothing at all has no place of its own: the parser names the next token's.
        if text.is_empty()
            && span.len == 0
            && let Some(Frame { content: Content::Mapping { key: PendingKey::Read(key), .. }, .. }) = self.frames.last()
        {
            span = key.span.clone();
        }
        let (text, origin) = self.fill_in(text, &span);
        let size = Size { nodes: 1, bytes: text.len(), height: 0 };
        self.count(size, &span)?;
        let node = Node { span, value: NodeValue::Scalar(Scalar { text, style, origin }) };
        Ok(self.attach(node, size, anchor))
    }

    fn fill_in(&mut self, text: &str, span: &Span) -> (Arc<str>, Origin) {
        match interpolate(text, self.source, self.lookup) {
            Ok(None) => (text.into(), Origin::Literal),
            Ok(Some((text, origin))) => (text.into(), origin),
            Err(failures) => {
                for failure in failures {
                    let problem = Problem::new(failure.message).at(span).path(self.path()).help(failure.help);
                    self.diagnostics.push(problem);
                }
                ("".into(), Origin::Unresolved)
            }
        }
    }

    fn open(&mut self, span: Span, anchor: usize, content: Content) -> Result<(), Stop> {
        if self.frames.len() >= DEPTH_MAX {
            return Err(self.too_deep(&span));
        }
        let size = Size { nodes: 1, bytes: 0, height: 1 };
        self.count(size, &span)?;
        self.frames.push(Frame { span, anchor, size, content });
        Ok(())
    }

    fn close(&mut self, end: &Span) -> Result<Option<Node>, Stop> {
        let Some(mut frame) = self.frames.pop() else {
            return Err(Problem::new("a list or mapping ends that never began").at(end).into());
        };
        frame.span.len = end.end().max(frame.span.end()) - frame.span.offset;
        let value = match frame.content {
            Content::Sequence(items) => NodeValue::Sequence(Arc::new(items)),
            Content::Mapping { entries, .. } => NodeValue::Mapping(Arc::new(Mapping { entries })),
        };
        Ok(self.attach(Node { span: frame.span, value }, frame.size, frame.anchor))
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Option<Node>, Stop> {
        let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
            let problem = Problem::new("this alias refers to the value it stands in").at(span).path(self.path());
            return Err(problem.help("write the value out").into());
        };
        if self.frames.len() + size.height > DEPTH_MAX {
            return Err(self.too_deep(span));
        }
        self.count(size, span)?;
        if let Some(Frame { content: Content::Mapping { key: key @ PendingKey::Wanted, .. }, .. }) =
            self.frames.last_mut()
        {
            *key = PendingKey::Refused;
            let problem = Problem::new("an alias cannot be a key").at(span).path(self.path());
            self.diagnostics.push(problem.help("write the key out"));
            return Ok(None);
        }
        Ok(self.attach(node, size, 0))
    }

    /// Puts a finished node where it belongs; gives it back when it is the root.
    fn attach(&mut self, node: Node, size: Size, anchor: usize) -> Option<Node> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(frame) = self.frames.last_mut() else {
            return Some(node);
        };
        frame.size.nodes += size.nodes;
        frame.size.bytes += size.bytes;
        frame.size.height = frame.size.height.max(size.height + 1);
        match &mut frame.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { entries, key, .. } => match std::mem::replace(key, PendingKey::Wanted) {
                PendingKey::Read(key) => entries.push(Entry { key, value: node }),
                PendingKey::Refused => {}
                PendingKey::Wanted => {
                    *key = PendingKey::Refused;
                    let path = self.path();
                    let problem = Problem::new("a list or mapping cannot be a key").at(&node.span).path(path);
                    self.diagnostics.push(problem.help("use a string; quote text that starts with `{` or `[`"));
                }
            },
        }
        None
    }

    fn count(&mut self, size: Size, span: &Span) -> Result<(), Stop> {
        self.total.nodes += size.nodes;
        self.total.bytes += size.bytes;
        let too_much = if self.total.nodes > NODES_MAX {
            format!("more than {NODES_MAX} values")
        } else if self.total.bytes > EXPANDED_BYTES_MAX {
            format!("more than {EXPANDED_BYTES_MAX} bytes of text")
        } else {
            return Ok(());
        };
        let problem = Problem::new(format!("the document grows to {too_much} here")).at(span);
        Err(problem.help("aliases count as often as they are used: repeat less, or split the file").into())
    }

    fn too_deep(&self, span: &Span) -> Stop {
        let message = format!("lists and mappings are nested deeper than {DEPTH_MAX} levels");
        Problem::new(message).at(span).help("flatten the document").into()
    }

    fn refuse_tag(&mut self, tagged: bool, span: &Span) {
        if tagged {
            let problem = Problem::new("YAML tags (`!..`) are not supported").at(span).path(self.path());
            self.diagnostics.push(problem.help("remove it; types follow from what is expected, quotes make a string"));
        }
    }

    fn syntax(&self, error: &ScanError) -> Stop {
        let marker = error.marker();
        // The scanner runs ahead of the events in `[[[[..` and stops at a limit of its own.
        if error.info().contains("recursion limit") {
            return self.too_deep(&self.span(saphyr_parser::Span::empty(*marker)));
        }
        let problem = Problem::new(format!("not valid YAML: {}", error.info()));
        problem.at(&self.span(saphyr_parser::Span::empty(*marker))).into()
    }

    /// The config path of the value being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames {
            match &frame.content {
                Content::Sequence(items) => path.push_str(&format!("[{}]", items.len())),
                Content::Mapping { key: PendingKey::Read(key), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&key.name);
                }
                Content::Mapping { .. } => {}
            }
        }
        path
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let text = self.source.text();
        let byte = |at: usize| match &self.byte_offsets {
            Some(offsets) => offsets[at.min(offsets.len() - 1)],
            None => at.min(text.len()) as u32,
        };
        let (start, end) = (byte(span.start.index()), byte(span.end.index()));
        // The parser counts trailing blanks and line breaks to the token; an underline should not.
        let covered = text.get(start as usize..end.max(start) as usize).unwrap_or_default();
        Span {
            source: Arc::clone(self.source),
            line: span.start.line() as u32,
            column: span.start.col() as u32 + 1,
            offset: start,
            len: covered.trim_end().len() as u32,
        }
    }
}
