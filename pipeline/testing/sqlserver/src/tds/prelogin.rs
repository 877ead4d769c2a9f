//! The first words of a connection (MS-TDS 2.2.6.5): who is there, and whether to encrypt.

use super::read::{Malformed, Read};

/// The version that the stand-in says it is, as the engine says it in `@@VERSION`: SQL Server 2017, 14.0.1000.169.
pub const VERSION: [u8; 6] = [14, 0, 0x03, 0xE8, 0, 0xA9];

/// What one side says of encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// The login only.
    Off,
    /// All.
    On,
    /// There is none.
    NotSupported,
    /// All, or nothing.
    Required,
}

/// What the server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Nothing.
    NotSupported,
    /// What the client asks for: at least the login is encrypted, unless the client cannot. As SQL Server comes.
    #[default]
    Supported,
    /// A client that does not encrypt is turned away.
    Required,
}

/// What a client says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prelogin {
    /// What it wants encrypted.
    pub encryption: Encryption,
    /// Whether it speaks of federated authentication: it then wants an answer to that.
    pub federated: bool,
}

/// What the connection does after both have spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreed {
    /// All in the clear.
    Clear,
    /// The login record is encrypted, nothing else.
    LoginOnly,
    /// All is encrypted.
    All,
    /// They do not come together.
    Nothing,
}

const ENCRYPTION: u8 = 1;
const FEDERATED: u8 = 6;
const END: u8 = 0xFF;

impl Prelogin {
    /// Reads what a client says.
    ///
    /// # Errors
    /// An option that is not where it should be.
    pub fn read(body: &[u8]) -> Read<Self> {
        let mut says = Prelogin { encryption: Encryption::NotSupported, federated: false };
        for option in body.chunks(5) {
            match *option {
                [END, ..] => return Ok(says),
                [token, a, b, c, d] => {
                    let start = usize::from(u16::from_be_bytes([a, b]));
                    let length = usize::from(u16::from_be_bytes([c, d]));
                    let data = body.get(start..start + length).ok_or_else(cut_short)?;
                    match (token, data) {
                        (ENCRYPTION, [byte, ..]) => says.encryption = encryption(*byte)?,
                        (FEDERATED, [byte, ..]) => says.federated = *byte != 0,
                        _ => {}
                    }
                }
                _ => return Err(cut_short()),
            }
        }
        Err(cut_short())
    }
}

fn cut_short() -> Malformed {
    Malformed::new("The first message of the connection is cut short.")
}

fn encryption(byte: u8) -> Read<Encryption> {
    // The highest bits ask for a client's certificate, which is not looked at.
    match byte & 0x1F {
        0 => Ok(Encryption::Off),
        1 => Ok(Encryption::On),
        2 => Ok(Encryption::NotSupported),
        3 => Ok(Encryption::Required),
        other => Err(Malformed::new(format!("Encryption {other} is unknown."))),
    }
}

/// What the server says, and what comes of it.
pub fn negotiate(client: Encryption, server: TlsMode) -> (Encryption, Agreed) {
    match (client, server) {
        (Encryption::On | Encryption::Required, TlsMode::NotSupported) => (Encryption::NotSupported, Agreed::Nothing),
        (_, TlsMode::NotSupported) => (Encryption::NotSupported, Agreed::Clear),
        (Encryption::NotSupported, TlsMode::Supported) => (Encryption::NotSupported, Agreed::Clear),
        (Encryption::NotSupported, TlsMode::Required) => (Encryption::Required, Agreed::Nothing),
        (Encryption::Off, TlsMode::Supported) => (Encryption::Off, Agreed::LoginOnly),
        (Encryption::Off, TlsMode::Required) => (Encryption::Required, Agreed::All),
        (Encryption::On | Encryption::Required, _) => (Encryption::On, Agreed::All),
    }
}

/// What the server says, as bytes.
pub fn answer(encryption: Encryption, federated: bool) -> Vec<u8> {
    let byte = match encryption {
        Encryption::Off => 0,
        Encryption::On => 1,
        Encryption::NotSupported => 2,
        Encryption::Required => 3,
    };
    let mut options: Vec<(u8, &[u8])> =
        vec![(0, &VERSION), (ENCRYPTION, std::slice::from_ref(&byte)), (2, &[0]), (4, &[0])];
    if federated {
        options.push((FEDERATED, &[0]));
    }
    let mut start = options.len() * 5 + 1;
    let mut out = Vec::new();
    for (token, data) in &options {
        out.push(*token);
        out.extend_from_slice(&(start as u16).to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        start += data.len();
    }
    out.push(END);
    out.extend(options.iter().flat_map(|(_, data)| data.iter()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_can_be_read() {
        for said in [Encryption::Off, Encryption::On, Encryption::NotSupported, Encryption::Required] {
            let read = Prelogin::read(&answer(said, false)).unwrap();
            assert_eq!(read, Prelogin { encryption: said, federated: false });
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for length in 0..64 {
            for byte in [0, 1, 6, 17, 254, 255] {
                let _ = Prelogin::read(&vec![byte; length]);
            }
        }
    }

    #[test]
    fn who_encrypts_what() {
        assert_eq!(negotiate(Encryption::Off, TlsMode::Supported).1, Agreed::LoginOnly);
        assert_eq!(negotiate(Encryption::Off, TlsMode::Required), (Encryption::Required, Agreed::All));
        assert_eq!(negotiate(Encryption::Required, TlsMode::Supported), (Encryption::On, Agreed::All));
        assert_eq!(negotiate(Encryption::On, TlsMode::NotSupported).1, Agreed::Nothing);
        assert_eq!(negotiate(Encryption::NotSupported, TlsMode::Required).1, Agreed::Nothing);
    }
}
