//! A queued mail as a message of RFC 5322.
//!
//! Every body goes out in quoted-printable or base64, so that no byte of it (a bare line feed, a dot of its own line) can mean
//! something to a server (RUSTSEC-2026-0561). The id of a message is that of the mail: one that is sent twice can be known.

use crate::request::{Attachment, address, link};
use lettre::message::header::{ContentTransferEncoding, ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Attachment as Part, Body, Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};
use smartpulse_clients::delivery::QueuedMail;

/// A header whose value is written as it stands.
macro_rules! plain_header {
    ($type:ident, $name:literal) => {
        #[derive(Debug, Clone)]
        struct $type(String);

        impl Header for $type {
            fn name() -> HeaderName {
                HeaderName::new_from_ascii_str($name)
            }

            fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
                Ok(Self(text.to_owned()))
            }

            fn display(&self) -> HeaderValue {
                // A link must not be folded or encoded: mail programs would not find it.
                HeaderValue::dangerous_new_pre_encoded(Self::name(), self.0.clone(), self.0.clone())
            }
        }
    };
}

plain_header!(ListUnsubscribe, "List-Unsubscribe");
plain_header!(ListUnsubscribePost, "List-Unsubscribe-Post");

/// Makes the message of a queued mail.
///
/// # Errors
/// Why it can never be sent, in one line: other programs write the queue, too.
pub fn compose(mail: &QueuedMail, from: &Mailbox) -> Result<Message, String> {
    address(&mail.to_address)?;
    let to = mail
        .to_address
        .parse::<Address>()
        .map_err(|error| format!("{:?} is no address of a mail: {error}", mail.to_address))?;
    let to = Mailbox::new(None, to);
    let id = format!("<{}@{}>", mail.id, from.email.domain());
    let mut message =
        Message::builder().from(from.clone()).to(to).subject(&mail.subject).message_id(Some(id)).date_now();
    if let Some(url) = &mail.unsubscribe_url {
        link(url)?;
        message = message.header(ListUnsubscribe(format!("<{url}>")));
        // Of a page that a POST changes something at (RFC 8058, section 3.1).
        message = message.header(ListUnsubscribePost("List-Unsubscribe=One-Click".to_owned()));
    }
    let text = |kind: ContentType, text: &str| -> Result<SinglePart, String> {
        let encoding = ContentTransferEncoding::QuotedPrintable;
        let body = Body::new_with_encoding(text.to_owned(), encoding).map_err(|_| "the body cannot be encoded")?;
        Ok(SinglePart::builder().header(kind).body(body))
    };
    let html = mail.body_html.as_deref().map(|html| text(ContentType::TEXT_HTML, html)).transpose()?;
    let plain = mail.body_text.as_deref().map(|plain| text(ContentType::TEXT_PLAIN, plain)).transpose()?;
    let attachments: Vec<Attachment> = match mail.attachments.as_deref() {
        Some(json) => serde_json::from_str(json).map_err(|error| format!("the attachments cannot be read: {error}"))?,
        None => Vec::new(),
    };
    let mut parts = MultiPart::mixed().build();
    // The last alternative is the best one (RFC 2046, section 5.1.4).
    parts = match (plain, html) {
        (Some(plain), Some(html)) => parts.multipart(MultiPart::alternative().singlepart(plain).singlepart(html)),
        (Some(only), None) | (None, Some(only)) => parts.singlepart(only),
        (None, None) => return Err("the mail has neither a text nor an HTML body".to_owned()),
    };
    for attachment in &attachments {
        let bytes = attachment.decode()?;
        let kind = ContentType::parse(&attachment.content_type)
            .map_err(|_| format!("the type of the attachment {} is none", attachment.name))?;
        let body = Body::new_with_encoding(bytes, ContentTransferEncoding::Base64);
        let body = body.map_err(|_| format!("the attachment {} cannot be encoded", attachment.name))?;
        parts = parts.singlepart(Part::new(attachment.name.clone()).body(body, kind));
    }
    message.multipart(parts).map_err(|error| format!("the mail cannot be made: {error}"))
}
