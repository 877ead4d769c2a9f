//! What a push service's answer means.

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::Duration;

/// What became of a message to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The service took it.
    Sent,
    /// The device is no more: it is removed.
    Gone(String),
    /// It can never be sent.
    Refused(String),
    /// It was not sent this time.
    Later {
        /// Why.
        reason: String,
        /// When the service wants it again.
        after: Option<Duration>,
    },
    /// The service is away, and so is everything else that goes there: nothing was sent.
    Away(String),
}

impl Outcome {
    /// In a word, for people and for the API.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Gone(_) => "gone",
            Self::Refused(_) => "refused",
            Self::Later { .. } | Self::Away(_) => "failed",
        }
    }
}

/// What one call came to, before it is known what it says of the whole service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The service has spoken.
    Said(Outcome),
    /// It did not, or said that it is away: no connection, a time-out, a cut, 502 to 504.
    Silent { reason: String, after: Option<Duration> },
}

/// The answer of a Web Push service (RFC 8030, section 5; CONTRACTS 7).
pub(crate) fn web_push(status: u16, after: Option<Duration>) -> Answer {
    let reason = format!("the push service answers {status}");
    Answer::Said(match status {
        200..=299 => Outcome::Sent,
        404 | 410 => Outcome::Gone(reason),
        429 => Outcome::Later { reason, after },
        502..=504 => return Answer::Silent { reason, after },
        500..=599 => Outcome::Later { reason, after },
        401 | 403 => Outcome::Refused(format!("{reason}: it does not take this VAPID key for the subscription")),
        413 => Outcome::Refused(format!("{reason}: the payload is too long for it")),
        // Redirects are not followed: they would lead to addresses that nobody checked.
        _ => Outcome::Refused(reason),
    })
}

/// `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some(date.signed_duration_since(now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("1994-11-06T08:49:30Z").unwrap().to_utc();
        for (text, seconds) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
