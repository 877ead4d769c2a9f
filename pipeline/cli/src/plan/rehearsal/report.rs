//! What a rehearsal found, for a person and for programs.

use crate::style::{Paint, counted, wrap};
use serde_json::{Value, json};
use smartpulse_clients::notifications::Audience;
use smartpulse_pipeline::Event;
use smartpulse_pipeline::message::Channel;
use smartpulse_sinks::{NotificationRequest, Person};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

/// People that are shown by name.
const SHOWN: usize = 10;

/// Where text begins that stands beside a name.
const INDENT: usize = 12;

/// What would become of the events of a file.
pub struct Report {
    events: Vec<Seen>,
    pub requests: Vec<Request>,
    /// What operators refuse, and why.
    pub refused: Vec<String>,
}

/// An event of the file.
struct Seen {
    section: String,
    key: String,
    version: i64,
    snapshot: bool,
    /// Whether the file has none of this key before it.
    first: bool,
}

/// What a rule asks for, and whom it would tell.
pub struct Request {
    key: String,
    version: i64,
    told: Result<Told, String>,
}

struct Told {
    rule: String,
    title: String,
    audience: String,
    channels: Vec<Channel>,
    quiet: Option<Duration>,
    people: Vec<Person>,
}

impl Request {
    /// A request that cannot be read.
    pub fn refused(event: &Event, reason: String) -> Self {
        Self { key: event.key.to_string(), version: event.version, told: Err(reason) }
    }

    /// A request to these people.
    pub fn to(request: &NotificationRequest, audience: &Audience, people: Vec<Person>) -> Self {
        let told = Told {
            rule: request.rule.clone(),
            title: request.title.clone(),
            audience: match audience {
                Audience::User(id) => format!("user {id}"),
                Audience::Company(id) => format!("company {id}"),
                Audience::Forecast(id) => format!("company of forecast {id}"),
                Audience::Role { role, company: None } => format!("role {role}"),
                Audience::Role { role, company: Some(id) } => format!("role {role} of company {id}"),
            },
            channels: request.channels(),
            quiet: request.quiet(),
            people,
        };
        Self { key: request.entity.clone(), version: request.version, told: Ok(told) }
    }
}

impl Told {
    /// How many messages it is.
    fn messages(&self) -> usize {
        let of = |person: &Person| self.channels.iter().filter(|channel| !person.off.contains(channel)).count();
        self.people.iter().map(of).sum()
    }
}

impl Report {
    /// Of these events, before anything is known of them.
    pub fn of<'e>(events: impl Iterator<Item = &'e Event>) -> Self {
        let mut known = HashSet::new();
        let events = events.map(|event| Seen {
            section: event.section.to_string(),
            key: event.key.to_string(),
            version: event.version,
            snapshot: event.snapshot,
            first: known.insert(event.key.clone()),
        });
        Self { events: events.collect(), requests: Vec::new(), refused: Vec::new() }
    }

    fn requests_of<'r>(&'r self, seen: &'r Seen) -> impl Iterator<Item = &'r Request> {
        self.requests.iter().filter(|request| request.key == seen.key && request.version == seen.version)
    }

    /// Why an event tells nobody.
    fn silence(seen: &Seen) -> &'static str {
        match (seen.snapshot, seen.first) {
            (true, _) => "it is of a snapshot, and these tell nobody",
            (false, true) => "no rule holds; the file has no version before it, so that nothing has dropped or risen",
            (false, false) => "no rule holds",
        }
    }

    pub fn json(&self) -> Value {
        let events = self.events.iter().map(|seen| {
            let requests: Vec<Value> = self.requests_of(seen).map(Request::json).collect();
            let silence = requests.is_empty().then(|| Self::silence(seen));
            json!({ "section": seen.section, "key": seen.key, "version": seen.version, "tells_nobody": silence,
                    "requests": requests })
        });
        json!({ "events": events.collect::<Vec<_>>(), "refused": self.refused })
    }

    pub fn render(&self, paint: Paint, width: usize) -> String {
        let mut text = String::new();
        for seen in &self.events {
            let _ = writeln!(text, "{} {} version {}", seen.section, paint.bold(&seen.key), seen.version);
            let mut silent = true;
            for request in self.requests_of(seen) {
                silent = false;
                request.render(&mut text, paint, width);
            }
            if silent {
                beside(&mut text, "nobody", Self::silence(seen), paint, width);
            }
            text.push('\n');
        }
        for reason in &self.refused {
            beside(&mut text, "refused", reason, paint, width);
        }
        let told = || self.requests.iter().filter_map(|request| request.told.as_ref().ok());
        let people: HashSet<_> = told().flat_map(|told| told.people.iter().map(|person| person.user.id)).collect();
        let messages: usize = told().map(Told::messages).sum();
        let _ = writeln!(
            text,
            "{}  {} to {}; nothing was sent",
            paint.green("plan"),
            counted(messages as u64, "message"),
            if people.len() == 1 { "1 person".to_owned() } else { format!("{} people", people.len()) }
        );
        text
    }
}

