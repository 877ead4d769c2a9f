//! What routes about people are asked: pages of notifications, devices, preferences, push notifications.

use super::{TAKE_DEFAULT, TAKE_MAX, UNKNOWN, each, error, id, set};
use crate::error::FieldError;
use serde_json::{Map, Value};
use smartpulse_clients::delivery::Integration;
use smartpulse_clients::notifications::{Channel, DeliveryQuery, NewDevice};
use smartpulse_clients::push::{DeviceType, SendPush};
use smartpulse_pipeline::message::NAMESPACE;
use uuid::Uuid;

/// What the columns hold, in characters.
const TOKEN_CHARS_MAX: usize = 4_000;
const OS_VERSION_CHARS_MAX: usize = 64;
const TEXT_CHARS_MAX: usize = 200;

/// The longest address of a push service: those of today have some two hundred characters.
const ENDPOINT_CHARS_MAX: usize = 2_000;

/// Of base64url without padding: a point of P-256 (65 bytes), and the secret of 16 bytes (RFC 8291, section 2).
const P256DH_CHARS: usize = 87;
const AUTH_CHARS: usize = 22;

/// What fits a message of RFC 8291 (4,096 bytes, encrypted) in any language.
const TITLE_CHARS_MAX: usize = 200;
const BODY_CHARS_MAX: usize = 600;

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub skip: u32,
    pub take: u32,
}

impl Window {
    const DEFAULT: Self = Self { skip: 0, take: TAKE_DEFAULT };

    /// Takes a parameter; what is wrong with it.
    fn parameter(&mut self, name: &str, text: &str) -> Option<&'static str> {
        match (name, text.parse()) {
            ("skip", Ok(skip)) => self.skip = skip,
            ("skip", Err(_)) => return Some("must be an integer from 0 to 4294967295"),
            ("take", Ok(take @ 1..=TAKE_MAX)) => self.take = take,
            ("take", _) => return Some("must be an integer from 1 to 500"),
            _ => return Some(UNKNOWN),
        }
        None
    }
}

/// The parameters of a page.
pub(crate) fn window(parameters: &[(String, String)]) -> Result<Window, Vec<FieldError>> {
    let mut window = Window::DEFAULT;
    each(parameters, |name, text| window.parameter(name, text))?;
    Ok(window)
}

/// The parameters of a page of the ledger.
pub(crate) fn deliveries(parameters: &[(String, String)]) -> Result<DeliveryQuery, Vec<FieldError>> {
    let (mut query, mut window) = (DeliveryQuery::default(), Window::DEFAULT);
    let uuid = |text: &str| id(text).and_then(|id| id.parse::<Uuid>().ok());
    let word = |text: &str| (1..=TEXT_CHARS_MAX).contains(&text.chars().count()).then(|| text.to_owned());
    const WORD: &str = "must be a text of 1 to 200 characters";
    each(parameters, |name, text| match name {
        "deliveryId" => set(&mut query.delivery, uuid(text), "must be a UUID"),
        "userId" => set(&mut query.user, uuid(text), "must be a UUID"),
        "rule" => set(&mut query.rule, word(text), WORD),
        "entity" => set(&mut query.entity, word(text), WORD),
        "outcome" => set(&mut query.outcome, word(text), WORD),
        _ => window.parameter(name, text),
    })?;
    Ok(DeliveryQuery { skip: window.skip, take: window.take, ..query })
}

