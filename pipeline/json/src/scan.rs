//! The scanner: full RFC 8259 validation in one pass that leaves the members of an object behind.
//!
//! Input is a `&str`, so UTF-8 is already certain. Strings are scanned eight bytes at a time. Cost: about
//! half a nanosecond per byte of a flat row, no allocation below [`MEMBERS_INLINE`] members.

use std::borrow::Cow;
use std::collections::HashSet;

use smallvec::SmallVec;

use crate::error::{JsonError, excerpt};
use crate::escape::{has_escape, hex4, unescape};

/// Arrays and objects must nest less deep than this. It is the limit of `serde_json`, so that whatever a
/// document holds can also become a value, and it bounds the recursion of every function of this crate.
pub const DEPTH_MAX: usize = 128;

/// Members kept on the stack while scanning; twice those of a forecast.
const MEMBERS_INLINE: usize = 24;

/// Up to so many names, an object is checked for duplicates by comparing; beyond, with a hash set.
const NAMES_COMPARED_MAX: usize = 32;

/// Where a member lies: its name without the quotes, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    name: [u32; 2],
    value: [u32; 2],
}

impl Member {
    /// The name as it stands between its quotes, escapes and all.
    pub(crate) fn name<'a>(&self, text: &'a str) -> &'a str {
        &text[self.name[0] as usize..self.name[1] as usize]
    }

    /// The text of the value.
    pub(crate) fn value<'a>(&self, text: &'a str) -> &'a str {
        &text[self.value[0] as usize..self.value[1] as usize]
    }
}

/// Members of one object in their order.
pub(crate) type Members = SmallVec<[Member; MEMBERS_INLINE]>;

/// What a scan of a whole text found.
pub(crate) struct Scanned {
    /// Where the value starts and ends, without the white space around it.
    pub(crate) root: [u32; 2],
    /// The members, if the value is an object.
    pub(crate) members: Option<Members>,
}

/// Validates `text` as one JSON value of at most `depth_max - 1` nested containers.
pub(crate) fn scan(text: &str, depth_max: usize) -> Result<Scanned, JsonError> {
    let mut scanner = Scanner::new(text, depth_max)?;
    let start = scanner.space(0);
    let end = scanner.value(start, 0)?;
    scanner.end(end)?;
    let is_object = scanner.bytes[start] == b'{';
    Ok(Scanned {
        root: [start as u32, end as u32],
        members: is_object.then_some(scanner.members),
    })
}

/// The members of a validated object; none for any other value.
pub(crate) fn members(object: &str) -> Members {
    // Twice the limit: the object may come from a patch, which wraps documents of full depth.
    match scan(object, 2 * DEPTH_MAX) {
        Ok(Scanned {
            members: Some(members),
            ..
        }) => members,
        _ => Members::new(),
    }
}

/// The elements of a validated array; none for any other value.
pub(crate) fn elements(array: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let Ok(mut scanner) = Scanner::new(array, 2 * DEPTH_MAX) else {
        return found;
    };
    let open = scanner.space(0);
    if scanner.at(open) == b'[' {
        let _ = scanner.array(open, |scanner, start| {
            let end = scanner.value(start, 1)?;
            scanner.members.clear();
            found.push(&array[start..end]);
            Ok(end)
        });
    }
    found
}

/// A position in a text, with the members of the objects that are open there.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    depth_max: usize,
    /// Members of all open objects, outermost first. A nested object removes its own when it closes; the
    /// outermost leaves them for the caller.
    pub(crate) members: Members,
}

impl<'a> Scanner<'a> {
    /// A scanner of a text that 32-bit offsets can address.
    pub(crate) fn new(text: &'a str, depth_max: usize) -> Result<Self, JsonError> {
        if u32::try_from(text.len()).is_err() {
            return Err(JsonError::TooLong { len: text.len() });
        }
        Ok(Scanner {
            text,
            bytes: text.as_bytes(),
            depth_max,
            members: Members::new(),
        })
    }

