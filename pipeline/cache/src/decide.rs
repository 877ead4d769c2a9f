//! What a change, an invalidation or a loaded row does to the entry of its key. Pure: the entry as it is goes
//! in, the entry as it should be comes out.
//!
//! The rule (contract 4): a patch only onto the version it was made from, a whole document if it is newer,
//! otherwise the key is loaded again. Whatever happens, an entry's version never falls.

use smartpulse_json::{Document, Patched, apply};
use std::sync::Arc;
use tokio::time::Instant;

/// What is held of a key.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// Its document.
    Document(Arc<Held>),
    /// It was deleted: nothing at or below this version may come back.
    Tombstone(i64),
}

/// A held document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub document: Document,
    pub version: i64,
    /// The newest version that is known to exist. A document below it is only served as stale.
    pub wanted: i64,
    /// When it expires.
    pub fresh_until: Instant,
    /// The generation it was known good in; see `Cache::lost`.
    pub generation: u64,
}

/// Until when, and in which generation, what is stored now is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freshness {
    pub until: Instant,
    pub generation: u64,
}

impl Held {
    pub(crate) fn new(document: Document, version: i64, freshness: Freshness) -> Self {
        Self { document, version, wanted: version, fresh_until: freshness.until, generation: freshness.generation }
    }

    /// True if it may be answered without a word.
    pub(crate) fn is_fresh(&self, now: Instant, generation: u64) -> bool {
        self.version >= self.wanted && self.generation == generation && now < self.fresh_until
    }

    /// True if all that it lacks is the patch to the very next version, which was announced.
    pub(crate) fn awaits_patch(&self, now: Instant, generation: u64) -> bool {
        self.wanted == self.version + 1 && self.generation == generation && now < self.fresh_until
    }

    fn wanting(&self, version: i64) -> Entry {
        Entry::Document(Arc::new(Self { wanted: self.wanted.max(version), ..self.clone() }))
    }
}

impl Entry {
    /// The version of the document or of the delete.
    pub(crate) fn version(&self) -> i64 {
        match self {
            Self::Document(held) => held.version,
            Self::Tombstone(version) => *version,
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Applied {
    /// The held document was patched to the change's version.
    Patched,
    /// The change's whole document is now held.
    Replaced,
    /// The key was deleted; a tombstone stands for it.
    Removed,
    /// What is held is of the same version or newer: nothing to do.
    Stale,
    /// A patch for a key of which no document is held: nothing to do.
    Absent,
    /// The change does not fit what is held, which is therefore loaded again.
    Reload,
}

impl Applied {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Patched, Self::Replaced, Self::Removed, Self::Stale, Self::Absent, Self::Reload];

    /// The name used as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Patched => "patched",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
            Self::Stale => "stale",
            Self::Absent => "absent",
            Self::Reload => "reload",
        }
    }
}

/// What a change carries, read as far as it can be without an entry.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Patch {
        previous_version: Option<i64>,
        items: &'a [u8],
    },
    Document(Document),
    Removal,
    /// A whole document that cannot be read: only the database knows it.
    Unreadable,
}

/// Offers a change. `None` in the first place leaves the entry as it is.
pub(crate) fn change(
    entry: Option<&Entry>,
    version: i64,
    content: Content<'_>,
    freshness: Freshness,
) -> (Option<Entry>, Applied) {
    let put = |document| Some(Entry::Document(Arc::new(Held::new(document, version, freshness))));
    let held = match entry {
        Some(Entry::Document(held)) => Some(held),
        Some(Entry::Tombstone(_)) | None => None,
    };
    if let Some(entry) = entry {
        if version < entry.version() {
            return (None, Applied::Stale);
        }
        if version == entry.version() {
            // The same version with other bytes is a resync: the sender has asked the database.
            return match (held, content) {
                (Some(held), Content::Document(document)) if document != held.document => {
                    (keep_wanted(put(document), held), Applied::Replaced)
                }
                _ => (None, Applied::Stale),
            };
        }
    }
    match (held, content) {
        (Some(held), Content::Document(document)) => (keep_wanted(put(document), held), Applied::Replaced),
        (None, Content::Document(document)) => (put(document), Applied::Replaced),
        (_, Content::Removal) => (Some(tombstone(version, held)), Applied::Removed),
        (None, Content::Patch { .. } | Content::Unreadable) => (None, Applied::Absent),
        (Some(held), Content::Patch { previous_version, items }) if previous_version == Some(held.version) => {
            match apply(Some(&held.document), items) {
                Ok(Patched::Document(document)) => (keep_wanted(put(document), held), Applied::Patched),
                Ok(Patched::Removed) => (Some(tombstone(version, Some(held))), Applied::Removed),
                Err(error) => {
                    tracing::warn!(version, %error, "patch failed; the document is loaded again");
                    (Some(held.wanting(version)), Applied::Reload)
                }
            }
        }
        (Some(held), Content::Patch { .. } | Content::Unreadable) => (Some(held.wanting(version)), Applied::Reload),
    }
}

