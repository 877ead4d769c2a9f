//! Links by which somebody switches a channel off without logging in (RFC 8058).
//!
//! A link carries the user and the channel, signed with HMAC-SHA256: `base64url(user, channel, mac)`. It lasts as long as the
//! secret, since a mail may be old when somebody has had enough. It opens nothing else.

use crate::notifications::Channel;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use smartpulse_config::NotificationSettings;
use smartpulse_pipeline::error::{Error, Result};
use uuid::Uuid;

/// What signs links where the settings name no secret, in the environment `development` only: everybody can read it.
const DEVELOPMENT_SECRET: &str = "smartpulse-development-links-that-everybody-can-sign";

/// As many bytes as the hash has (RFC 2104, section 3).
const SECRET_BYTES_MIN: usize = 32;

/// Before what is signed: the same secret may sign other things, too.
const PURPOSE: &[u8] = b"unsubscribe";

/// The user and the channel, in bytes.
const SIGNED_BYTES: usize = 17;

/// Makes and reads links.
#[derive(Debug)]
pub struct Unsubscribe {
    url: String,
    key: hmac::Key,
}

impl Unsubscribe {
    /// What these settings make of it; none where they name no page.
    ///
    /// # Errors
    /// Fatal when the secret is missing outside of development, or too short.
    pub fn new(settings: &NotificationSettings, environment: &str) -> Result<Option<Self>> {
        if settings.unsubscribe_url.is_empty() {
            return Ok(None);
        }
        let secret = match &settings.unsubscribe_secret {
            Some(secret) => secret.expose(),
            None if environment == "development" => DEVELOPMENT_SECRET,
            None => {
                return Err(Error::fatal(
                    "notifications.unsubscribe_url is set, and nothing signs its links: set notifications.unsubscribe_secret",
                ));
            }
        };
        if secret.len() < SECRET_BYTES_MIN {
            let text = format!("notifications.unsubscribe_secret has fewer than {SECRET_BYTES_MIN} bytes");
            return Err(Error::fatal(text));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Ok(Some(Self { url: settings.unsubscribe_url.clone(), key }))
    }

    /// The link by which this user switches this channel off.
    #[must_use]
    pub fn link(&self, user: Uuid, channel: Channel) -> String {
        let mut token = user.as_bytes().to_vec();
        token.push(channel as u8);
        token.extend_from_slice(hmac::sign(&self.key, &[PURPOSE, &token].concat()).as_ref());
        format!("{}?token={}", self.url, URL_SAFE_NO_PAD.encode(token))
    }

    /// Whose link a token is of, and for which channel; none when it was not signed here.
    #[must_use]
    pub fn read(&self, token: &str) -> Option<(Uuid, Channel)> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signed, mac) = bytes.split_at_checked(SIGNED_BYTES)?;
        hmac::verify(&self.key, &[PURPOSE, signed].concat(), mac).ok()?;
        let (user, channel) = signed.split_at_checked(SIGNED_BYTES - 1)?;
        let channel = Channel::ALL.into_iter().find(|known| channel == [*known as u8])?;
        Some((Uuid::from_slice(user).ok()?, channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smartpulse_config::{Secret, Settings};

    fn settings(url: &str, secret: Option<&str>) -> NotificationSettings {
        let (unsubscribe_url, unsubscribe_secret) = (url.to_owned(), secret.map(Secret::new));
        NotificationSettings { unsubscribe_url, unsubscribe_secret, ..Settings::default().notifications }
    }

    #[test]
    fn a_link_is_read_by_whoever_has_the_secret_and_nothing_else_is() {
        let signs = |secret| Unsubscribe::new(&settings("https://x/u", Some(secret)), "production").unwrap().unwrap();
        let (ours, others) = (signs("0123456789abcdef0123456789abcdef"), signs("another secret, of enough bytes!"));
        for channel in Channel::ALL {
            let user = Uuid::from_u128(7);
            let link = ours.link(user, channel);
            let token = link.strip_prefix("https://x/u?token=").unwrap();
            assert_eq!(ours.read(token), Some((user, channel)));
            assert_eq!(others.read(token), None);
            for place in 0..token.len() {
                let changed = if &token[place..=place] == "A" { "B" } else { "A" };
                let forged = format!("{}{changed}{}", &token[..place], &token[place + 1..]);
                assert_eq!(ours.read(&forged), None, "{forged}");
            }
            assert_eq!(ours.read(&token[..20]), None);
        }
        assert_eq!(ours.read(""), None);
    }

    #[test]
    fn links_are_signed_by_a_secret_that_nobody_knows_or_not_at_all() {
        assert!(Unsubscribe::new(&settings("", None), "production").unwrap().is_none());
        assert!(Unsubscribe::new(&settings("https://x/u", None), "development").unwrap().is_some());
        for (secret, reason) in [(None, "set notifications.unsubscribe_secret"), (Some("short"), "fewer than 32")] {
            let error = Unsubscribe::new(&settings("https://x/u", secret), "staging").unwrap_err();
            assert!(error.chain().contains(reason), "{}", error.chain());
        }
    }
}
