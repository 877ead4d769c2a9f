//! What a push notification says, as pipelines and the API give it.

use serde::Deserialize;
use serde_json::Value;
use smartpulse_clients::push::DeviceType;
use uuid::Uuid;

/// A day: what nobody has looked at by then is no news.
const TTL_DEFAULT_S: u32 = 86_400;

/// Four weeks: what FCM keeps at most.
const TTL_MAX_S: u32 = 2_419_200;

/// RFC 8030, section 5.4: 32 characters of base64url.
const TOPIC_MAX: usize = 32;

/// A notification to the devices of a user.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushMessage {
    /// Which: UUIDv5 of rule, entity, version, channel and user, so that it is told once.
    pub id: Uuid,
    /// Whose devices.
    pub user_id: Uuid,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
    /// What a click opens.
    #[serde(default)]
    pub url: Option<String>,
    /// What the page or app gets besides: an object.
    #[serde(default)]
    pub data: Option<Value>,
    /// How long the service keeps it for a device that is away, in seconds (RFC 8030, section 5.2), and how old it may be
    /// when it is sent; a day by default, four weeks at most.
    #[serde(default = "ttl_default")]
    pub ttl: u32,
    /// How much it may disturb (RFC 8030, section 5.3).
    #[serde(default)]
    pub urgency: Urgency,
    /// Replaces an earlier message of the same topic that a device has not seen yet (RFC 8030, section 5.4).
    #[serde(default)]
    pub topic: Option<String>,
    /// To which devices.
    #[serde(default)]
    pub device_type: DeviceType,
}

fn ttl_default() -> u32 {
    TTL_DEFAULT_S
}

/// RFC 8030, section 5.3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// When the device is on power and Wi-Fi.
    VeryLow,
    /// On power or Wi-Fi.
    Low,
    /// Whenever the device is awake.
    #[default]
    Normal,
    /// At once.
    High,
}

impl Urgency {
    /// As the header says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VeryLow => "very-low",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

impl PushMessage {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let message: Self =
            serde_json::from_slice(document).map_err(|error| format!("the notification cannot be read: {error}"))?;
        if message.title.is_empty() {
            return Err("the notification has no title".to_owned());
        }
        if message.ttl > TTL_MAX_S {
            return Err(format!("ttl is {} s, and services keep a message for {TTL_MAX_S} s at most", message.ttl));
        }
        if message.data.as_ref().is_some_and(|data| !data.is_object()) {
            return Err("data is no object".to_owned());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if let Some(topic) =
            message.topic.as_deref().filter(|topic| topic.len() > TOPIC_MAX || !topic.chars().all(plain))
        {
            return Err(format!("topic {topic:?} is none: letters, digits, - and _ only, {TOPIC_MAX} at most"));
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_says_what_is_wrong_with_it() {
        let whole = json!({"id": Uuid::nil(), "userId": Uuid::nil(), "title": "t", "body": "b"});
        let message = PushMessage::parse(whole.to_string().as_bytes()).unwrap();
        assert_eq!((message.ttl, message.urgency, message.device_type), (86_400, Urgency::Normal, DeviceType::Both));
        for (member, value, reason) in [
            ("title", json!(""), "no title"),
            ("id", json!("x"), "UUID"),
            ("ttl", json!(2_419_201), "at most"),
            ("ttl", json!(-1), "cannot be read"),
            ("data", json!([1]), "no object"),
            ("topic", json!("a b"), "is none"),
            ("topic", json!("x".repeat(33)), "is none"),
            ("urgency", json!("loud"), "very-low"),
            ("deviceType", json!("Pager"), "WebPush"),
        ] {
            let mut wrong = whole.clone();
            wrong[member] = value;
            let error = PushMessage::parse(wrong.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{member}: {error}");
        }
    }
}
