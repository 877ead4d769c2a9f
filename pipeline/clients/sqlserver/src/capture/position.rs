//! Where capture is, as a text that a person can read and that belongs to one database and one table.
//!
//! - Change tracking: `ct:<incarnation>:<table>:<version>`, everything up to a version was given; and inside a page
//!   `ct:<incarnation>:<table>:<baseline>-<upto>:<version>:<key>`, of the net changes from `baseline` to `upto` those were
//!   given that come up to a key at a version.
//! - Change data capture: `cdc:<incarnation>:<instance>.<created>:<lsn>`, everything up to an LSN; and inside a
//!   transaction `cdc:...:<lsn>:<command>:<seqval>:<operation>`, everything up to one row of the change table.
//!
//! LSNs and seqvals are ten bytes and compared as such; their text is hexadecimal. The incarnation changes when the
//! database is restored, so that a log which regrew past an old position is not taken for its continuation.
//! Numbers of tables and capture instances are the server's `object_id`: a table under the same name that was created
//! anew has another one.

use smartpulse_pipeline::Position;
use std::fmt;

/// A log sequence number, or a seqval.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub [u8; 10]);

impl Lsn {
    /// What the server answers for "none" and "not for you".
    pub const ZERO: Self = Self([0; 10]);

    /// From the bytes of a `binary(10)`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The next number, as `sys.fn_cdc_increment_lsn` gives it.
    #[must_use]
    pub fn successor(self) -> Self {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (next, carry) = byte.overflowing_add(1);
            *byte = next;
            if !carry {
                return Self(bytes);
            }
        }
        self
    }

    /// The number before, as `sys.fn_cdc_decrement_lsn` gives it.
    #[must_use]
    pub fn predecessor(self) -> Self {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (next, borrow) = byte.overflowing_sub(1);
            *byte = next;
            if !borrow {
                return Self(bytes);
            }
        }
        self
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != 20 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 10];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each change has two of them in its position: in one piece, not digit by digit.
        let mut text = [0_u8; 20];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({self})")
    }
}

/// One row of a change table. The order of the fields is the order of the rows: the seqval alone is not monotonic
/// within a transaction, and one seqval may have several operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Of its transaction's commit.
    pub lsn: Lsn,
    /// `__$command_id`
    pub command: i32,
    /// `__$seqval`
    pub seqval: Lsn,
    /// `__$operation`
    pub operation: i32,
}

/// How far change tracking was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtPosition {
    /// Of which database.
    pub incarnation: String,
    /// Of which table.
    pub table: i32,
    /// How far.
    pub at: CtAt,
}

/// How far change tracking was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CtAt {
    /// All changes up to a version.
    Version(i64),
    /// A part of the net changes between two versions.
    Inside {
        /// Rows that were created after this version are told as created.
        baseline: i64,
        /// Changes beyond it are left for later.
        upto: i64,
        /// Those before this version were given, and of this version
        version: i64,
        /// those up to this key.
        key: String,
    },
}

impl CtAt {
    /// The last version up to which everything was given.
    #[must_use]
    pub fn since(&self) -> i64 {
        match self {
            Self::Version(version) => *version,
            Self::Inside { version, .. } => version.saturating_sub(1),
        }
    }
}

/// A capture instance: two of one name, one dropped before the other was made, differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId {
    /// The number of its change table.
    pub object: i32,
    /// When it was made, in milliseconds of the server's own calendar.
    pub created: i64,
}

/// How far change data capture was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdcPosition {
    /// Of which database.
    pub incarnation: String,
    /// Of which capture instance.
    pub instance: InstanceId,
    /// How far.
    pub at: CdcAt,
}

/// How far change data capture was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CdcAt {
    /// All transactions up to this one.
    Through(Lsn),
    /// All rows up to this one.
    After(Place),
}

impl CdcAt {
    /// The transaction that was read last, in full or in part.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        match self {
            Self::Through(lsn) => *lsn,
            Self::After(place) => place.lsn,
        }
    }

    /// The first LSN that must still be there for nothing to be missed.
    #[must_use]
    pub fn needs(&self) -> Lsn {
        match self {
            Self::Through(lsn) => lsn.successor(),
            Self::After(place) => place.lsn,
        }
    }
}

impl CtPosition {
    /// From what [`Self::to_position`] gave.
    ///
    /// # Errors
    /// Why it is none of change tracking.
    pub fn parse(position: &Position) -> Result<Self, String> {
        let parse = |text: &str| -> Option<Self> {
            let mut parts = text.strip_prefix("ct:")?.splitn(5, ':');
            let incarnation = parts.next()?.to_owned();
            let table = parts.next()?.parse().ok()?;
            let versions = parts.next()?;
            let at = match (parts.next(), parts.next()) {
                (None, _) => CtAt::Version(versions.parse().ok()?),
                (Some(version), Some(key)) => {
                    let (baseline, upto) = versions.split_once('-')?;
                    let (baseline, upto) = (baseline.parse().ok()?, upto.parse().ok()?);
                    CtAt::Inside { baseline, upto, version: version.parse().ok()?, key: key.to_owned() }
                }
                _ => return None,
            };
            Some(Self { incarnation, table, at })
        };
        let text = std::str::from_utf8(position.as_bytes()).ok();
        text.and_then(parse).ok_or_else(|| format!("position {position} is not one of SQL Server's change tracking"))
    }

    /// As what is stored.
    #[must_use]
    pub fn to_position(&self) -> Position {
        let (incarnation, table) = (&self.incarnation, self.table);
        Position::from(match &self.at {
            CtAt::Version(version) => format!("ct:{incarnation}:{table}:{version}"),
            CtAt::Inside { baseline, upto, version, key } => {
                format!("ct:{incarnation}:{table}:{baseline}-{upto}:{version}:{key}")
            }
        })
    }
}

