//! A notification request, as rules and other programs publish it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use smartpulse_clients::notifications::{Audience, User};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::message::{Channel, ChannelChoice, delivery_id, request_id};
use std::time::Duration;
use uuid::Uuid;

/// What the tables hold, in characters.
const NAME_MAX: usize = 200;
const TITLE_MAX: usize = 200;
const BODY_MAX: usize = 4_000;
const TYPE_MAX: usize = 64;

/// Thirty days: longer is never, and that is what preferences are for.
const QUIET_MAX_S: u32 = 2_592_000;

/// The mail template of a request that names none.
const TEMPLATE: &str = "notification";

/// Tell these people this, by these channels.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationRequest {
    /// By which rule. With entity and version it says what is told: people are told once of it.
    pub rule: String,
    /// About what.
    pub entity: String,
    /// Its version.
    pub version: i64,
    /// Who is told.
    pub tell: Tell,
    /// By which channels.
    pub channels: Vec<ChannelChoice>,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
    /// What kind it is, for programs.
    #[serde(rename = "type")]
    pub type_: String,
    /// What a click opens.
    #[serde(default)]
    pub url: Option<String>,
    /// The template of its mail.
    #[serde(default)]
    pub template_id: Option<String>,
    /// What templates and devices get besides.
    #[serde(default)]
    pub data: Option<Map<String, Value>>,
    /// How long the rule leaves alone whom it told, in seconds.
    #[serde(default)]
    pub quiet_s: u32,
}

/// Who is told: one of these, or a role of a company.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tell {
    user: Option<Uuid>,
    forecast: Option<Uuid>,
    company: Option<Uuid>,
    role: Option<String>,
}

/// One message to one person by one channel.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryMessage<'a> {
    pub id: Uuid,
    rule: &'a str,
    entity: &'a str,
    version: i64,
    channel: Channel,
    user_id: Uuid,
    to: &'a str,
    display_name: &'a str,
    title: &'a str,
    body: &'a str,
    #[serde(rename = "type")]
    type_: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    template_id: &'a str,
    data: &'a Map<String, Value>,
    /// Where a mail is switched off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsubscribe_url: Option<String>,
    created_at: String,
}

