//! Packets: the frame that every message travels in (MS-TDS 2.2.3).
//!
//! A message is cut into packets of the negotiated size, the last one marked; a reader puts it together again. What a
//! client may send is bounded, and nonsense ends the connection, never the process.

use bytes::{Buf, BytesMut};
use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Every packet's header.
pub const HEADER_BYTES: usize = 8;
/// The packet size until another is agreed on, and that of servers as they come.
pub const PACKET_BYTES_DEFAULT: usize = 4096;
/// The smallest packet size that the protocol knows.
pub const PACKET_BYTES_MIN: usize = 512;
/// The largest packet size that the protocol knows.
pub const PACKET_BYTES_MAX: usize = 32_767;
/// The largest message: a bulk load is held whole before it is inserted, so that it is all-or-nothing.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The largest message before somebody has logged in.
pub const LOGIN_BYTES_MAX: usize = 128 << 10;

/// What a message is, by the first byte of its packets.
pub mod kind {
    /// A batch of SQL.
    pub const BATCH: u8 = 1;
    /// Calls of procedures.
    pub const RPC: u8 = 3;
    /// Whatever a server answers.
    pub const REPLY: u8 = 4;
    /// Stop what you are doing.
    pub const ATTENTION: u8 = 6;
    /// The rows of a bulk load.
    pub const BULK: u8 = 7;
    /// Begin, commit, roll back.
    pub const TRANSACTION: u8 = 14;
    /// The login record.
    pub const LOGIN: u8 = 16;
    /// The first words, and TLS handshakes within them.
    pub const PRELOGIN: u8 = 18;
}

const LAST: u8 = 0x01;
const IGNORE: u8 = 0x02;
const RESET: u8 = 0x08;
const RESET_KEEPING_TRANSACTION: u8 = 0x10;

/// A message, put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is: see [`kind`].
    pub kind: u8,
    /// Whether the session has to become like new first.
    pub reset: bool,
    /// What it says.
    pub body: Vec<u8>,
}

/// Puts messages together.
#[derive(Debug)]
pub struct PacketReader<R> {
    io: R,
    received: BytesMut,
    message: Option<Message>,
    bytes_max: usize,
    bulk_bytes_max: Option<usize>,
}

impl<R: AsyncRead + Unpin> PacketReader<R> {
    /// A reader of `io` that takes messages of at most `bytes_max`.
    pub fn new(io: R, bytes_max: usize) -> Self {
        PacketReader {
            io,
            received: BytesMut::with_capacity(PACKET_BYTES_DEFAULT),
            message: None,
            bytes_max,
            bulk_bytes_max: None,
        }
    }

    /// Fails the bulk load that comes next after so many bytes: a connection lost half-way.
    pub fn break_bulk_after(&mut self, bytes: Option<usize>) {
        self.bulk_bytes_max = bytes;
    }

    /// What was received beyond the last message, and the stream itself.
    pub fn into_inner(self) -> R {
        self.io
    }