impl CdcPosition {
    /// From what [`Self::to_position`] gave.
    ///
    /// # Errors
    /// Why it is none of change data capture.
    pub fn parse(position: &Position) -> Result<Self, String> {
        let parse = |text: &str| -> Option<Self> {
            let parts: Vec<&str> = text.strip_prefix("cdc:")?.split(':').collect();
            let (&[incarnation, instance, lsn], rest) = parts.split_at_checked(3)? else { return None };
            let (object, created) = instance.split_once('.')?;
            let instance = InstanceId { object: object.parse().ok()?, created: created.parse().ok()? };
            let lsn = Lsn::parse(lsn)?;
            let at = match *rest {
                [] => CdcAt::Through(lsn),
                [command, seqval, operation] => {
                    let (command, operation) = (command.parse().ok()?, operation.parse().ok()?);
                    CdcAt::After(Place { lsn, command, seqval: Lsn::parse(seqval)?, operation })
                }
                _ => return None,
            };
            Some(Self { incarnation: incarnation.to_owned(), instance, at })
        };
        let text = std::str::from_utf8(position.as_bytes()).ok();
        text.and_then(parse)
            .ok_or_else(|| format!("position {position} is not one of SQL Server's change data capture"))
    }

    /// As what is stored.
    #[must_use]
    pub fn to_position(&self) -> Position {
        let (incarnation, InstanceId { object, created }) = (&self.incarnation, self.instance);
        Position::from(match self.at {
            CdcAt::Through(lsn) => format!("cdc:{incarnation}:{object}.{created}:{lsn}"),
            CdcAt::After(Place { lsn, command, seqval, operation }) => {
                format!("cdc:{incarnation}:{object}.{created}:{lsn}:{command}:{seqval}:{operation}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn lsn(number: u64) -> Lsn {
        let mut bytes = [0; 10];
        bytes[2..].copy_from_slice(&number.to_be_bytes());
        Lsn(bytes)
    }

    #[test]
    fn positions_come_back_from_their_text() {
        for (at, text) in [
            (CtAt::Version(12), "ct:abc:7:12"),
            (CtAt::Inside { baseline: 1, upto: 9, version: 4, key: "k:1-2:é".into() }, "ct:abc:7:1-9:4:k:1-2:é"),
            (CtAt::Inside { baseline: 1, upto: 9, version: 4, key: String::new() }, "ct:abc:7:1-9:4:"),
        ] {
            let position = CtPosition { incarnation: "abc".into(), table: 7, at };
            assert_eq!(position.to_position(), Position::from(text));
            assert_eq!(CtPosition::parse(&position.to_position()), Ok(position));
        }
        let instance = InstanceId { object: 5, created: 1_700_000_000_123 };
        let place = Place { lsn: lsn(0x2a), command: 3, seqval: lsn(0xff), operation: 4 };
        for (at, rest) in [(CdcAt::Through(lsn(0x2a)), ""), (CdcAt::After(place), ":3:000000000000000000ff:4")] {
            let position = CdcPosition { incarnation: "abc".into(), instance, at };
            let text = format!("cdc:abc:5.1700000000123:0000000000000000002a{rest}");
            assert_eq!(position.to_position(), Position::from(text));
            assert_eq!(CdcPosition::parse(&position.to_position()), Ok(position));
        }
    }

    #[test]
    fn what_is_no_position_is_refused_with_its_text() {
        let texts =
            ["", "seq:1@abc", "ct:", "ct:a:1", "ct:a:x:1", "ct:a:1:1-2:3", "cdc:a:1.2:00", "cdc:a:1:00", "\u{1}"];
        for text in texts {
            let position = Position::from(text);
            assert!(CtPosition::parse(&position).is_err_and(|why| why.contains("not one of")), "{text}");
            assert!(CdcPosition::parse(&position).is_err_and(|why| why.contains("not one of")), "{text}");
        }
        let bytes = Position::from(vec![0xff, 0xfe]);
        assert!(CtPosition::parse(&bytes).is_err() && CdcPosition::parse(&bytes).is_err());
    }

    #[test]
    fn lsns_are_compared_and_counted_as_bytes() {
        // As text `9...` is above `10...`, and as 64 bits the first two bytes are lost.
        let (small, large) = (Lsn([0, 0, 0, 9, 0, 0, 0, 0, 0, 0]), Lsn([0, 0, 0, 16, 0, 0, 0, 0, 0, 0]));
        assert!(small < large);
        assert!(Lsn([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]) > Lsn([0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]));
        let edge = Lsn([0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(edge.successor(), Lsn([0, 0, 0, 2, 0, 0, 0, 0, 0, 0]));
        assert_eq!(edge.successor().predecessor(), edge);
    }

    #[test]
    fn edge_04_one_lsn_and_seqval_with_several_operations_is_ordered_by_the_whole_tuple() {
        let place = |command, seqval, operation| Place { lsn: lsn(1), command, seqval: lsn(seqval), operation };
        assert!(place(1, 5, 1) < place(1, 5, 2));
        assert!(place(1, 5, 3) < place(1, 5, 4));
        // The seqval falls while the command rises (edge 3).
        assert!(place(1, 9, 2) < place(2, 5, 2));
    }

    #[test]
    fn edge_06_the_first_lsn_that_a_position_needs() {
        let through = CdcAt::Through(lsn(7));
        assert_eq!(through.needs(), lsn(8));
        let inside = CdcAt::After(Place { lsn: lsn(7), command: 1, seqval: lsn(1), operation: 2 });
        assert_eq!(inside.needs(), lsn(7));
    }
}