    /// The byte at `at`; behind the end a zero, which no JSON text may have outside of its strings.
    #[inline(always)]
    fn at(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// The first position from `at` that is not white space.
    #[inline(always)]
    pub(crate) fn space(&self, mut at: usize) -> usize {
        while matches!(self.at(at), b' ' | b'\n' | b'\r' | b'\t') {
            at += 1;
        }
        at
    }

    /// Only white space may follow.
    pub(crate) fn end(&self, at: usize) -> Result<(), JsonError> {
        let at = self.space(at);
        if at < self.bytes.len() {
            syntax("end of text", at)
        } else {
            Ok(())
        }
    }

    /// Scans the value that starts at `at` inside of `depth` containers, and returns its end.
    pub(crate) fn value(&mut self, at: usize, depth: usize) -> Result<usize, JsonError> {
        match self.at(at) {
            b'"' => self.string(at + 1).map(|end| end + 1),
            b'-' | b'0'..=b'9' => self.number(at),
            b't' => self.literal(at, "true"),
            b'f' => self.literal(at, "false"),
            b'n' => self.literal(at, "null"),
            b'{' => self.object(at, depth),
            b'[' if depth + 1 >= self.depth_max => Err(JsonError::TooDeep { offset: at }),
            b'[' => self.array(at, |scanner, start| scanner.value(start, depth + 1)),
            _ => syntax("a value", at),
        }
    }

    /// Scans the array that opens at `open`, handing the start of each element to `element`, which returns
    /// its end.
    pub(crate) fn array(
        &mut self,
        open: usize,
        mut element: impl FnMut(&mut Self, usize) -> Result<usize, JsonError>,
    ) -> Result<usize, JsonError> {
        let mut at = self.space(open + 1);
        if self.at(at) == b']' {
            return Ok(at + 1);
        }
        loop {
            let end = element(self, at)?;
            at = self.space(end);
            match self.at(at) {
                b',' => at = self.space(at + 1),
                b']' => return Ok(at + 1),
                _ => return syntax("`,` or `]`", at),
            }
        }
    }

    /// Scans the object that opens at `open` inside of `depth` containers.
    fn object(&mut self, open: usize, depth: usize) -> Result<usize, JsonError> {
        if depth + 1 >= self.depth_max {
            return Err(JsonError::TooDeep { offset: open });
        }
        let base = self.members.len();
        let mut names = Names::default();
        let mut at = self.space(open + 1);
        if self.at(at) == b'}' {
            return Ok(at + 1);
        }
        loop {
            if self.at(at) != b'"' {
                return syntax("a member name", at);
            }
            let name = at + 1;
            let name_end = self.string(name)?;
            if names.is_duplicate(self.text, &self.members[base..], &self.text[name..name_end]) {
                return Err(JsonError::DuplicateMember {
                    name: excerpt(&unescape(&self.text[name..name_end])),
                    offset: at,
                });
            }
            at = self.space(name_end + 1);
            if self.at(at) != b':' {
                return syntax("`:`", at);
            }
            let value = self.space(at + 1);
            let value_end = self.value(value, depth + 1)?;
            self.members.push(Member {
                name: [name as u32, name_end as u32],
                value: [value as u32, value_end as u32],
            });
            at = self.space(value_end);
            match self.at(at) {
                b',' => at = self.space(at + 1),
                b'}' => break,
                _ => return syntax("`,` or `}`", at),
            }
        }
        if depth > 0 {
            self.members.truncate(base);
        }
        Ok(at + 1)
    }

    fn literal(&self, at: usize, literal: &'static str) -> Result<usize, JsonError> {
        if self.bytes[at..].starts_with(literal.as_bytes()) {
            Ok(at + literal.len())
        } else {
            syntax(literal, at)
        }
    }

    /// Scans a number (RFC 8259 section 6).
    #[inline]
    fn number(&self, start: usize) -> Result<usize, JsonError> {
        let mut at = start + usize::from(self.at(start) == b'-');
        at = match self.at(at) {
            b'0' => at + 1,
            _ => self.digits(at)?,
        };
        if self.at(at) == b'.' {
            at = self.digits(at + 1)?;
        }
        let exponent = matches!(self.at(at), b'e' | b'E');
        if exponent {
            at += 1;
            at += usize::from(matches!(self.at(at), b'+' | b'-'));
            at = self.digits(at)?;
        }
        // Without an exponent it takes more than 300 digits to leave the range of a float.
        if exponent || at - start > 300 {
            self.check_range(start, at)?;
        }
        Ok(at)
    }

    /// `serde_json` decides what is out of range, because documents must be able to become its values.
    #[cold]
    fn check_range(&self, start: usize, end: usize) -> Result<(), JsonError> {
        match serde_json::from_str::<f64>(&self.text[start..end]) {
            Ok(_) => Ok(()),
            Err(_) => Err(JsonError::NumberOutOfRange { offset: start }),
        }
    }

    /// One digit or more.
    #[inline(always)]
    fn digits(&self, start: usize) -> Result<usize, JsonError> {
        let mut at = start;
        while self.at(at).is_ascii_digit() {
            at += 1;
        }
        if at == start {
            syntax("a digit", at)
        } else {
            Ok(at)
        }
    }

    /// Scans the content of a string from behind its opening quote, and returns where its closing one is.
    #[inline]
    fn string(&self, mut at: usize) -> Result<usize, JsonError> {
        loop {
            while let Some(word) = self
                .bytes
                .get(at..)
                .and_then(|rest| rest.first_chunk::<8>())
            {
                let special = special_bytes(u64::from_le_bytes(*word));
                if special != 0 {
                    at += special.trailing_zeros() as usize / 8;
                    break;
                }
                at += 8;
            }
            match self.bytes.get(at) {
                Some(b'"') => return Ok(at),
                Some(b'\\') => at = self.escape(at)?,
                Some(0x20..) => at += 1,
                Some(_) => return syntax("an escape instead of a control character", at),
                None => return syntax("`\"`", at),
            }
        }
    }

    /// Scans one escape, a surrogate pair being one, and returns its end.
    #[cold]
    fn escape(&self, start: usize) -> Result<usize, JsonError> {
        match self.at(start + 1) {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(start + 2),
            b'u' => {
                let unit = |at| match hex4(self.bytes, at) {
                    Some(unit) => Ok(unit),
                    None => syntax("four hexadecimal digits", at),
                };
                let lone = Err(JsonError::LoneSurrogate { offset: start });
                match unit(start + 2)? {
                    0xdc00..=0xdfff => lone,
                    0xd800..=0xdbff if self.bytes[start + 6..].starts_with(b"\\u") => {
                        match unit(start + 8)? {
                            0xdc00..=0xdfff => Ok(start + 12),
                            _ => lone,
                        }
                    }
                    0xd800..=0xdbff => lone,
                    _ => Ok(start + 6),
                }
            }
            _ => syntax("an escape character", start + 1),
        }
    }
}

/// The high bit of every byte that is a quote, a backslash or a control character. Borrows may mark bytes
/// above the first such byte too, so only the lowest mark counts.
#[inline(always)]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero_bytes(word ^ (ONES * b'"' as u64));
    let backslash = zero_bytes(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & HIGH
}

/// The names of one object so far. A word of 64 marks answers nearly always; only a name whose mark is
/// taken is compared, and only an object of many members needs a set.
#[derive(Default)]
struct Names<'a> {
    marks: u64,
    escaped: bool,
    set: HashSet<Cow<'a, str>>,
}

