//! The members of one object: where they lie, and whether their names differ.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::escape::unescape;

/// Up to so many names, an object is checked for duplicates by comparing; beyond, with a hash set.
const NAMES_COMPARED_MAX: usize = 32;

/// The bit of a name's end that says that the name is written with escapes.
const ESCAPED: u32 = 1 << 31;

/// Where a member lies: its name without the quotes, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: [u32; 2],
    pub(crate) value: [u32; 2],
}

impl Member {
    /// The longest text that spans can address, one bit being taken.
    pub(crate) const OFFSET_MAX: usize = (ESCAPED - 1) as usize;

    /// The span of a name.
    #[inline]
    pub(crate) fn name_span(start: usize, end: usize, escaped: bool) -> [u32; 2] {
        [start as u32, end as u32 | if escaped { ESCAPED } else { 0 }]
    }

    /// Where the closing quote of the name is.
    #[inline]
    pub(crate) fn name_end(&self) -> usize {
        (self.name[1] & !ESCAPED) as usize
    }

    /// The name as it stands between its quotes, escapes and all.
    #[inline]
    pub(crate) fn name<'a>(&self, text: &'a str) -> &'a str {
        &text[self.name[0] as usize..self.name_end()]
    }

    /// True if the name is written with escapes.
    #[inline]
    pub(crate) fn name_is_escaped(&self) -> bool {
        self.name[1] & ESCAPED != 0
    }

    /// True if `name` is the name of this member, whatever it is written like.
    #[inline]
    pub(crate) fn is_named(&self, text: &str, name: &str) -> bool {
        let raw = self.name(text);
        if self.name_is_escaped() { unescape(raw) == name } else { raw == name }
    }

    /// The text of the value.
    #[inline]
    pub(crate) fn value<'a>(&self, text: &'a str) -> &'a str {
        &text[self.value[0] as usize..self.value[1] as usize]
    }

    /// The bytes from the name to the end of the value, without the opening quote.
    #[inline]
    pub(crate) fn whole<'a>(&self, text: &'a str) -> &'a [u8] {
        &text.as_bytes()[self.name[0] as usize..self.value[1] as usize]
    }

    /// True if this member of `text` is also what `bytes` have at `at`, where a member starts.
    #[inline(always)]
    pub(crate) fn stands_at(&self, at: usize, text: &str, bytes: &[u8]) -> bool {
        let whole = &text.as_bytes()[self.name[0] as usize - 1..self.value[1] as usize];
        // What follows must end the value: 12 is not what stands in 123.
        let next = bytes.get(at + whole.len());
        matches!(next, Some(b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t'))
            && same_bytes(&bytes[at..at + whole.len()], whole)
    }

    /// True if the name of this member of `text` is also what `bytes` have at `at`.
    #[inline(always)]
    pub(crate) fn name_stands_at(&self, at: usize, text: &str, bytes: &[u8]) -> bool {
        let quoted = &text.as_bytes()[self.name[0] as usize - 1..=self.name_end()];
        bytes.get(at..at + quoted.len()).is_some_and(|found| same_bytes(found, quoted))
    }

    /// The same member where its opening quote is at `at`.
    #[inline]
    pub(crate) fn moved_to(&self, at: usize) -> Member {
        // The sum is right whichever way the member moved, and never reaches the bit for escapes.
        let distance = (at as u32 + 1).wrapping_sub(self.name[0]);
        Member {
            name: self.name.map(|offset| offset.wrapping_add(distance)),
            value: self.value.map(|offset| offset.wrapping_add(distance)),
        }
    }
}

/// `a == b` without a call: members are short, and comparing them is most of what a diff does.
#[inline(always)]
pub(crate) fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((a_blocks, a_tail), (b_blocks, b_tail)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    if a_blocks.iter().zip(b_blocks).any(|(a, b)| a != b) {
        return false;
    }
    // The last block may overlap the one before: that costs less than going through the tail.
    if !a_blocks.is_empty() {
        a.last_chunk::<16>() == b.last_chunk::<16>()
    } else if a_tail.len() >= 8 {
        a.first_chunk::<8>() == b.first_chunk::<8>() && a.last_chunk::<8>() == b.last_chunk::<8>()
    } else if a_tail.len() >= 4 {
        a.first_chunk::<4>() == b.first_chunk::<4>() && a.last_chunk::<4>() == b.last_chunk::<4>()
    } else {
        a_tail.iter().zip(b_tail).all(|(a, b)| a == b)
    }
}

/// The names of one object so far. A word of marks answers nearly always; only a name whose mark is taken is
/// compared, and only an object of many members needs a set.
pub(crate) struct Names<'a> {
    marks: u64,
    escaped: bool,
    set: Option<HashSet<Cow<'a, str>>>,
}

impl<'a> Names<'a> {
    /// The names of `members`.
    #[inline]
    pub(crate) fn of(text: &'a str, members: &[Member]) -> Names<'a> {
        let marks = members.iter().fold(0, |marks, member| marks | mark(member.name(text)));
        let escaped = members.iter().any(Member::name_is_escaped);
        Names { marks, escaped, set: None }
    }

    /// Adds the name that lies at `name` to those of `members`, and says whether it was there.
    #[inline]
    pub(crate) fn is_taken(&mut self, text: &'a str, members: &[Member], name: [u32; 2]) -> bool {
        let name = Member { name, value: [0, 0] };
        let mark = mark(name.name(text));
        let new = self.marks & mark == 0;
        self.marks |= mark;
        self.escaped |= name.name_is_escaped();
        if new && !self.escaped { false } else { self.is_among(text, members, name) }
    }

    /// Names are equal if they are after unescaping; their texts need not be.
    #[inline(never)]
    fn is_among(&mut self, text: &'a str, members: &[Member], name: Member) -> bool {
        if members.len() <= NAMES_COMPARED_MAX {
            let name = if name.name_is_escaped() { unescape(name.name(text)) } else { Cow::Borrowed(name.name(text)) };
            return members.iter().any(|member| member.is_named(text, &name));
        }
        let set = self.set.get_or_insert_default();
        for member in &members[set.len()..] {
            set.insert(unescape(member.name(text)));
        }
        set.contains(&unescape(name.name(text)))
    }
}

/// One of 64 bits, from the length of a name and two of its characters.
#[inline(always)]
fn mark(name: &str) -> u64 {
    let name = name.as_bytes();
    let first = name.first().copied().unwrap_or(0);
    let middle = name.get(name.len() / 2).copied().unwrap_or(0);
    let mixed = u32::from(first) ^ (u32::from(middle) << 8) ^ ((name.len() as u32) << 16);
    1 << (mixed.wrapping_mul(0x9e37_79b1) >> 26)
}