impl NotificationRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let request: Self =
            serde_json::from_slice(document).map_err(|error| format!("the request cannot be read: {error}"))?;
        for (member, text, max) in [
            ("rule", &request.rule, NAME_MAX),
            ("entity", &request.entity, NAME_MAX),
            ("title", &request.title, TITLE_MAX),
            ("body", &request.body, BODY_MAX),
            ("type", &request.type_, TYPE_MAX),
        ] {
            let length = text.encode_utf16().count();
            if length == 0 || length > max {
                return Err(format!("{member} has {length} characters, and 1 to {max} are allowed"));
            }
        }
        if request.version < 1 {
            return Err(format!("version is {}, but versions start at 1", request.version));
        }
        if request.channels.is_empty() {
            return Err("channels is empty: name some of InApp, PushNotification, Email; or All".to_owned());
        }
        if request.quiet_s > QUIET_MAX_S {
            return Err(format!("quietS is {}, and {QUIET_MAX_S} is the most", request.quiet_s));
        }
        let leads = |url: &String| ["https://", "http://", "/"].iter().any(|start| url.starts_with(start));
        if request.url.as_ref().is_some_and(|url| !leads(url)) {
            return Err("url leads nowhere: it begins with https://, http:// or /".to_owned());
        }
        request.audience()?;
        Ok(request)
    }

    /// Who is told.
    ///
    /// # Errors
    /// What is wrong with `tell`, in one line.
    pub fn audience(&self) -> Result<Audience, String> {
        match self.tell.clone() {
            Tell { user: Some(user), forecast: None, company: None, role: None } => Ok(Audience::User(user)),
            Tell { user: None, forecast: Some(forecast), company: None, role: None } => {
                Ok(Audience::Forecast(forecast))
            }
            Tell { user: None, forecast: None, company: Some(company), role: None } => Ok(Audience::Company(company)),
            Tell { user: None, forecast: None, company, role: Some(role) } => Ok(Audience::Role { role, company }),
            _ => Err("tell names nobody: give one of user, forecast, company, role, or company and role".to_owned()),
        }
    }

    /// The channels, each once.
    #[must_use]
    pub fn channels(&self) -> Vec<Channel> {
        ChannelChoice::channels(&self.channels)
    }

    /// The quiet period that it asks for.
    #[must_use]
    pub fn quiet(&self) -> Option<Duration> {
        (self.quiet_s > 0).then(|| Duration::from_secs(u64::from(self.quiet_s)))
    }

    /// What it is told by in a quiet period: the same whenever it comes again.
    #[must_use]
    pub fn event(&self) -> String {
        request_id(&self.rule, &self.entity, self.version).to_string()
    }

    /// The message to a person.
    pub(crate) fn message<'a>(
        &'a self,
        user: &'a User,
        channel: Channel,
        data: &'a Map<String, Value>,
        time: Timestamp,
    ) -> DeliveryMessage<'a> {
        DeliveryMessage {
            id: delivery_id(&self.rule, &self.entity, self.version, channel, user.id),
            rule: &self.rule,
            entity: &self.entity,
            version: self.version,
            channel,
            user_id: user.id,
            to: &user.email,
            display_name: &user.display_name,
            title: &self.title,
            body: &self.body,
            type_: &self.type_,
            url: self.url.as_deref(),
            template_id: self.template_id.as_deref().unwrap_or(TEMPLATE),
            data,
            unsubscribe_url: None,
            created_at: time.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_says_what_is_wrong_with_it() {
        let id = Uuid::from_u128(7);
        let whole = json!({"rule": "r", "entity": "e", "version": 1, "tell": {"company": id}, "channels": ["All"],
                           "title": "t", "body": "b", "type": "x", "id": id, "added": true});
        let request = NotificationRequest::parse(whole.to_string().as_bytes()).unwrap();
        assert_eq!(request.audience(), Ok(Audience::Company(id)));
        assert_eq!(request.channels(), Channel::ALL);
        for (member, value, reason) in [
            ("rule", json!(""), "rule has 0 characters"),
            ("title", json!("x".repeat(201)), "1 to 200 are allowed"),
            ("body", json!("x".repeat(4_001)), "1 to 4000 are allowed"),
            ("type", json!("x".repeat(65)), "1 to 64 are allowed"),
            ("version", json!(0), "versions start at 1"),
            ("version", json!("1"), "cannot be read"),
            ("channels", json!([]), "channels is empty"),
            ("channels", json!(["Pager"]), "PushNotification"),
            ("tell", json!({}), "tell names nobody"),
            ("tell", json!({"user": id, "company": id}), "tell names nobody"),
            ("tell", json!({"user": null}), "tell names nobody"),
            ("tell", json!({"user": "x"}), "UUID"),
            ("tell", json!({"team": "x"}), "unknown field `team`"),
            ("url", json!("javascript:alert(1)"), "leads nowhere"),
            ("data", json!([1]), "cannot be read"),
            ("quietS", json!(2_592_001), "is the most"),
        ] {
            let mut wrong = whole.clone();
            wrong[member] = value;
            let error = NotificationRequest::parse(wrong.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{member}: {error}");
        }
    }

    #[test]
    fn an_audience_is_one_of_four_or_a_role_of_a_company() {
        let id = Uuid::from_u128(7);
        for (tell, audience) in [
            (json!({"user": id}), Audience::User(id)),
            (json!({"forecast": id}), Audience::Forecast(id)),
            (json!({"company": id}), Audience::Company(id)),
            (json!({"role": "editor"}), Audience::Role { role: "editor".to_owned(), company: None }),
            (json!({"role": "editor", "company": id}), Audience::Role { role: "editor".to_owned(), company: Some(id) }),
        ] {
            let request = json!({"rule": "r", "entity": "e", "version": 1, "tell": tell, "channels": ["InApp"],
                                 "title": "t", "body": "b", "type": "x"});
            assert_eq!(NotificationRequest::parse(request.to_string().as_bytes()).unwrap().audience(), Ok(audience));
        }
    }
}
