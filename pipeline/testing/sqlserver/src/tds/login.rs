//! The login record (MS-TDS 2.2.6.4), and what is answered to it.

use super::prelogin::VERSION;
use super::read::{Cursor, Malformed, Read, from_utf16};
use super::tokens;
use crate::session::Message;

/// TDS 7.2, the oldest that is spoken here: older ones have neither headers nor types without a limit.
const OLDEST: u32 = 0x7209_0002;
/// TDS 7.4.
const NEWEST: u32 = 0x7400_0004;
/// TDS 8.0: the same, within TLS from the first byte.
const STRICT: u32 = 0x0800_0000;

/// Who wants in, as the engine gets to know it.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
    /// The database asked for; empty for that of the login.
    pub database: String,
    /// The program's name.
    pub application: String,
    /// The client machine's name.
    pub host: String,
    /// The packet size that the client would like; 0 leaves it to the server.
    pub packet_bytes: u32,
    /// The protocol's version, as the client says it.
    pub version: u32,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .field("database", &self.database)
            .field("application", &self.application)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Reads a login record. Extensions that it brings are left alone: none is acknowledged.
    ///
    /// # Errors
    /// What is no login record; a version that is not spoken; a login without a password.
    pub fn read(body: &[u8]) -> Read<Self> {
        let mut from = Cursor::new(body);
        let length = from.u32()? as usize;
        if length > body.len() {
            return Err(Malformed::new("The login packet used to open the connection is structurally invalid."));
        }
        let version = from.u32()?;
        let packet_bytes = from.u32()?;
        from.take(12)?;
        let [_, second, _, _] = from.array()?;
        from.take(8)?;
        if version < OLDEST && version != STRICT {
            let text = "The login packet used to open the connection is of a version before TDS 7.2.";
            return Err(Malformed { text: text.to_owned(), number: 17_832 });
        }
        let mut place = || -> Read<&[u8]> {
            let (start, units) = (usize::from(from.u16()?), usize::from(from.u16()?));
            body.get(start..start + units * 2).or((units == 0).then_some(&[][..])).ok_or_else(|| {
                let text = "The login packet used to open the connection is structurally invalid.";
                Malformed { text: text.to_owned(), number: 17_832 }
            })
        };
        let host = from_utf16(place()?);
        let user = from_utf16(place()?);
        let password: Vec<u8> = place()?.iter().map(|byte| (byte ^ 0xA5).rotate_left(4)).collect();
        let application = from_utf16(place()?);
        let _server = place()?;
        // The extensions' place is not that of a text.
        from.take(4)?;
        let mut place = || -> Read<&[u8]> {
            let (start, units) = (usize::from(from.u16()?), usize::from(from.u16()?));
            Ok(body.get(start..start + units * 2).unwrap_or_default())
        };
        let _library = place()?;
        let _language = place()?;
        let database = from_utf16(place()?);
        if second & 0x80 != 0 {
            let text = "Login failed. The stand-in knows logins with a password only.";
            return Err(Malformed { text: text.to_owned(), number: 18_452 });
        }
        let password = from_utf16(&password);
        Ok(Login { user, password, database, application, host, packet_bytes, version })
    }
}

/// Writes the answer to a login that succeeded.
pub fn accepted(out: &mut Vec<u8>, login: &Login, database: &str, packet_bytes: usize) {
    tokens::env_text(out, 1, database, "master");
    tokens::message(out, &note(5701, 2, format!("Changed database context to '{database}'.")));
    tokens::env_bytes(out, 7, &super::text::COLLATION, &[]);
    tokens::env_text(out, 2, "us_english", "");
    tokens::message(out, &note(5703, 1, "Changed language setting to us_english.".to_owned()));
    let version = if login.version == STRICT { STRICT } else { login.version.min(NEWEST) };
    tokens::login_ack(out, version, "Microsoft SQL Server", [VERSION[0], VERSION[1], VERSION[2], VERSION[3]]);
    tokens::env_text(out, 4, &packet_bytes.to_string(), &super::packet::PACKET_BYTES_DEFAULT.to_string());
    tokens::done(out, tokens::DONE, 0, 0, 0);
}

/// Writes the answer to a login that failed.
pub fn refused(out: &mut Vec<u8>, message: &Message) {
    tokens::message(out, message);
    tokens::done(out, tokens::DONE, tokens::status::ERROR, 0, 0);
}

/// That the name or the password is wrong.
pub fn failed(user: &str) -> Message {
    error(18_456, 1, format!("Login failed for user '{user}'."))
}

/// That there is no such database.
pub fn no_database(database: &str) -> Message {
    let text = format!("Cannot open database \"{database}\" requested by the login. The login failed.");
    error(4060, 1, text)
}

fn error(number: i32, state: u8, text: String) -> Message {
    Message { number, state, class: if number == 4060 { 11 } else { 14 }, text, procedure: String::new(), line: 1 }
}

fn note(number: i32, state: u8, text: String) -> Message {
    Message { number, state, class: 0, text, procedure: String::new(), line: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_it_panic() {
        for length in 0..200 {
            for byte in [0, 1, 0x74, 254, 255] {
                let mut body = vec![byte; length];
                let _ = Login::read(&body);
                if length > 8 {
                    body[..8].copy_from_slice(&[length as u8, 0, 0, 0, 4, 0, 0, 0x74]);
                    let _ = Login::read(&body);
                }
            }
        }
    }
}
