//! A mail as pipelines ask for it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// What the columns hold.
const ADDRESS_MAX: usize = 320;
const SUBJECT_MAX: usize = 998;
const LINK_MAX: usize = 2_000;

/// A mail to one person (CONTRACTS 7).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MailRequest {
    /// Which: UUIDv5 of rule, entity, version, channel and user, so that it is queued once.
    pub id: Uuid,
    /// One address: `anna@example.com`.
    pub to: String,
    /// The subject, as it is.
    pub subject: String,
    /// Which template.
    pub template_id: String,
    /// What the template gets: an object.
    #[serde(default)]
    pub template_data: Map<String, Value>,
    /// Files that go with it.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// The link by which the recipient switches such mails off: templates get it as `unsubscribeUrl`, mail programs as a button
    /// (RFC 8058).
    #[serde(default)]
    pub unsubscribe_url: Option<String>,
}

/// A file that goes with a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// Its type, such as `text/csv`.
    pub content_type: String,
    /// Its bytes, in base64.
    pub content: String,
}

impl Attachment {
    /// The bytes.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn decode(&self) -> Result<Vec<u8>, String> {
        let (name, kind) = (&self.name, &self.content_type);
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(format!("{name:?} is no name of an attachment"));
        }
        let token =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$&^_.+-".contains(c));
        let plain = kind.split(';').next().unwrap_or_default().split_once('/');
        if kind.chars().any(char::is_control) || !plain.is_some_and(|(kind, sub)| token(kind) && token(sub.trim_end()))
        {
            return Err(format!("{kind:?}, the type of the attachment {name}, is none: write one such as text/csv"));
        }
        STANDARD.decode(&self.content).map_err(|error| format!("the attachment {name} is not in base64: {error}"))
    }
}

impl MailRequest {
    /// Reads a mail.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let mail: Self =
            serde_json::from_slice(document).map_err(|error| format!("the mail cannot be read: {error}"))?;
        address(&mail.to)?;
        let length = mail.subject.encode_utf16().count();
        if length > SUBJECT_MAX {
            return Err(format!("the subject has {length} characters, and a mail's has {SUBJECT_MAX} at most"));
        }
        for attachment in &mail.attachments {
            attachment.decode()?;
        }
        if let Some(url) = &mail.unsubscribe_url {
            link(url)?;
        }
        Ok(mail)
    }

    /// The row that it is in the queue, once it is rendered.
    #[must_use]
    pub fn row(&self, rendered: &crate::templates::Rendered) -> Map<String, Value> {
        let attachments = (!self.attachments.is_empty()).then(|| json!(self.attachments).to_string());
        let row = [
            ("id", json!(self.id)),
            ("toAddress", json!(self.to)),
            ("subject", json!(self.subject)),
            ("bodyHtml", json!(rendered.html)),
            ("bodyText", json!(rendered.text)),
            ("attachments", json!(attachments)),
            ("unsubscribeUrl", json!(self.unsubscribe_url)),
        ];
        row.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Demands an address to which a mail can go: `user@domain`, without quotes, comments or a name. No line break, and nothing else
/// that ends a command, can be in one.
///
/// # Errors
/// What is wrong, in one line.
pub(crate) fn address(text: &str) -> Result<(), String> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "<>()[],;:\\\"@".contains(c);
    let good = |(user, domain): (&str, &str)| {
        !user.is_empty() && !domain.is_empty() && !user.contains(odd) && !domain.contains(odd)
    };
    if text.len() <= ADDRESS_MAX && text.split_once('@').is_some_and(good) {
        return Ok(());
    }
    let shown: String = text.chars().take(60).collect();
    Err(format!("{shown:?} is no address of a mail: one such as anna@example.com is needed"))
}

/// Demands a link that a header can carry (RFC 2369, section 2): a web address without a space, a line break or a bracket.
///
/// # Errors
/// What is wrong, in one line.
pub(crate) fn link(text: &str) -> Result<(), String> {
    let web = text.starts_with("https://") || text.starts_with("http://");
    let plain = text.chars().all(|c| c.is_ascii_graphic() && c != '<' && c != '>');
    if web && plain && text.len() <= LINK_MAX {
        return Ok(());
    }
    let shown: String = text.chars().take(60).collect();
    Err(format!("{shown:?} is no link to unsubscribe by: a web address of {LINK_MAX} characters at most is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_says_what_is_wrong_with_it() {
        let whole = json!({"Id": Uuid::nil(), "To": "a@example.com", "Subject": "s", "TemplateId": "t"});
        assert!(MailRequest::parse(whole.to_string().as_bytes()).is_ok());
        let file =
            |name: &str, kind: &str, content: &str| json!([{"Name": name, "ContentType": kind, "Content": content}]);
        for (member, value, reason) in [
            ("Id", json!("x"), "UUID"),
            ("To", json!("a"), "no address"),
            ("To", json!("a@example.com\r\nBcc: b@example.com"), "no address"),
            ("To", json!("a@example.com\nx"), "no address"),
            ("To", json!("a@example.com> SIZE=1"), "no address"),
            ("To", json!("a@example.com, b@example.com"), "no address"),
            ("To", json!(format!("{}@example.com", "a".repeat(320))), "no address"),
            ("Subject", json!("x".repeat(999)), "at most"),
            ("TemplateData", json!([1]), "cannot be read"),
            ("Attachments", file("a\r\nb", "text/csv", ""), "no name"),
            ("Attachments", file("a.csv", "none", ""), "is none"),
            ("Attachments", file("a.csv", "text/csv", "?"), "base64"),
            ("UnsubscribeUrl", json!("mailto:a@example.com"), "no link"),
            ("UnsubscribeUrl", json!("https://x/\r\nBcc: b@example.com"), "no link"),
            ("UnsubscribeUrl", json!("https://x/>, <https://y/"), "no link"),
        ] {
            let mut wrong = whole.clone();
            wrong[member] = value;
            let error = MailRequest::parse(wrong.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{member}: {error}");
        }
    }
}
