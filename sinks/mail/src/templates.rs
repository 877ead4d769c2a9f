//! Templates of mails: `NAME.html` and `NAME.txt`, one of them or both, in minijinja's language (that of Jinja2).
//!
//! Files whose names begin with `_` are parts, for `{% include %}` and `{% extends %}`. All are compiled at start, so that a
//! mistake is found then, with its place. What is rendered into HTML is escaped. Data are values only: nothing of them is ever
//! compiled. A value that is missing fails the mail, rather than being left out silently.

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value;
use smartpulse_pipeline::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Part of every build: what a notification says, without a design of one's own.
const BUILT_IN: [(&str, &str); 4] = [
    ("_frame.html", include_str!("../templates/_frame.html")),
    ("_foot.txt", include_str!("../templates/_foot.txt")),
    ("notification.html", include_str!("../templates/notification.html")),
    ("notification.txt", include_str!("../templates/notification.txt")),
];

/// Steps that rendering one part may take: some thousand lines, and no endless loop.
const FUEL: u64 = 1_000_000;

/// The longest file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Compiled templates.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    names: BTreeSet<String>,
}

/// A mail's bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The HTML part.
    pub html: Option<String>,
    /// The text part.
    pub text: Option<String>,
}

impl Templates {
    /// Those that are built in, and the files of a folder, which replace them name by name.
    ///
    /// # Errors
    /// Fatal when the folder cannot be read or a template is wrong: with its file and line.
    pub fn load(folder: Option<&Path>) -> Result<Self> {
        let mut files: Vec<(String, String)> =
            BUILT_IN.map(|(name, source)| (name.to_owned(), source.to_owned())).to_vec();
        if let Some(folder) = folder {
            files.extend(read(folder).map_err(|error| {
                Error::fatal(format!("the mail templates in {} cannot be read", folder.display())).because(error)
            })?);
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment
            .set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
        let mut names = BTreeSet::new();
        for (name, source) in files {
            let stem = name.strip_suffix(".html").or_else(|| name.strip_suffix(".txt"));
            names.extend(stem.filter(|stem| !stem.starts_with('_')).map(str::to_owned));
            environment.add_template_owned(name.clone(), source).map_err(|error| {
                let line = error.line().map_or_else(String::new, |line| format!(":{line}"));
                Error::fatal(format!("the mail template {name}{line} is wrong")).because(error)
            })?;
        }
        Ok(Self { environment, names })
    }

    /// The bodies of a mail.
    ///
    /// # Errors
    /// What is wrong, in one line: there is no such template, or data lack what it needs.
    pub fn render(&self, template: &str, data: &Value) -> Result<Rendered, String> {
        if !self.names.contains(template) {
            let known: Vec<&str> = self.names.iter().map(String::as_str).collect();
            return Err(format!("there is no mail template {template:?}; there are {}", known.join(", ")));
        }
        let part = |suffix: &str| {
            let Ok(compiled) = self.environment.get_template(&format!("{template}{suffix}")) else { return Ok(None) };
            compiled
                .render(minijinja::value::Serde(data))
                .map(Some)
                .map_err(|error| format!("the mail cannot be rendered: {error}"))
        };
        Ok(Rendered { html: part(".html")?, text: part(".txt")? })
    }
}

/// The template files of a folder.
fn read(folder: &Path) -> std::io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.ends_with(".html") && !name.ends_with(".txt") {
            continue;
        }
        if entry.metadata()?.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!("{name} is longer than {FILE_BYTES_MAX} bytes")));
        }
        files.push((name, std::fs::read_to_string(entry.path())?));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn templates(files: &[(&str, &str)]) -> Result<Templates> {
        let folder = tempfile::tempdir().unwrap();
        for (name, source) in files {
            std::fs::write(folder.path().join(name), source).unwrap();
        }
        Templates::load(Some(folder.path()))
    }

    #[test]
    fn html_is_escaped_and_text_is_not_and_data_are_never_compiled() {
        let files = [
            ("a.html", "<p>{{ name }}</p>{% include '_b.html' %}"),
            ("_b.html", "<i>{{ name }}</i>"),
            ("a.txt", "{{ name }}"),
        ];
        let rendered = templates(&files).unwrap().render("a", &json!({"name": "<b>{{ 7 * 6 }}</b>"})).unwrap();
        let escaped = "&lt;b&gt;{{ 7 * 6 }}&lt;&#x2f;b&gt;";
        assert_eq!(rendered.html.unwrap(), format!("<p>{escaped}</p><i>{escaped}</i>"));
        assert_eq!(rendered.text.unwrap(), "<b>{{ 7 * 6 }}</b>");
    }

    #[test]
    fn a_template_may_have_one_part_and_parts_of_others_are_none() {
        let templates = templates(&[("t.txt", "x"), ("_part.html", "y")]).unwrap();
        assert_eq!(templates.render("t", &json!({})).unwrap(), Rendered { html: None, text: Some("x".to_owned()) });
        let unknown = templates.render("_part", &json!({})).unwrap_err();
        assert_eq!(unknown, "there is no mail template \"_part\"; there are notification, t");
    }

    #[test]
    fn mistakes_are_found_at_start_and_missing_values_when_a_mail_is_rendered() {
        let wrong = templates(&[("a.html", "one\n{% if %}")]).unwrap_err();
        assert!(wrong.chain().contains("a.html:2"), "{}", wrong.chain());
        let strict = templates(&[("a.txt", "{{ there }}{{ missing }}")]).unwrap();
        assert!(strict.render("a", &json!({"there": 1})).unwrap_err().contains("undefined"));
        let endless =
            templates(&[("a.txt", "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}")]);
        assert!(endless.unwrap().render("a", &json!({})).unwrap_err().contains("fuel"));
    }

    #[test]
    fn the_built_in_notification_needs_a_title_and_a_body() {
        let templates = Templates::load(None).unwrap();
        let data =
            json!({"title": "Demand & supply", "body": "crossed one half", "url": "https://app.example/1?a=1&b=2"});
        let rendered = templates.render("notification", &data).unwrap();
        assert!(rendered.html.unwrap().contains("Demand &amp; supply"));
        assert!(rendered.text.unwrap().contains("https://app.example/1?a=1&b=2"));
        assert!(templates.render("notification", &json!({"title": "t", "body": "b"})).is_ok());
        assert!(templates.render("notification", &json!({"title": "t"})).is_err());
    }
}
