//! JSON string escapes (RFC 8259 section 7) and pointer escapes (RFC 6901 section 3), both ways.

use std::borrow::Cow;

/// True if the content of a JSON string is not its own text.
pub(crate) fn has_escape(content: &str) -> bool {
    memchr::memchr(b'\\', content.as_bytes()).is_some()
}

/// The text of a JSON string, given the validated content between its quotes.
pub(crate) fn unescape(content: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', content.as_bytes()) else {
        return Cow::Borrowed(content);
    };
    let mut text = String::with_capacity(content.len());
    text.push_str(&content[..first]);
    let mut rest = &content[first..];
    while let Some(escaped) = rest.strip_prefix('\\') {
        let (character, used) = escaped_char(escaped.as_bytes());
        text.push(character);
        let tail = &escaped[used..];
        let plain = tail.find('\\').unwrap_or(tail.len());
        text.push_str(&tail[..plain]);
        rest = &tail[plain..];
    }
    Cow::Owned(text)
}

/// The character of one escape and how many bytes it takes after its backslash.
fn escaped_char(escape: &[u8]) -> (char, usize) {
    match escape.first() {
        Some(b'b') => ('\u{8}', 1),
        Some(b'f') => ('\u{c}', 1),
        Some(b'n') => ('\n', 1),
        Some(b'r') => ('\r', 1),
        Some(b't') => ('\t', 1),
        Some(b'u') => {
            let unit = hex4(escape, 1).unwrap_or(0xfffd);
            match char::from_u32(unit) {
                Some(character) => (character, 5),
                // A high surrogate: the scanner made sure that its low half follows as `\uXXXX`.
                None => {
                    let low = hex4(escape, 7).unwrap_or(0xdc00);
                    let code = 0x1_0000 + ((unit & 0x3ff) << 10) + (low & 0x3ff);
                    (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11)
                }
            }
        }
        Some(&other) => (char::from(other), 1),
        None => (char::REPLACEMENT_CHARACTER, 0),
    }
}

/// Four hexadecimal digits from `at`.
pub(crate) fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |value, &digit| Some(value * 16 + char::from(digit).to_digit(16)?))
}

/// Appends `text` as the content of a JSON string, without quotes.
pub(crate) fn push_escaped(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for &byte in text.as_bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
}

/// Appends a member's name, as it stands between its quotes, as one pointer token inside a JSON string.
pub(crate) fn push_token(out: &mut Vec<u8>, name: &str) {
    let special = |byte: &u8| matches!(byte, b'~' | b'/' | b'\\');
    if !name.as_bytes().iter().any(special) {
        out.extend_from_slice(name.as_bytes());
    } else {
        let token = unescape(name).replace('~', "~0").replace('/', "~1");
        push_escaped(out, &token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_their_characters() {
        let check = |content: &str, text: &str| assert_eq!(unescape(content), text, "{content}");
        check("", "");
        check("plain", "plain");
        check(r"\n", "\n");
        check(r#"a\"b\\c\/d"#, "a\"b\\c/d");
        check(r"\b\f\n\r\t", "\u{8}\u{c}\n\r\t");
        check(r"\u0041x\u00e9", "Axé");
        check(r"<\ud83d\uDE00>", "<😀>");
    }

    #[test]
    fn names_become_pointer_tokens() {
        let check = |name: &str, token: &str| {
            let mut out = Vec::new();
            push_token(&mut out, name);
            assert_eq!(String::from_utf8(out).as_deref(), Ok(token), "{name}");
        };
        check("demand", "demand");
        check("", "");
        check("a/b~c", "a~1b~0c");
        check(r"a\/b\u007ec", "a~1b~0c");
        check(r#"q\"\\\u0001é"#, r#"q\"\\\u0001é"#);
    }
}
