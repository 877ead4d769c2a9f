//! RFC 6901 JSON pointers.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::error::{PointerError, excerpt};

/// A parsed RFC 6901 pointer such as `/data/changes/0`; the empty one is the whole document.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Pointer {
    tokens: Vec<String>,
}

impl Pointer {
    /// The pointer to the whole document.
    pub fn root() -> Pointer {
        Pointer::default()
    }

    /// A pointer from unescaped tokens.
    pub fn from_tokens<T: Into<String>>(tokens: impl IntoIterator<Item = T>) -> Pointer {
        Pointer { tokens: tokens.into_iter().map(Into::into).collect() }
    }

    /// The unescaped tokens.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The first unescaped token: the name of a top-level member, if the document is an object.
    pub fn first(&self) -> Option<&str> {
        self.tokens.first().map(String::as_str)
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    /// # Errors
    ///
    /// If the text is neither empty nor starts with a slash, or has a `~` that is no escape.
    fn from_str(text: &str) -> Result<Pointer, PointerError> {
        let tokens = tokens(text)?.map(Cow::into_owned).collect();
        Ok(Pointer { tokens })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.tokens {
            write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

impl serde::Serialize for Pointer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Pointer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Pointer, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The unescaped tokens of a pointer.
pub(crate) fn tokens(text: &str) -> Result<impl DoubleEndedIterator<Item = Cow<'_, str>>, PointerError> {
    if !text.is_empty() && !text.starts_with('/') {
        return Err(PointerError::NoLeadingSlash { pointer: excerpt(text) });
    }
    for (offset, _) in text.match_indices('~') {
        if !matches!(text.as_bytes().get(offset + 1), Some(b'0' | b'1')) {
            return Err(PointerError::BadEscape { pointer: excerpt(text), offset });
        }
    }
    let mut tokens = text.split('/');
    // What is before the first slash: nothing.
    tokens.next();
    Ok(tokens.map(unescape_token))
}

fn unescape_token(token: &str) -> Cow<'_, str> {
    if token.contains('~') {
        // In this order, so that `~01` becomes `~1` and not `/` (RFC 6901 section 4).
        Cow::Owned(token.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(token)
    }
}

/// A token as an array index: digits without leading zeros (RFC 6901 section 4).
pub(crate) fn array_index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = token.len() > 1 && token.starts_with('0');
    if digits && !leading_zero { token.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    #[test]
    fn the_examples_of_rfc_6901_resolve() {
        let document = Document::from_static(
            r#" {"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8} "#,
        )
        .unwrap();
        let check = |pointer: &str, expected: Option<&str>| {
            let parsed: Pointer = pointer.parse().unwrap();
            assert_eq!(document.pointer(&parsed).map(|value| value.as_raw()), expected, "{pointer}");
            assert_eq!(parsed.to_string(), pointer);
        };
        check("", Some(document.as_str().trim()));
        check("/foo", Some(r#"["bar","baz"]"#));
        check("/foo/0", Some(r#""bar""#));
        check("/", Some("0"));
        check("/a~1b", Some("1"));
        check("/c%d", Some("2"));
        check("/e^f", Some("3"));
        check("/g|h", Some("4"));
        check("/i\\j", Some("5"));
        check("/k\"l", Some("6"));
        check("/ ", Some("7"));
        check("/m~0n", Some("8"));
        check("/foo/2", None);
        check("/foo/00", None);
        check("/foo/-", None);
        check("/foo/+1", None);
        check("/foo/", None);
        check("/foo/0/x", None);
        check("/none", None);
    }

    #[test]
    fn invalid_pointers_say_where() {
        let check = |pointer: &str, message: &str| {
            assert_eq!(pointer.parse::<Pointer>().unwrap_err().to_string(), message);
        };
        check("a/b", "json pointer `a/b` must be empty or start with `/`");
        check("/a~", "json pointer `/a~` has `~` without 0 or 1 at byte 2");
        check("/a~0/~2", "json pointer `/a~0/~2` has `~` without 0 or 1 at byte 5");
    }
}
