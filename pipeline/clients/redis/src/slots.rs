//! Parts of the data: a key's slot in a cluster, and names that lie in the same one.

use std::fmt::{self, Display, Formatter};

/// Slots of a cluster (Redis Cluster specification, "Key distribution model").
pub(crate) const SLOTS: u16 = 16_384;

/// What has one life: its counters are lost together, or not at all; and only within it a script may do several things in
/// one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// All that a single server has.
    Whole,
    /// A slot of a cluster.
    Slot(u16),
}

/// What stands in a name to bring it into a part: nothing, or a hash tag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag(Option<u32>);

impl Tag {
    /// That of a single server.
    pub(crate) const NONE: Self = Self(None);
}

impl Display for Tag {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |number| write!(f, "{{{number}}}:"))
    }
}

/// A tag for each slot: the smallest number whose digits lie in it.
pub(crate) struct Tags(Vec<u32>);

impl Tags {
    pub(crate) fn new() -> Self {
        const NONE: u32 = u32::MAX;
        let mut tags = vec![NONE; usize::from(SLOTS)];
        let mut missing = tags.len();
        for number in 0..NONE {
            let tag = &mut tags[usize::from(slot(number.to_string().as_bytes()))];
            if *tag == NONE {
                *tag = number;
                missing -= 1;
            }
            if missing == 0 {
                break;
            }
        }
        Self(tags)
    }

    pub(crate) fn of(&self, slot: u16) -> Tag {
        Tag(Some(self.0[usize::from(slot)]))
    }
}

/// The slot of a key: that of its hash tag if it has one.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as the specification of Redis Cluster has it (appendix A).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) ^ u16::from(*byte))])
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, other) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
        ] {
            assert_eq!(slot(key.as_bytes()), crc16(other.as_bytes()) % SLOTS, "{key}");
        }
        assert_eq!(slot(b"somekey"), 11_058);
    }

    #[test]
    fn every_slot_has_a_tag_that_lies_in_it() {
        let tags = Tags::new();
        for number in 0..SLOTS {
            assert_eq!(slot(format!("smartpulse:{}generation", tags.of(number)).as_bytes()), number);
        }
        assert_eq!(format!("smartpulse:{}generation", Tag::NONE), "smartpulse:generation");
    }
}
