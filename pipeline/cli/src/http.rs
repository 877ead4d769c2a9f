//! One question to an instance of this program, over plain HTTP on this machine or a trusted network: for tools.

use anyhow::{Context, Result, anyhow};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest that an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The longest answer: a document and its headers.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    fn read(text: &str) -> Result<Self> {
        let (head, body) = text.split_once("\r\n\r\n").context("the answer is cut off")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("that is no HTTP")?;
        Ok(Self { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// A header, by its name in lower case; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let named = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head.lines().find(named).and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    }
}

/// Asks for a path of `host:port`.
///
/// # Errors
/// When nobody answers in time, or not with HTTP.
pub async fn get(address: &str, path: &str, token: Option<&str>) -> Result<Answer> {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{bearer}Connection: close\r\n\r\n");
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(TIMEOUT, asked).await.map_err(|_| anyhow!("no answer within {TIMEOUT:?}"))??;
    Answer::read(&String::from_utf8_lossy(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_headers_and_a_body() {
        let answer = Answer::read("HTTP/1.1 200 OK\r\nX-Cache-Level: L1\r\nETag: \"7\"\r\n\r\n{\"a\":1}").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"a\":1}"));
        assert_eq!((answer.header("x-cache-level"), answer.header("etag"), answer.header("age")), ("L1", "\"7\"", ""));
        for wrong in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0 x\r\n\r\n"] {
            assert!(Answer::read(wrong).is_err(), "{wrong}");
        }
    }
}