impl<'a> Names<'a> {
    /// Adds `name` to those of `members` and says whether it was there.
    #[inline]
    fn is_duplicate(&mut self, text: &'a str, members: &[Member], name: &'a str) -> bool {
        let mark = 1 << mark(name.as_bytes());
        let taken = self.marks & mark != 0;
        self.marks |= mark;
        self.escaped |= has_escape(name);
        if !self.escaped && !taken {
            false
        } else {
            self.is_taken(text, members, name)
        }
    }

    /// Names are equal if they are after unescaping; their texts need not be.
    #[cold]
    fn is_taken(&mut self, text: &'a str, members: &[Member], name: &'a str) -> bool {
        if members.len() <= NAMES_COMPARED_MAX {
            let name = unescape(name);
            return members
                .iter()
                .any(|member| unescape(member.name(text)) == name);
        }
        for member in &members[self.set.len()..] {
            self.set.insert(unescape(member.name(text)));
        }
        self.set.contains(&unescape(name))
    }
}

/// A number below 64 from the length of a name and two of its characters.
#[inline(always)]
fn mark(name: &[u8]) -> u32 {
    let first = name.first().copied().unwrap_or(0);
    let middle = name.get(name.len() / 2).copied().unwrap_or(0);
    let mixed = u32::from(first) ^ (u32::from(middle) << 3) ^ ((name.len() as u32) << 8);
    mixed.wrapping_mul(0x9e37_79b1) >> 26
}

#[cold]
fn syntax<T>(expected: &'static str, offset: usize) -> Result<T, JsonError> {
    Err(JsonError::Syntax { expected, offset })
}