    /// The next message; none when the client is gone. May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// The stream's; what is no packet; a message too long.
    pub async fn next(&mut self) -> Result<Option<Message>> {
        loop {
            while let Some(packet) = self.packet()? {
                if let Some(message) = self.add(packet)? {
                    return Ok(Some(message));
                }
            }
            if self.io.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn packet(&mut self) -> Result<Option<BytesMut>> {
        if self.received.len() < HEADER_BYTES {
            return Ok(None);
        }
        let length = usize::from(u16::from_be_bytes([self.received[2], self.received[3]]));
        if !(HEADER_BYTES..=PACKET_BYTES_MAX + 1).contains(&length) {
            return Err(invalid(format!("a packet of {length} bytes is none")));
        }
        if self.received.len() < length {
            self.received.reserve(length - self.received.len());
            return Ok(None);
        }
        Ok(Some(self.received.split_to(length)))
    }

    fn add(&mut self, mut packet: BytesMut) -> Result<Option<Message>> {
        let (kind, status) = (packet[0], packet[1]);
        packet.advance(HEADER_BYTES);
        if kind == kind::ATTENTION {
            // It may come in the middle of a message, which is then not finished.
            self.message = None;
            return Ok(Some(Message { kind, reset: false, body: Vec::new() }));
        }
        let reset = status & (RESET | RESET_KEEPING_TRANSACTION) != 0;
        let message = self.message.get_or_insert_with(|| Message { kind, reset, body: Vec::new() });
        if message.kind != kind {
            return Err(invalid(format!("a packet of kind {kind} within a message of kind {}", message.kind)));
        }
        if message.body.len() + packet.len() > self.bytes_max {
            return Err(invalid(format!("a message of more than {} bytes", self.bytes_max)));
        }
        message.body.extend_from_slice(&packet);
        if kind == kind::BULK && self.bulk_bytes_max.is_some_and(|most| message.body.len() >= most) {
            return Err(Error::new(ErrorKind::ConnectionAborted, "broken on request"));
        }
        if status & LAST == 0 {
            return Ok(None);
        }
        let message = self.message.take();
        Ok(message.filter(|_| status & IGNORE == 0))
    }
}

/// Cuts an answer into packets.
#[derive(Debug)]
pub struct PacketWriter<W> {
    io: W,
    packet_bytes: usize,
    number: u8,
    process: u16,
    pending: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> PacketWriter<W> {
    /// A writer to `io`, of the server process `process`.
    pub fn new(io: W, process: u16) -> Self {
        PacketWriter { io, packet_bytes: PACKET_BYTES_DEFAULT, number: 1, process, pending: Vec::new() }
    }

    /// Packets from here on are of this size.
    pub fn set_packet_bytes(&mut self, bytes: usize) {
        self.packet_bytes = bytes;
    }

    /// The stream itself.
    pub fn into_inner(self) -> W {
        self.io
    }

    /// More of the answer. At least one byte is held back, because the last packet has to be marked.
    ///
    /// # Errors
    /// The stream's.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        let room = self.packet_bytes - HEADER_BYTES;
        if self.pending.len() <= room {
            return Ok(());
        }
        let whole = (self.pending.len() - 1) / room;
        let mut framed = Vec::with_capacity(whole * self.packet_bytes);
        for packet in 0..whole {
            let part = packet * room..(packet + 1) * room;
            frame(&mut framed, kind::REPLY, 0, self.process, self.number, &self.pending[part]);
            self.number = self.number.wrapping_add(1);
        }
        self.pending.drain(..whole * room);
        self.io.write_all(&framed).await
    }

    /// Sends what is held back without saying that it is the end: the start of an answer that never ends.
    ///
    /// # Errors
    /// The stream's.
    pub async fn break_off(&mut self) -> Result<()> {
        self.end(0).await
    }

    /// The answer is complete.
    ///
    /// # Errors
    /// The stream's.
    pub async fn finish(&mut self) -> Result<()> {
        self.end(LAST).await
    }

    async fn end(&mut self, status: u8) -> Result<()> {
        let mut framed = Vec::with_capacity(self.pending.len() + HEADER_BYTES);
        frame(&mut framed, kind::REPLY, status, self.process, self.number, &self.pending);
        self.pending.clear();
        self.number = 1;
        self.io.write_all(&framed).await?;
        self.io.flush().await
    }
}

/// Appends a packet.
pub fn frame(out: &mut Vec<u8>, kind: u8, status: u8, process: u16, number: u8, body: &[u8]) {
    let length = u16::try_from(body.len() + HEADER_BYTES).unwrap_or(u16::MAX);
    out.extend_from_slice(&[kind, status]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&process.to_be_bytes());
    out.extend_from_slice(&[number, 0]);
    out.extend_from_slice(body);
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(body: &[u8], size: usize, status: u8) -> Vec<u8> {
        let mut out = Vec::new();
        let parts: Vec<&[u8]> = body.chunks(size).collect();
        for (number, part) in parts.iter().enumerate() {
            let last = if number + 1 == parts.len() { LAST } else { 0 };
            frame(&mut out, kind::BATCH, last | status, 0, 1, part);
        }
        out
    }

    #[tokio::test]
    async fn a_message_of_many_packets_is_put_together() {
        let body: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
        let sent = packets(&body, 600, RESET);
        let mut reader = PacketReader::new(&sent[..], MESSAGE_BYTES_MAX);
        let message = reader.next().await.unwrap().unwrap();
        assert_eq!(message, Message { kind: kind::BATCH, reset: true, body });
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_too_long_or_no_packet_is_an_error() {
        let sent = packets(&[7; 3000], 1000, 0);
        assert!(PacketReader::new(&sent[..], 2000).next().await.is_err());
        let nonsense = b"GET / HTTP/1.1\r\n\r\n";
        // The length that these letters spell is a possible one: it waits for the rest, and the rest never comes.
        assert_eq!(PacketReader::new(&nonsense[..], 2000).next().await.unwrap(), None);
        assert!(PacketReader::new(&[1, 1, 0, 3, 0, 0, 0, 0][..], 2000).next().await.is_err());
    }

    #[tokio::test]
    async fn an_ignored_message_is_dropped() {
        let mut sent = packets(b"half a thought", 100, IGNORE);
        sent.extend(packets(b"the whole", 100, 0));
        let message = PacketReader::new(&sent[..], 2000).next().await.unwrap().unwrap();
        assert_eq!(message.body, b"the whole");
    }

    #[tokio::test]
    async fn an_answer_is_cut_where_the_packet_ends_and_its_last_packet_is_marked() {
        for length in [0, 1, 503, 504, 505, 1008, 1009, 3000] {
            let mut sent = Vec::new();
            let mut writer = PacketWriter::new(&mut sent, 51);
            writer.set_packet_bytes(512);
            let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
            for part in body.chunks(7) {
                writer.write(part).await.unwrap();
            }
            writer.finish().await.unwrap();
            let mut at = 0;
            let mut got = Vec::new();
            while at < sent.len() {
                let size = usize::from(u16::from_be_bytes([sent[at + 2], sent[at + 3]]));
                assert_eq!(sent[at + 1] == LAST, at + size == sent.len(), "length {length}");
                assert!(size <= 512);
                got.extend_from_slice(&sent[at + HEADER_BYTES..at + size]);
                at += size;
            }
            assert_eq!(got, body);
        }
    }
}