/// A body whose members are taken one by one; what is left in the end is unknown.
struct Members {
    given: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Members {
    fn of(body: Value) -> Result<Self, Vec<FieldError>> {
        match body {
            Value::Object(given) => Ok(Self { given, errors: Vec::new() }),
            _ => Err(vec![error("", "must be a JSON object")]),
        }
    }

    /// What `read` makes of a member; an error where it makes nothing of it. A member that is not there is `absent`.
    fn take<T>(&mut self, name: &str, wrong: &str, read: impl FnOnce(Option<Value>) -> Option<T>) -> Option<T> {
        let value = read(self.given.shift_remove(name));
        if value.is_none() {
            self.errors.push(error(name, wrong));
        }
        value
    }

    fn end<T>(mut self, whole: Option<T>) -> Result<T, Vec<FieldError>> {
        self.errors.extend(self.given.keys().map(|name| error(name, "is not a known member")));
        whole.filter(|_| self.errors.is_empty()).ok_or(self.errors)
    }
}

/// A text of so many characters.
fn text(value: Option<Value>, chars_max: usize) -> Option<String> {
    let Some(Value::String(text)) = value else { return None };
    (1..=chars_max).contains(&text.chars().count()).then_some(text)
}

/// A device that a user registers.
pub(crate) fn device(body: Value, user: Uuid) -> Result<NewDevice, Vec<FieldError>> {
    let mut members = Members::of(body)?;
    let kind = members.take("deviceType", "must be WebPush or FCM", |value| match value?.as_str()? {
        "WebPush" => Some(Integration::WebPush),
        "FCM" => Some(Integration::Fcm),
        _ => None,
    });
    let wrong = "must be a text of 1 to 64 characters, or null";
    let os_version = members.take("osVersion", wrong, |value| match value {
        None | Some(Value::Null) => Some(None),
        given => text(given, OS_VERSION_CHARS_MAX).map(Some),
    });
    let address = match kind {
        Some(Integration::WebPush) => {
            const WRONG: &str = "must be a subscription of Web Push: `endpoint`, an https address of 2000 characters at most, \
                                 and `keys` with `p256dh` and `auth` in base64url";
            let subscription = members.take("subscription", WRONG, |value| subscription(&value?));
            subscription.map(|(endpoint, json)| (endpoint, None, Some(json)))
        }
        Some(Integration::Fcm) => {
            let token = members.take("token", "must be 1 to 4000 characters of ASCII without spaces", |value| {
                text(value, TOKEN_CHARS_MAX).filter(|token| token.chars().all(|c| c.is_ascii_graphic()))
            });
            token.map(|token| (token.clone(), Some(token), None))
        }
        // What else belongs to it is not known.
        None => {
            members.given.clear();
            None
        }
    };
    let device =
        kind.zip(os_version).zip(address).map(|((integration, os_version), (address, token, subscription))| {
            let name = format!("device/{}/{address}", device_type(integration));
            let id = Uuid::new_v5(&NAMESPACE, name.as_bytes());
            NewDevice { id, user, integration, token, subscription, os_version }
        });
    members.end(device)
}

/// The endpoint of a subscription (Push API, `PushSubscription.toJSON`), and what of it is kept.
fn subscription(value: &Value) -> Option<(String, String)> {
    let endpoint = value.get("endpoint")?.as_str()?;
    let (authority, _) = endpoint.strip_prefix("https://")?.split_once('/')?;
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let named = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    let numbered = (1..=5).contains(&port.len()) && port.chars().all(|c| c.is_ascii_digit());
    let plain = endpoint.len() <= ENDPOINT_CHARS_MAX && endpoint.chars().all(|c| c.is_ascii_graphic());
    if !(plain && named && numbered) {
        return None;
    }
    let key = |name: &str, chars: usize| {
        let key = value.get("keys")?.get(name)?.as_str()?;
        let fits = key.len() == chars && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        fits.then_some(key)
    };
    let (p256dh, auth) = (key("p256dh", P256DH_CHARS)?, key("auth", AUTH_CHARS)?);
    let kept = serde_json::json!({ "endpoint": endpoint, "keys": { "p256dh": p256dh, "auth": auth } });
    Some((endpoint.to_owned(), kept.to_string()))
}

/// What an integration is called in requests and answers.
pub(crate) fn device_type(integration: Integration) -> &'static str {
    match integration {
        Integration::WebPush => "WebPush",
        Integration::Fcm => "FCM",
    }
}

/// The member of a channel in preferences.
pub(crate) fn member(channel: Channel) -> &'static str {
    match channel {
        Channel::InApp => "inApp",
        Channel::PushNotification => "pushNotification",
        Channel::Email => "email",
    }
}

/// The channels that a user switches.
pub(crate) fn preferences(body: Value) -> Result<Vec<(Channel, bool)>, Vec<FieldError>> {
    let mut members = Members::of(body)?;
    let mut switched = Vec::new();
    for channel in Channel::ALL {
        let name = member(channel);
        if members.given.contains_key(name) {
            let on = members.take(name, "must be true or false", |value| value?.as_bool());
            switched.extend(on.map(|on| (channel, on)));
        }
    }
    members.end(Some(switched))
}

/// A push notification to send.
pub(crate) fn send(body: Value) -> Result<SendPush, Vec<FieldError>> {
    let mut members = Members::of(body)?;
    let user = members.take("userId", "must be a UUID", |value| id(value?.as_str()?)?.parse().ok());
    let title = members.take("title", "must be a text of 1 to 200 characters", |value| text(value, TITLE_CHARS_MAX));
    let body = members.take("body", "must be a text of 1 to 600 characters", |value| text(value, BODY_CHARS_MAX));
    let device_type =
        members.take("deviceType", "must be WebPush, FCM or Both", |value| serde_json::from_value(value?).ok());
    let push = user.zip(title).zip(body).zip(device_type);
    members.end(push.map(|(((user_id, title), body), device_type): (_, DeviceType)| SendPush {
        user_id,
        title,
        body,
        device_type,
    }))
}
