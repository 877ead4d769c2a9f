//! Characters of `char` and `varchar`: code page 1252, which is that of the collation `SQL_Latin1_General_CP1_CI_AS`.

/// The collation as it stands on the wire: locale 1033, case, kana and width ignored, sort order 52.
pub const COLLATION: [u8; 5] = [0x09, 0x04, 0xD0, 0x00, 0x34];

/// The characters of 0x80 to 0x9F; the five that the code page leaves out stand for themselves.
const MIDDLE: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Text from bytes.
pub fn decode(bytes: &[u8]) -> String {
    let character = |byte: u8| match byte {
        0x80..=0x9F => MIDDLE[usize::from(byte - 0x80)],
        other => char::from(other),
    };
    bytes.iter().map(|byte| character(*byte)).collect()
}

/// Bytes of a text. What the code page lacks becomes a question mark, as SQL Server does it.
pub fn encode(text: &str) -> Vec<u8> {
    text.chars().map(encode_one).collect()
}

fn encode_one(character: char) -> u8 {
    match u32::from(character) {
        code @ (0..=0x7F | 0xA0..=0xFF) => code as u8,
        _ => MIDDLE.iter().position(|known| *known == character).map_or(b'?', |place| 0x80 + place as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back_and_what_is_unknown_is_asked_about() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(encode(&decode(&all)), all);
        assert_eq!(encode("10 € Grüße 中"), b"10 \x80 Gr\xFC\xDFe ?");
    }
}
