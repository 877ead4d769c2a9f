//! Operators' alerts: errors that are logged become mails to the operators, in the queue that all mails go through; `mail_sender`
//! (`notify.yaml`) sends them.
//!
//! Contract:
//! - An error of a component is told once an hour to each address, however often and by however many instances it is logged:
//!   the mail's id is a function of component, message, hour and address.
//! - An instance asks for mails of at most `per_hour` different errors an hour. The others are counted, and in the log table.
//! - A database that is away is waited for, with at most [`WAITING_MAX`] mails; what comes on top of them is counted.

use prometheus::{IntCounter, Registry};
use serde_json::{Map, Value, json};
use smartpulse_clients::database::{Database, insert_each};
use smartpulse_config::{LogTableLevel, Settings};
use smartpulse_mail::{MailRequest, QUEUE, Templates};
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use smartpulse_pipeline::message::NAMESPACE;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Mails that wait for the database.
const WAITING_MAX: usize = 1_000;

/// The longest part of a message that a subject repeats.
const SUBJECT_CHARS: usize = 120;

/// Of a time as lines have it, what says the hour: `2026-01-01T01`.
const HOUR_CHARS: usize = 13;

/// Errors on their way to the operators.
#[derive(Debug)]
pub struct Alerts {
    to: Vec<String>,
    per_hour: usize,
    environment: String,
    templates: Templates,
    /// The hour of the last error.
    hour: String,
    /// The errors of this hour that were told.
    told: BTreeSet<Uuid>,
    waiting: Vec<Map<String, Value>>,
    suppressed: IntCounter,
}

impl Alerts {
    /// None when there is nobody to tell.
    ///
    /// # Errors
    /// Fatal when an address is none, when there is no log table, or the registry has a metric of this name already.
    pub fn new(settings: &Settings, registry: &Registry) -> Result<Option<Self>> {
        let (environment, table, settings) =
            (&settings.environment, &settings.log.table, &settings.notifications.operators);
        if settings.mail_to.is_empty() {
            return Ok(None);
        }
        if table.level == LogTableLevel::Off {
            let text =
                "notifications.operators.mail_to is told of what the log table keeps, and log.table.level is off";
            return Err(Error::fatal(text));
        }
        let refused = |error| Error::fatal("the metric of operators' alerts cannot be registered").because(error);
        let help = "logged errors that no mail tells the operators: more than operators.per_hour, or not to be queued";
        let suppressed = IntCounter::new("operator_alerts_suppressed_total", help).map_err(refused)?;
        registry.register(Box::new(suppressed.clone())).map_err(refused)?;
        let alerts = Self {
            to: settings.mail_to.clone(),
            per_hour: usize::try_from(settings.per_hour).unwrap_or(usize::MAX),
            environment: environment.clone(),
            templates: Templates::load(None)?,
            hour: String::new(),
            told: BTreeSet::new(),
            waiting: Vec::new(),
            suppressed,
        };
        for address in &alerts.to {
            alerts.mail(Uuid::nil(), address, "", &json!({"title": "", "body": ""})).map_err(|reason| {
                Error::fatal(format!("notifications.operators.mail_to cannot be written to: {reason}"))
            })?;
        }
        Ok(Some(alerts))
    }

    /// Notes which of these lines of the log table are to be told.
    pub fn note(&mut self, lines: &[Map<String, Value>]) {
        for line in lines.iter().filter(|line| line["level"] == "ERROR") {
            let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
            let hour: String = text("createdAt").chars().take(HOUR_CHARS).collect();
            if hour > self.hour {
                self.hour.clone_from(&hour);
                self.told.clear();
            }
            let (component, message) = (text("component"), text("message"));
            let error = Uuid::new_v5(&NAMESPACE, format!("OperatorAlert/{component}/{message}/{hour}").as_bytes());
            if self.told.contains(&error) {
                continue;
            }
            if self.told.len() >= self.per_hour || self.waiting.len() + self.to.len() > WAITING_MAX {
                self.suppressed.inc();
                continue;
            }
            self.told.insert(error);
            let head: String = message.lines().next().unwrap_or_default().chars().take(SUBJECT_CHARS).collect();
            let subject = format!("SmartPulse {}: {component}: {head}", self.environment);
            let (time, instance, fields) = (text("createdAt"), text("instance"), told_fields(text("fields")));
            let body = format!(
                "{message}\n\n{fields}\n\nLogged by {component} of instance {instance} at {time}. The same error is told once an \
                 hour; `smartpulse logs --level error` shows all."
            );
            let data = json!({"title": subject, "body": body});
            for address in &self.to {
                match self.mail(Uuid::new_v5(&error, address.as_bytes()), address, &subject, &data) {
                    Ok(row) => self.waiting.push(row),
                    Err(_) => self.suppressed.inc(),
                }
            }
        }
    }

