//! Reading the bytes of a message: every read is checked, so that a malformed message is an error and not a panic.

use std::fmt;

/// A message that says what it cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub text: String,
    /// The number of the error that the client is told.
    pub number: i32,
}

impl Malformed {
    /// With the number of a stream that makes no sense (4002).
    pub fn new(text: impl Into<String>) -> Self {
        Malformed { text: text.into(), number: 4002 }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What reading gives.
pub type Read<T> = Result<T, Malformed>;

/// A place in a message.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether all has been read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        if count > self.bytes.len() {
            let text =
                "The incoming tabular data stream (TDS) protocol stream is incorrect. The stream ended unexpectedly.";
            return Err(Malformed::new(text));
        }
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        Ok(taken)
    }

    /// The next bytes, as many as the array has.
    pub fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A byte.
    pub fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, the low one first; so are all numbers here.
    pub fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of `count` bytes, without a sign.
    pub fn uint(&mut self, count: usize) -> Read<u64> {
        Ok(self.take(count)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// So many units of UTF-16.
    pub fn utf16(&mut self, units: usize) -> Read<String> {
        Ok(from_utf16(self.take(units * 2)?))
    }

    /// A text with its length in a byte before it.
    pub fn short_text(&mut self) -> Read<String> {
        let units = usize::from(self.u8()?);
        self.utf16(units)
    }

    /// A text with its length in two bytes before it.
    pub fn text(&mut self) -> Read<String> {
        let units = usize::from(self.u16()?);
        self.utf16(units)
    }

    /// Skips the headers before a request (MS-TDS 2.2.5.3): nothing in them is needed here.
    pub fn skip_headers(&mut self) -> Read<()> {
        let total = self.u32()? as usize;
        match total.checked_sub(4) {
            Some(rest) => self.take(rest).map(drop),
            None => Err(Malformed::new("The headers of a request are shorter than their own length.")),
        }
    }
}

/// Text from UTF-16, lone halves of pairs replaced.
pub fn from_utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
