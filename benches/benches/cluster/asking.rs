//! A client that reads forecasts over one connection that it keeps.

use crate::process::bearer;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

pub struct Client {
    stream: BufReader<TcpStream>,
    host: String,
    line: String,
    body: Vec<u8>,
}

/// What was answered.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub version: i64,
    /// `L1` to `L4`.
    pub level: String,
}

impl Client {
    pub fn open(host: &str) -> Self {
        let stream = TcpStream::connect(host).expect("an instance");
        stream.set_nodelay(true).expect("a socket");
        Self { stream: BufReader::new(stream), host: host.to_owned(), line: String::new(), body: Vec::new() }
    }

    pub fn read(&mut self, key: &str) -> Answer {
        let (host, token) = (&self.host, bearer());
        let request = format!("GET /api/forecasts/{key} HTTP/1.1\r\nhost: {host}\r\nauthorization: {token}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).expect("an instance");
        let (mut answer, mut length) = (Answer::default(), 0);
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line).expect("an answer");
            let line = self.line.trim_end();
            if line.is_empty() {
                break;
            }
            match line.split_once(": ") {
                Some(("content-length", bytes)) => length = bytes.parse().expect("a length"),
                Some(("etag", tag)) => answer.version = tag.trim_matches('"').parse().expect("a version"),
                Some(("x-cache-level", level)) => level.clone_into(&mut answer.level),
                Some(_) => {}
                None => {
                    answer.status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
                }
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).expect("a body");
        answer
    }
}
