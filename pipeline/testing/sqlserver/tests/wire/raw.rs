//! What no client of others sends on wish: packets by hand, and packets gone wrong.

use crate::session::Seen;
use crate::{start, until};
use smartpulse_stand_in::server::Options;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const LAST: u8 = 1;
const IGNORE: u8 = 2;
const RESET: u8 = 8;
/// Batches, calls and transactions begin with these: a transaction's number, of a session that has none.
const HEADERS: [u8; 22] = [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

struct Raw(TcpStream);

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn packet(kind: u8, status: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind, status];
    packet.extend(((body.len() + 8) as u16).to_be_bytes());
    packet.extend([0, 0, 1, 0]);
    packet.extend(body);
    packet
}

/// A login record with an extension that nobody acknowledges.
fn login() -> Vec<u8> {
    let texts = ["host", "sa", "Stand-in-1", "raw", "server", "", "library", "", "smartpulse"];
    let mut body = vec![0; 94];
    body[4..8].copy_from_slice(&0x7400_0004_u32.to_le_bytes());
    body[27] = 0x10;
    for (place, text) in texts.iter().enumerate() {
        let at = 36 + place * 4;
        let start = body.len() as u16;
        body[at..at + 2].copy_from_slice(&start.to_le_bytes());
        body[at + 2..at + 4].copy_from_slice(&(text.len() as u16).to_le_bytes());
        let bytes = utf16(text);
        let hidden = bytes.iter().map(|byte| byte.rotate_left(4) ^ 0xA5).collect();
        body.extend(if place == 2 { hidden } else { bytes });
    }
    // The extension's place is a pointer to a pointer.
    let start = body.len() as u16;
    body[56..58].copy_from_slice(&start.to_le_bytes());
    body[58..60].copy_from_slice(&4_u16.to_le_bytes());
    body.extend(u32::from(start + 4).to_le_bytes());
    body.extend([0x0A, 1, 0, 0, 0, 1, 0xFF]);
    let length = body.len() as u32;
    body[..4].copy_from_slice(&length.to_le_bytes());
    body
}

fn prelogin() -> Vec<u8> {
    vec![0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xFF, 0, 0, 0, 0, 0, 0, 2]
}

fn batch(text: &str) -> Vec<u8> {
    [&HEADERS[..], &utf16(text)].concat()
}

/// A call of `sp_executesql` of `echo` with an int.
fn call(value: i32) -> Vec<u8> {
    let mut body = vec![0xFF, 0xFF, 10, 0, 0, 0];
    for text in ["echo", "@a int"] {
        let bytes = utf16(text);
        body.extend([0, 0, 0xE7, 0x40, 0x1F, 9, 4, 0xD0, 0, 0x34, bytes.len() as u8, 0]);
        body.extend(bytes);
    }
    body.push(2);
    body.extend(utf16("@a"));
    body.extend([0, 0x26, 4, 4]);
    body.extend(value.to_le_bytes());
    body
}

impl Raw {
    fn connect(address: SocketAddr) -> Self {
        let mut raw = Raw(TcpStream::connect(address).unwrap());
        raw.0.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert_eq!(raw.ask(&packet(18, LAST, &prelogin()))[0], 0, "the version is first");
        let answer = raw.ask(&packet(16, LAST, &login()));
        assert!(answer.contains(&0xAD), "logged in");
        raw
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        self.answer().expect("an answer")
    }

    /// The next answer; none when the connection is gone.
    fn answer(&mut self) -> Option<Vec<u8>> {
        let mut answer = Vec::new();
        loop {
            let mut header = [0; 8];
            self.0.read_exact(&mut header).ok()?;
            assert_eq!(header[0], 4);
            let mut body = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - 8];
            self.0.read_exact(&mut body).ok()?;
            answer.extend(body);
            if header[1] & LAST != 0 {
                return Some(answer);
            }
        }
    }
}

/// The last token of an answer: an end.
fn end(answer: &[u8]) -> (u8, u16) {
    let end = &answer[answer.len() - 13..];
    (end[0], u16::from_le_bytes([end[1], end[2]]))
}

#[test]
fn a_session_is_reset_on_request_and_says_so() {
    let (server, seen) = start(Options::default());
    let mut raw = Raw::connect(server.address());
    raw.ask(&packet(14, LAST, &[&HEADERS[..], &[5, 0, 5, 0]].concat()));
    let answer = raw.ask(&packet(1, LAST | RESET, &batch("update 1")));
    assert_eq!(answer[..6], [0xE3, 3, 0, 18, 0, 0]);
    assert_eq!(*seen.log.lock().unwrap(), ["begin 5", "reset", "update 1"]);
}

#[test]
fn an_attention_without_a_request_is_acknowledged() {
    let (server, _) = start(Options::default());
    let mut raw = Raw::connect(server.address());
    let answer = raw.ask(&packet(6, LAST, &[]));
    assert_eq!((answer.len(), end(&answer)), (13, (0xFD, 0x20)));
    assert_eq!(end(&raw.ask(&packet(1, LAST, &batch("update 1")))), (0xFD, 0x10));
}

