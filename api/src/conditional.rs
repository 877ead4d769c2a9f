//! Conditional requests (RFC 9110 section 13): a forecast's entity tag is its version, a list's a hash of its
//! body.

use http::header::{HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};

/// The strong entity tag of a version.
pub(crate) fn version_tag(version: i64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("digits and quotes are visible ascii")
}

/// The strong entity tag of a body.
pub(crate) fn body_tag(hash: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{hash:016x}\"")).expect("digits and quotes are visible ascii")
}

/// What `If-Match` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// Nothing.
    Absent,
    /// That there is a forecast.
    Any,
    /// That its version is one of these. None, if no tag could be one of ours: a precondition that fails.
    Versions(Vec<i64>),
}

impl IfMatch {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        if !headers.contains_key(IF_MATCH) {
            return Self::Absent;
        }
        let mut versions = Vec::new();
        for tag in tags(headers, &IF_MATCH) {
            if tag == "*" {
                return Self::Any;
            }
            // Strong comparison: a weak tag never matches. Digits only: `"+1"` is not a tag that we gave.
            let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            if let Some(digits) = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
                versions.extend(digits.parse::<i64>());
            }
        }
        Self::Versions(versions)
    }

    pub(crate) fn admits(&self, version: i64) -> bool {
        match self {
            Self::Absent | Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// True if `If-None-Match` names this tag. Weak comparison: the caller has it, in whatever form.
pub(crate) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    tags(headers, &IF_NONE_MATCH)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known).as_bytes() == tag.as_bytes())
}

/// The comma-separated tags of a header. Our own tags have no commas, so that a foreign one that is cut at
/// its comma still matches nothing.
fn tags<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &http::HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn if_match_takes_strong_tags_of_versions() {
        for (values, expected) in [
            (&[][..], IfMatch::Absent),
            (&["*"][..], IfMatch::Any),
            (&["\"7\""][..], IfMatch::Versions(vec![7])),
            (&["\"7\", \"8\"", "\"9\""][..], IfMatch::Versions(vec![7, 8, 9])),
            (&["W/\"7\""][..], IfMatch::Versions(vec![])),
            (&["7", "\"+7\"", "\"\"", "\"x,7\"", "\"99999999999999999999\""][..], IfMatch::Versions(vec![])),
        ] {
            assert_eq!(IfMatch::from_headers(&headers(&IF_MATCH, values)), expected, "{values:?}");
        }
    }

    #[test]
    fn if_none_match_takes_weak_tags_too() {
        for (values, known) in [
            (&[][..], false),
            (&["*"][..], true),
            (&["\"7\""][..], true),
            (&["W/\"7\""][..], true),
            (&["\"6\",\"7\""][..], true),
            (&["7"][..], false),
            (&["\"70\""][..], false),
        ] {
            assert_eq!(is_known(&headers(&IF_NONE_MATCH, values), &version_tag(7)), known, "{values:?}");
        }
    }
}