    /// Queues what waits.
    ///
    /// # Errors
    /// When the database is away: it waits on. What the database refuses is counted.
    pub async fn queue(&mut self, database: &dyn Database) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        match insert_each(database, QUEUE, &self.waiting).await {
            Ok(refused) => self.suppressed.inc_by(refused.len() as u64),
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Transient) => return Err(error),
            Err(error) => {
                self.suppressed.inc_by(self.waiting.len() as u64);
                self.waiting.clear();
                return Err(error);
            }
        }
        self.waiting.clear();
        Ok(())
    }

    fn mail(&self, id: Uuid, to: &str, subject: &str, data: &Value) -> Result<Map<String, Value>, String> {
        let request =
            json!({"Id": id, "To": to, "Subject": subject, "TemplateId": "notification", "TemplateData": data});
        let request = MailRequest::parse(request.to_string().as_bytes())?;
        Ok(request.row(&self.templates.render("notification", data)?))
    }
}

/// The fields of a line, but for the text of a panic, which may name anything and is for the log only.
fn told_fields(fields: &str) -> String {
    let mut fields: Map<String, Value> = serde_json::from_str(fields).unwrap_or_default();
    fields.remove("panic");
    fields.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(to: &[&str], per_hour: u32) -> Settings {
        let mut settings = Settings { environment: "production".to_owned(), ..Settings::default() };
        settings.notifications.operators.mail_to = to.iter().map(ToString::to_string).collect();
        settings.notifications.operators.per_hour = per_hour;
        settings
    }

    fn told(to: &[&str], per_hour: u32) -> Result<Option<Alerts>> {
        Alerts::new(&settings(to, per_hour), &Registry::new())
    }

    fn line(level: &str, hour: u32, message: &str) -> Map<String, Value> {
        let line = json!({
            "level": level, "createdAt": format!("2026-01-01T{hour:02}:30:00.000Z"), "component": "broadcast",
            "message": message, "instance": "i", "fields": null
        });
        line.as_object().unwrap().clone()
    }

    #[test]
    fn an_error_is_told_once_an_hour_to_each_and_of_many_only_some() {
        let mut alerts = told(&["a@example.com", "b@example.com"], 2).unwrap().unwrap();
        alerts.note(&[line("WARN", 1, "no"), line("ERROR", 1, "<one>"), line("ERROR", 1, "<one>")]);
        assert_eq!(alerts.waiting.len(), 2);
        let first = &alerts.waiting[0];
        assert_eq!(first["subject"], "SmartPulse production: broadcast: <one>");
        assert!(first["bodyHtml"].as_str().unwrap().contains("&lt;one&gt;"), "{first:?}");
        alerts.note(&[line("ERROR", 1, "two"), line("ERROR", 1, "three"), line("ERROR", 1, "four")]);
        assert_eq!((alerts.waiting.len(), alerts.suppressed.get()), (4, 2));
        // Another hour, and another instance, which tells the same error of the same hour: the same mail.
        alerts.note(&[line("ERROR", 2, "<one>")]);
        let mut other = told(&["a@example.com"], 2).unwrap().unwrap();
        other.note(&[line("ERROR", 2, "<one>")]);
        let ids: BTreeSet<String> = alerts.waiting.iter().map(|mail| mail["id"].to_string()).collect();
        assert_eq!(ids.len(), 6);
        assert!(ids.contains(&other.waiting[0]["id"].to_string()));
    }

    #[test]
    fn addresses_are_looked_at_before_anything_goes_wrong() {
        assert!(told(&[], 1).unwrap().is_none());
        let error = told(&["a@example.com", "nobody"], 1).unwrap_err().chain();
        assert!(error.contains("mail_to") && error.contains("nobody"), "{error}");
        let mut unheard = settings(&["a@example.com"], 1);
        unheard.log.table.level = LogTableLevel::Off;
        let error = Alerts::new(&unheard, &Registry::new()).unwrap_err().chain();
        assert!(error.contains("log.table.level"), "{error}");
    }

    #[test]
    fn what_a_panic_said_is_told_to_the_log_only() {
        assert_eq!(told_fields(r#"{"panic":"the password","table":"Forecasts"}"#), "table: \"Forecasts\"");
        assert_eq!(told_fields(""), "");
    }
}