#[test]
fn an_attention_in_the_middle_of_a_message_takes_it_back() {
    let (server, seen) = start(Options::default());
    let mut raw = Raw::connect(server.address());
    raw.send(&packet(1, 0, &batch("update 1")));
    assert_eq!(end(&raw.ask(&packet(6, LAST, &[]))), (0xFD, 0x20));
    raw.send(&packet(1, LAST | IGNORE, &batch("update 2")));
    raw.ask(&packet(1, LAST, &batch("update 3")));
    assert_eq!(*seen.log.lock().unwrap(), ["update 3"]);
}

#[test]
fn two_calls_in_a_message_are_answered_in_order() {
    let (server, _) = start(Options::default());
    let mut raw = Raw::connect(server.address());
    let body = [&HEADERS[..], &call(5), &[0xFF], &call(6)].concat();
    let answer = raw.ask(&packet(3, LAST, &body));
    let rows: Vec<u8> = answer.windows(3).filter(|bytes| bytes[..2] == [0xD1, 4]).map(|bytes| bytes[2]).collect();
    assert_eq!(rows, [5, 6]);
    assert_eq!(end(&answer), (0xFE, 0));
    assert_eq!(answer.windows(3).filter(|bytes| *bytes == [0xFE, 1, 0]).count(), 1, "the first end is not the last");
}

#[test]
fn a_transaction_may_begin_where_another_ends() {
    let (server, seen) = start(Options::default());
    let mut raw = Raw::connect(server.address());
    raw.ask(&packet(14, LAST, &[&HEADERS[..], &[5, 0, 2, 0]].concat()));
    let answer = raw.ask(&packet(14, LAST, &[&HEADERS[..], &[7, 0, 0, 1, 5, 0]].concat()));
    assert_eq!(answer[3], 9, "committed");
    assert_eq!(answer[14 + 3], 8, "begun");
    raw.ask(&packet(14, LAST, &[&HEADERS[..], &[8, 0, 0, 0]].concat()));
    assert_eq!(*seen.log.lock().unwrap(), ["begin 2", "commit", "begin 5", "rollback"]);
}

#[test]
fn an_unknown_type_is_an_error_that_names_the_parameter() {
    let (server, _) = start(Options::default());
    let mut raw = Raw::connect(server.address());
    let mut body = [&HEADERS[..], &call(5)].concat();
    let place = body.len() - 7;
    body[place] = 0xF3;
    let answer = raw.ask(&packet(3, LAST, &body));
    let text = String::from_utf8_lossy(&answer).replace('\0', "");
    assert!(text.contains("Parameter 3 (\"@a\"): Data type 0xF3 is unknown."), "{text}");
    assert_eq!(end(&raw.ask(&packet(1, LAST, &batch("update 1")))), (0xFD, 0x10));
}

#[test]
fn a_message_beyond_the_limit_ends_the_connection() {
    let (server, _) = start(Options::default());
    let mut raw = Raw::connect(server.address());
    let part = packet(1, 0, &[0; 32_000]);
    let refused = (0..3000).any(|_| raw.0.write_all(&part).is_err());
    assert!(refused || raw.answer().is_none());
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[tokio::test]
async fn damaged_requests_do_no_harm_to_others() {
    let (server, seen): (_, Arc<Seen>) = start(Options::default());
    let address = server.address();
    let harmed = tokio::task::spawn_blocking(move || {
        let bulk =
            [&[0x81, 1, 0, 0, 0, 0, 0, 8, 0, 0x26, 4, 1, 97, 0, 0xD1, 4, 1, 0, 0, 0, 0xFD][..], &[0; 12]].concat();
        let requests = [
            (18, prelogin()),
            (16, login()),
            (1, batch("rows 3")),
            (3, [&HEADERS[..], &call(7)].concat()),
            (14, [&HEADERS[..], &[7, 0, 0, 1, 5, 0]].concat()),
            (7, bulk),
        ];
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
        for turn in 0..600 {
            let (kind, mut body) = requests[turn % requests.len()].clone();
            for _ in 0..=dice.below(4) {
                let place = dice.below(body.len());
                body[place] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF, dice.below(256) as u8][dice.below(7)];
            }
            body.truncate(1 + dice.below(body.len() * 2).min(body.len() - 1));
            let mut raw = match kind {
                18 => Raw(TcpStream::connect(address).unwrap()),
                16 => {
                    let mut raw = Raw(TcpStream::connect(address).unwrap());
                    raw.ask(&packet(18, LAST, &prelogin()));
                    raw
                }
                7 => {
                    let mut raw = Raw::connect(address);
                    raw.ask(&packet(1, LAST, &batch("INSERT BULK [loaded] ([int] int)")));
                    raw
                }
                _ => Raw::connect(address),
            };
            raw.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            if raw.0.write_all(&packet(kind, LAST, &body)).is_ok() {
                let _ = raw.answer();
            }
        }
    });
    harmed.await.unwrap();
    until("they are gone", || server.connections() == 0).await;
    let mut raw = Raw::connect(address);
    assert_eq!(end(&raw.ask(&packet(1, LAST, &batch("update 1")))), (0xFD, 0x10));
    assert!(seen.has("update 1"));
}
