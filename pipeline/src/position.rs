//! Where a source is in its input.

use bytes::Bytes;
use std::fmt;

/// An opaque place in a source's input. Only the source that made it can read it: it is never compared as
/// text nor squeezed into a number here.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Position(pub Bytes);

impl Position {
    /// The bytes of the place.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<T: Into<Bytes>> From<T> for Position {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

/// Text where the bytes are printable ASCII, hexadecimal otherwise.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => f.write_str(text),
            _ => {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({self})")
    }
}