impl Request {
    fn json(&self) -> Value {
        match &self.told {
            Err(reason) => json!({ "refused": reason }),
            Ok(told) => json!({
                "rule": told.rule, "title": told.title, "tell": told.audience,
                "quiet_s": told.quiet.map(|quiet| quiet.as_secs()),
                "people": told.people.iter().map(|person| json!({
                    "userId": person.user.id, "displayName": person.user.display_name,
                    "channels": told.channels.iter().filter(|channel| !person.off.contains(channel)).collect::<Vec<_>>(),
                    "switchedOff": told.channels.iter().filter(|channel| person.off.contains(channel)).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            }),
        }
    }

    fn render(&self, text: &mut String, paint: Paint, width: usize) {
        let told = match &self.told {
            Ok(told) => told,
            Err(reason) => return beside(text, "refused", reason, paint, width),
        };
        let _ = writeln!(text, "  {}", paint.cyan(&told.rule));
        beside(text, "title", &told.title, paint, width);
        beside(text, "to", &told.audience, paint, width);
        if let Some(quiet) = told.quiet {
            let quiet = format!("once in {} s to the same person", quiet.as_secs());
            beside(text, "at most", &quiet, paint, width);
        }
        for (at, person) in told.people.iter().take(SHOWN).enumerate() {
            let by = |channel: &Channel| match person.off.contains(channel) {
                true => paint.dim(format!("{channel} (switched off)")),
                false => channel.to_string(),
            };
            let channels: Vec<String> = told.channels.iter().map(by).collect();
            let line = format!("{} <{}>: {}", person.user.display_name, person.user.email, channels.join(", "));
            let _ =
                writeln!(text, "    {}{line}", paint.dim(format!("{:INDENT$}", if at == 0 { "people" } else { "" })));
        }
        match told.people.len() {
            0 => beside(text, "people", "there is nobody", paint, width),
            many if many > SHOWN => {
                let more = format!("and {} more", many - SHOWN);
                beside(text, "", &more, paint, width);
            }
            _ => {}
        }
    }
}

/// A name, and text beside it that is wrapped.
fn beside(text: &mut String, name: &str, value: &str, paint: Paint, width: usize) {
    let lines = wrap(value, width.saturating_sub(INDENT + 4).max(30));
    for (at, line) in lines.iter().enumerate() {
        let name = if at == 0 { name } else { "" };
        let _ = writeln!(text, "    {}{line}", paint.dim(format!("{name:INDENT$}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smartpulse_clients::notifications::User;
    use smartpulse_pipeline::Operation;
    use uuid::Uuid;

    fn person(number: u128, name: &str, off: &[Channel]) -> Person {
        let (id, company) = (Uuid::from_u128(number), Uuid::from_u128(7));
        let email = format!("{}@demo.example", name.to_lowercase());
        let user = User { id, company, email, display_name: name.to_owned(), role: "viewer".to_owned() };
        Person { user, off: off.to_vec() }
    }

    fn event(version: i64, snapshot: bool) -> Event {
        let mut event = Event::new("forecast".into(), "f1".into(), version, Operation::Update, None);
        event.snapshot = snapshot;
        event
    }

    #[test]
    fn it_says_who_would_be_told_what_and_who_not_and_why() {
        let events = [event(1, true), event(2, false), event(3, false)];
        let mut report = Report::of(events.iter());
        let request = json!({
            "rule": "dropped", "entity": "f1", "version": 2, "tell": {"company": Uuid::from_u128(7)},
            "channels": ["InApp", "Email"], "title": "Demand fell", "body": "b", "type": "x", "quietS": 90,
        });
        let request = NotificationRequest::parse(request.to_string().as_bytes()).unwrap();
        let people = vec![person(1, "Anna", &[]), person(2, "Ben", &[Channel::Email])];
        report.requests.push(Request::to(&request, &request.audience().unwrap(), people));
        report.refused.push("notify/change_rules: rule a: its title has a hole".to_owned());
        let expected = "\
forecast f1 version 1
    nobody      it is of a snapshot, and these tell nobody

forecast f1 version 2
  dropped
    title       Demand fell
    to          company 00000000-0000-0000-0000-000000000007
    at most     once in 90 s to the same person
    people      Anna <anna@demo.example>: InApp, Email
                Ben <ben@demo.example>: InApp, Email (switched off)

forecast f1 version 3
    nobody      no rule holds

    refused     notify/change_rules: rule a: its title has a hole
plan  3 messages to 2 people; nothing was sent
";
        assert_eq!(report.render(Paint::none(), 100), expected);
    }
}