/// A newer version may be known from an invalidation that overtook its change: then the document that was just
/// put is a step on the way, not yet fresh.
fn keep_wanted(entry: Option<Entry>, before: &Held) -> Option<Entry> {
    match entry {
        Some(Entry::Document(held)) if held.version < before.wanted => Some(held.wanting(before.wanted)),
        other => other,
    }
}

/// What stands for a key deleted at `version`: a newer version that is known to exist keeps its place.
fn tombstone(version: i64, before: Option<&Arc<Held>>) -> Entry {
    Entry::Tombstone(before.map_or(version, |held| version.max(held.wanted - 1)))
}

/// Tells an entry that `version` exists. An older document is no longer fresh, but kept: its patch may still
/// come, and a stale answer beats none when the database is away. A tombstone keeps out all that is older.
/// `None` leaves the entry as it is.
pub(crate) fn invalidate(entry: Option<&Entry>, version: i64) -> Option<Entry> {
    match entry {
        Some(Entry::Document(held)) if held.version < version && held.wanted < version => Some(held.wanting(version)),
        Some(Entry::Tombstone(known)) if *known < version - 1 => Some(Entry::Tombstone(version - 1)),
        _ => None,
    }
}

/// What an entry holds may not be the truth: it is fresh no more. `None` leaves the entry as it is.
pub(crate) fn doubt(entry: Option<&Entry>, now: Instant) -> Option<Entry> {
    match entry {
        Some(Entry::Document(held)) if now < held.fresh_until => {
            Some(Entry::Document(Arc::new(Held { fresh_until: now, ..Held::clone(held) })))
        }
        _ => None,
    }
}

/// What was learned of a key while something was under way for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Floor {
    /// The newest version that was heard of; 0 if none was.
    pub version: i64,
    /// True if that version is a delete.
    pub gone: bool,
}

impl Floor {
    /// The newer of two.
    pub(crate) fn max(self, other: Self) -> Self {
        if other.version > self.version { other } else { self }
    }

    /// True if what the database said is not older than what was heard meanwhile. `None` is a missing row.
    pub(crate) fn admits(self, version: Option<i64>) -> bool {
        match version {
            Some(version) => version >= self.version && !(self.gone && version == self.version),
            None => self.version == 0 || self.gone,
        }
    }
}

/// What became of a loaded row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filled {
    /// It agrees with all that is known; it is held, if there was a row.
    Kept,
    /// A newer document is held, and fresh: that is the answer.
    Newer(Arc<Held>),
    /// It is older than what is known: load again.
    Older,
}

