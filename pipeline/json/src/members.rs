//! Which members of two objects correspond.
//!
//! Versions of one row nearly always have the same names in the same order, so both are walked in
//! lock-step. Only from the first name that differs on are names looked up.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::escape::unescape;
use crate::names::{Member, same_bytes};

/// Up to so many names are found by comparing; beyond, with a hash map.
const NAMES_COMPARED_MAX: usize = 32;

/// One of the two objects.
#[derive(Clone, Copy, Default)]
pub(crate) struct Side<'t, 's> {
    /// The text that the spans are offsets into.
    pub(crate) text: &'t str,
    /// The members in their order.
    pub(crate) members: &'s [Member],
}

/// Calls `visit` with the raw name and the old and new value text of every member whose text differs:
/// members of the old object in its order, then the added ones in the order of the new object.
pub(crate) fn for_each_change<'t>(
    old: Side<'t, '_>,
    new: Side<'t, '_>,
    mut visit: impl FnMut(&'t str, Option<&'t str>, Option<&'t str>),
) {
    let mut both = 0;
    for (o, n) in old.members.iter().zip(new.members) {
        if !same_bytes(o.whole(old.text), n.whole(new.text)) {
            let name = o.name(old.text);
            if !same_bytes(name.as_bytes(), n.name(new.text).as_bytes()) {
                break;
            }
            let (before, after) = (o.value(old.text), n.value(new.text));
            if !same_bytes(before.as_bytes(), after.as_bytes()) {
                visit(name, Some(before), Some(after));
            }
        }
        both += 1;
    }
    let old = Side { members: &old.members[both..], ..old };
    let new = Side { members: &new.members[both..], ..new };
    if !(old.members.is_empty() && new.members.is_empty()) {
        for_each_unordered(old, new, &mut visit);
    }
}

#[cold]
fn for_each_unordered<'t>(
    old: Side<'t, '_>,
    new: Side<'t, '_>,
    visit: &mut impl FnMut(&'t str, Option<&'t str>, Option<&'t str>),
) {
    let lookup = Lookup::new(new);
    let mut found = vec![false; new.members.len()];
    for member in old.members {
        let name = member.name(old.text);
        let before = member.value(old.text);
        match lookup.find(name) {
            None => visit(name, Some(before), None),
            Some(index) => {
                found[index] = true;
                let after = new.members[index].value(new.text);
                if before != after {
                    visit(name, Some(before), Some(after));
                }
            }
        }
    }
    for (member, found) in new.members.iter().zip(found) {
        if !found {
            visit(member.name(new.text), None, Some(member.value(new.text)));
        }
    }
}

/// Finds members by name, whatever escapes the name is written with.
enum Lookup<'t, 's> {
    Compare(Side<'t, 's>),
    Map(HashMap<Cow<'t, str>, usize>),
}

impl<'t, 's> Lookup<'t, 's> {
    fn new(side: Side<'t, 's>) -> Self {
        if side.members.len() <= NAMES_COMPARED_MAX {
            return Lookup::Compare(side);
        }
        let names = side.members.iter().map(|member| unescape(member.name(side.text)));
        Lookup::Map(names.zip(0..).collect())
    }

    fn find(&self, name: &str) -> Option<usize> {
        let name = unescape(name);
        match self {
            Lookup::Map(map) => map.get(&name).copied(),
            Lookup::Compare(side) => side.members.iter().position(|member| member.is_named(side.text, &name)),
        }
    }
}
