//! T-SQL text to tokens.

use super::errors::{Result, fault};

/// A token and the line that it starts on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub line: u32,
    /// Where it starts and ends in the text.
    pub start: usize,
    pub end: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// A bare word: a keyword or a name.
    Word(String),
    /// `[name]` or `"name"`.
    Quoted(String),
    /// `@name` or `@@name`, with its signs.
    Variable(String),
    Text {
        text: String,
        national: bool,
    },
    Integer(String),
    /// With a decimal point.
    Number(String),
    /// With an exponent.
    Float(String),
    Bytes(Vec<u8>),
    /// Operators and punctuation.
    Symbol(&'static str),
    End,
}

const SYMBOLS: &[&str] = &[
    "<>", "<=", ">=", "!=", "!<", "!>", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "::", "(", ")", ",", ";", ".",
    "=", "<", ">", "+", "-", "*", "/", "%", "&", "|", "^", "~", ":", "{", "}",
];

fn word_start(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '#'
}

fn word_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '#' | '$' | '@')
}

/// Splits a text into tokens; the last one is [`Kind::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut out = Vec::with_capacity(text.len() / 4 + 4);
    let (mut at, mut line) = (0, 1);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c == '\n' {
            line += 1;
            at += 1;
            continue;
        }
        if c.is_whitespace() || c == '\u{feff}' {
            at += c.len_utf8();
            continue;
        }
        if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if rest.starts_with("/*") {
            let end = comment_end(rest).ok_or_else(|| fault(113, 15, "Missing end comment mark '*/'.").at(line))?;
            line += count_lines(&rest[..end]);
            at += end;
            continue;
        }
        let (kind, length) = token(rest, c).map_err(|fault| fault.at(line))?;
        out.push(Token { kind, line, start: at, end: at + length });
        line += count_lines(&rest[..length]);
        at += length;
    }
    out.push(Token { kind: Kind::End, line, start: text.len(), end: text.len() });
    Ok(out)
}

fn count_lines(text: &str) -> u32 {
    u32::try_from(text.bytes().filter(|byte| *byte == b'\n').count()).unwrap_or(0)
}

fn comment_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

fn token(rest: &str, c: char) -> Result<(Kind, usize)> {
    if (c == 'N' || c == 'n') && rest[1..].starts_with('\'') {
        let (text, length) = quoted(&rest[1..], '\'')?;
        return Ok((Kind::Text { text, national: true }, length + 1));
    }
    if c == '\'' {
        let (text, length) = quoted(rest, '\'')?;
        return Ok((Kind::Text { text, national: false }, length));
    }
    if c == '[' || c == '"' {
        let (text, length) = quoted(rest, if c == '[' { ']' } else { '"' })?;
        return Ok((Kind::Quoted(text), length));
    }
    if c == '@' {
        let length = rest.find(|c: char| !word_part(c)).unwrap_or(rest.len());
        return Ok((Kind::Variable(rest[..length].to_owned()), length));
    }
    if rest.starts_with("0x") || rest.starts_with("0X") {
        let length = rest[2..].find(|c: char| !c.is_ascii_hexdigit()).map_or(rest.len(), |at| at + 2);
        let digits = &rest[2..length];
        let digits = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() };
        let bytes = (0..digits.len() / 2).filter_map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).ok());
        return Ok((Kind::Bytes(bytes.collect()), length));
    }
    if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
        return Ok(number(rest));
    }
    if word_start(c) {
        let length = rest.find(|c: char| !word_part(c)).unwrap_or(rest.len());
        return Ok((Kind::Word(rest[..length].to_owned()), length));
    }
    match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        Some(symbol) => Ok((Kind::Symbol(symbol), symbol.len())),
        None => Err(fault(102, 15, format!("Incorrect syntax near '{c}'."))),
    }
}

fn number(rest: &str) -> (Kind, usize) {
    let bytes = rest.as_bytes();
    let digits = |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits(0);
    let mut kind: fn(String) -> Kind = Kind::Integer;
    if bytes.get(end) == Some(&b'.') {
        kind = Kind::Number;
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            kind = Kind::Float;
            end = digits(end + 1 + sign);
        }
    }
    (kind(rest[..end].to_owned()), end)
}

/// The text between quotes, and the length with the quotes. A doubled closing quote stands for one.
fn quoted(rest: &str, close: char) -> Result<(String, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != close {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == close) {
            text.push(c);
            chars.next();
        } else {
            return Ok((text, at + 1));
        }
    }
    Err(fault(105, 15, format!("Unclosed quotation mark after the character string '{text}'.")))
}