/// Offers what the database said. `None` in the first place leaves the entry as it is.
pub(crate) fn fill(
    entry: Option<&Entry>,
    row: Option<(i64, &Document)>,
    floor: Floor,
    freshness: Freshness,
    now: Instant,
) -> (Option<Entry>, Filled) {
    if let Some(Entry::Document(held)) = entry
        && held.is_fresh(now, freshness.generation)
        && floor.version <= held.version
        && row.map_or(floor.version > 0, |(version, _)| version < held.version)
    {
        return (None, Filled::Newer(Arc::clone(held)));
    }
    if !floor.admits(row.map(|(version, _)| version)) {
        return (None, Filled::Older);
    }
    match (entry, row) {
        (Some(Entry::Tombstone(version)), Some((loaded, _))) if loaded <= *version => (None, Filled::Older),
        (Some(Entry::Document(held)), Some((version, _))) if version < held.wanted.max(held.version) => {
            (None, Filled::Older)
        }
        (_, Some((version, document))) => {
            (Some(Entry::Document(Arc::new(Held::new(document.clone(), version, freshness)))), Filled::Kept)
        }
        // Deleted, and nobody told us: the delete's version is at least the next one.
        (Some(Entry::Document(held)), None) => (Some(tombstone(held.version + 1, Some(held))), Filled::Kept),
        (Some(Entry::Tombstone(_)) | None, None) => (None, Filled::Kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn document(text: &str) -> Document {
        text.parse().unwrap()
    }

    fn fresh() -> Freshness {
        Freshness { until: Instant::now() + Duration::from_secs(60), generation: 0 }
    }

    fn held(version: i64) -> Entry {
        Entry::Document(Arc::new(Held::new(document(&format!("{{\"n\":{version}}}")), version, fresh())))
    }

    fn patch(previous: i64, items: &'static str) -> Content<'static> {
        Content::Patch { previous_version: Some(previous), items: items.as_bytes() }
    }

    /// `None`: the entry stays as it is. Otherwise its version, its document and whether it is fresh.
    fn check(
        entry: Option<&Entry>,
        version: i64,
        content: Content<'_>,
        expected: Option<(i64, &str, bool)>,
        applied: Applied,
    ) {
        let label = format!("{entry:?} offered {version} {content:?}");
        let (next, outcome) = change(entry, version, content, fresh());
        let next = next.map(|entry| match entry {
            Entry::Document(held) => {
                (held.version, held.document.as_str().to_owned(), held.is_fresh(Instant::now(), 0))
            }
            Entry::Tombstone(version) => (version, "gone".to_owned(), true),
        });
        assert_eq!(outcome, applied, "{label}");
        assert_eq!(next.as_ref().map(|(v, d, f)| (*v, d.as_str(), *f)), expected, "{label}");
    }

    const SET_101: &str = r#"[{"Op":"replace","Path":"/n","Value":101}]"#;

    #[test]
    fn a_change_is_taken_only_onto_its_own_version_or_as_a_newer_whole() {
        let entry = held(100);
        let gone = Entry::Tombstone(100);
        let whole = |n: i64| Content::Document(document(&format!("{{\"n\":{n}}}")));
        let not_fresh = Some((100, "{\"n\":100}", false));
        check(Some(&entry), 101, patch(100, SET_101), Some((101, "{\"n\":101}", true)), Applied::Patched);
        check(Some(&entry), 102, patch(101, SET_101), not_fresh, Applied::Reload);
        check(Some(&entry), 100, patch(99, SET_101), None, Applied::Stale);
        check(Some(&entry), 99, whole(99), None, Applied::Stale);
        check(Some(&entry), 100, whole(100), None, Applied::Stale);
        check(Some(&entry), 100, whole(7), Some((100, "{\"n\":7}", true)), Applied::Replaced);
        check(Some(&entry), 105, whole(105), Some((105, "{\"n\":105}", true)), Applied::Replaced);
        check(Some(&entry), 101, Content::Removal, Some((101, "gone", true)), Applied::Removed);
        check(Some(&entry), 100, Content::Removal, None, Applied::Stale);
        check(Some(&entry), 101, Content::Unreadable, not_fresh, Applied::Reload);
        check(Some(&gone), 100, whole(100), None, Applied::Stale);
        check(Some(&gone), 101, whole(101), Some((101, "{\"n\":101}", true)), Applied::Replaced);
        check(Some(&gone), 101, patch(100, SET_101), None, Applied::Absent);
        check(Some(&gone), 102, Content::Removal, Some((102, "gone", true)), Applied::Removed);
        check(None, 101, patch(100, SET_101), None, Applied::Absent);
        check(None, 101, Content::Unreadable, None, Applied::Absent);
        check(None, 101, whole(101), Some((101, "{\"n\":101}", true)), Applied::Replaced);
        check(None, 101, Content::Removal, Some((101, "gone", true)), Applied::Removed);
    }

    #[test]
    fn a_patch_that_fails_midway_leaves_the_document_whole_and_not_fresh() {
        let items = r#"[{"Op":"replace","Path":"/n","Value":1},{"Op":"remove","Path":"/absent"}]"#;
        check(Some(&held(100)), 101, patch(100, items), Some((100, "{\"n\":100}", false)), Applied::Reload);
    }

    #[test]
    fn a_patch_below_an_invalidation_is_a_step_and_not_yet_fresh() {
        let told = invalidate(Some(&held(100)), 102).unwrap();
        check(Some(&told), 101, patch(100, SET_101), Some((101, "{\"n\":101}", false)), Applied::Patched);
    }

    #[test]
    fn a_row_is_kept_unless_something_newer_is_known() {
        let now = Instant::now();
        let floor = |version, gone| Floor { version, gone };
        let wanting = invalidate(Some(&held(100)), 102);
        let expired =
            Some(Entry::Document(Arc::new(Held::new(document("{}"), 100, Freshness { until: now, generation: 0 }))));
        for (entry, row, floor, expected) in [
            (None, Some(100), floor(0, false), Filled::Kept),
            (None, Some(100), floor(101, false), Filled::Older),
            (None, Some(101), floor(101, false), Filled::Kept),
            (None, Some(100), floor(101, true), Filled::Older),
            (None, None, floor(101, true), Filled::Kept),
            (None, None, floor(1, false), Filled::Older),
            (None, None, floor(0, false), Filled::Kept),
            (wanting.clone(), Some(101), floor(0, false), Filled::Older),
            (wanting, Some(102), floor(0, false), Filled::Kept),
            (expired.clone(), Some(99), floor(0, false), Filled::Older),
            (expired.clone(), Some(100), floor(0, false), Filled::Kept),
            (expired, None, floor(0, false), Filled::Kept),
            (Some(Entry::Tombstone(100)), Some(100), floor(0, false), Filled::Older),
            (Some(Entry::Tombstone(100)), Some(101), floor(0, false), Filled::Kept),
            (Some(Entry::Tombstone(100)), None, floor(0, false), Filled::Kept),
        ] {
            let loaded = document("{}");
            let (next, filled) = fill(entry.as_ref(), row.map(|v| (v, &loaded)), floor, fresh(), now);
            assert_eq!(filled, expected, "{entry:?} {row:?} {floor:?}");
            let before = entry.as_ref().map_or(0, Entry::version);
            assert!(next.is_none_or(|e| e.version() >= before), "{entry:?} {row:?} {floor:?} lowered the version");
        }
        assert!(matches!(
            fill(Some(&held(101)), Some((100, &document("{}"))), floor(101, false), fresh(), now).1,
            Filled::Newer(_)
        ));
    }
}
