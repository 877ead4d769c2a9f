//! `smartpulse logs`: what instances have logged, from the table `Logs` of the main database.

use crate::args::{LogsArgs, SettingsArgs};
use crate::failure::Failure;
use crate::serve;
use crate::setup;
use crate::style::{Paint, print};
use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, Value};
use smartpulse_clients::database::{LogQuery, Row, SharedDatabase};
use smartpulse_pipeline::Timestamp;
use std::collections::BTreeSet;

/// Levels as the table spells them, most severe first.
pub const LEVELS: [&str; 4] = ["ERROR", "WARN", "INFO", "DEBUG"];

pub fn logs(args: &SettingsArgs, logs: &LogsArgs) -> Result<(), Failure> {
    let (session, runtime) = setup::for_tools(args)?;
    let since = logs.since.map(|age| {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(Timestamp::now().as_millis().saturating_sub(age))
    });
    let query = LogQuery {
        levels: LEVELS[..=logs.level as usize].to_vec(),
        since,
        component: logs.component.clone(),
        // One more than is shown tells whether there are more.
        limit: logs.limit.saturating_add(1),
    };
    let mut rows = runtime.block_on(async {
        let database: SharedDatabase = session.resources.get(serve::DATABASE).await?;
        database.logs(&query).await.with_context(|| format!("the log table of `{}` cannot be read", serve::DATABASE))
    })?;
    let more = rows.len() > logs.limit;
    rows.truncate(logs.limit);
    // The newest at the bottom, where the eye is.
    rows.reverse();
    let lines = rows.iter().map(line).collect::<Result<Vec<_>, Failure>>()?;
    if logs.json {
        let text: String = lines.iter().map(|line| format!("{}\n", json(line))).collect();
        print(&text)?;
    } else if lines.is_empty() {
        print("no log lines\n")?;
    } else {
        print(&text(&lines, Paint::stdout()))?;
    }
    if more {
        eprintln!("there are older ones; --limit shows them");
    }
    Ok(())
}

/// A line as the database gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    created_at: String,
    level: String,
    instance: String,
    component: String,
    message: String,
    fields: Option<String>,
}

impl Line {
    /// What was said beside the message.
    fn fields(&self) -> Map<String, Value> {
        let text = self.fields.as_deref().unwrap_or_default();
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => fields,
            // Somebody else has written here.
            _ if !text.is_empty() => Map::from_iter([("fields".to_owned(), text.into())]),
            _ => Map::new(),
        }
    }
}

fn line(row: &Row) -> Result<Line, Failure> {
    Ok(serde_json::from_slice(&row.document).context("the table `Logs` is not as config/sql makes it")?)
}

/// One object, its fields among the others as the JSON logs have them.
fn json(line: &Line) -> Value {
    let mut object = Map::new();
    for (name, value) in [
        ("timestamp", &line.created_at),
        ("level", &line.level),
        ("instance", &line.instance),
        ("component", &line.component),
        ("message", &line.message),
    ] {
        object.insert(name.to_owned(), value.as_str().into());
    }
    for (name, value) in line.fields() {
        object.entry(name).or_insert(value);
    }
    Value::Object(object)
}

/// A line of text each: time, level, the instance where there are several, component, message, fields.
fn text(lines: &[Line], paint: Paint) -> String {
    let instances: BTreeSet<&str> = lines.iter().map(|line| &*line.instance).collect();
    let width = lines.iter().map(|line| line.component.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let time = line.created_at.replace('T', " ");
        let level = match &*line.level {
            "ERROR" => paint.red(format!("{:<5}", line.level)),
            "WARN" => paint.yellow(format!("{:<5}", line.level)),
            "INFO" => paint.green(format!("{:<5}", line.level)),
            other => paint.dim(format!("{other:<5}")),
        };
        let instance = match instances.len() {
            1 => String::new(),
            _ => format!("  {}", paint.dim(line.instance.chars().take(8).collect::<String>())),
        };
        let component = paint.bold(format!("{:<width$}", line.component));
        let fields: String = line.fields().iter().map(|(name, value)| format!("  {name}={value}")).collect();
        let fields = paint.dim(fields);
        text.push_str(&format!("{}  {level}{instance}  {component}  {}{fields}\n", paint.dim(time), line.message));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(instance: &str, component: &str, fields: Option<&str>) -> Line {
        Line {
            created_at: "2026-01-02T03:04:05.678Z".to_owned(),
            level: "WARN".to_owned(),
            instance: instance.to_owned(),
            component: component.to_owned(),
            message: "sink is away".to_owned(),
            fields: fields.map(str::to_owned),
        }
    }

    #[test]
    fn lines_are_aligned_and_name_the_instance_where_there_are_several() {
        let (near, far) = ("11111111-0000", "22222222-0000");
        let lines = [one(near, "api", Some(r#"{"error":"no route","tries":3}"#)), one(near, "broadcast", None)];
        let expected = "\
2026-01-02 03:04:05.678Z  WARN   api        sink is away  error=\"no route\"  tries=3
2026-01-02 03:04:05.678Z  WARN   broadcast  sink is away
";
        assert_eq!(text(&lines, Paint::none()), expected);
        let lines = [one(near, "api", None), one(far, "api", Some("not ours"))];
        let expected = "\
2026-01-02 03:04:05.678Z  WARN   11111111  api  sink is away
2026-01-02 03:04:05.678Z  WARN   22222222  api  sink is away  fields=\"not ours\"
";
        assert_eq!(text(&lines, Paint::none()), expected);
    }

    #[test]
    fn fields_stand_among_the_others_in_json_and_hide_none() {
        let line = one("i", "api", Some(r#"{"error":"no route","level":"fine"}"#));
        let expected = r#"{"timestamp":"2026-01-02T03:04:05.678Z","level":"WARN","instance":"i","component":"api","message":"sink is away","error":"no route"}"#;
        assert_eq!(json(&line).to_string(), expected);
    }
}
