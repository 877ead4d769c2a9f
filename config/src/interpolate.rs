//! `${env:NAME}`, `${env:NAME:-default}` and `${file:path}` in scalars; `$${` stands for a literal `${`.

use std::fs::File;
use std::io::Read;

use crate::node::{Origin, SourceText};
use crate::yaml::EXPANDED_BYTES_MAX;

/// How variables are looked up: passed in, so that nothing here reads the process environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The most that `${file:..}` reads. Secrets and certificates are smaller; a wrong path often is not.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The most failures reported of one scalar.
const FAILURES_MAX: usize = 20;

/// Why a scalar could not be filled in.
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) help: String,
}

/// The text with everything filled in, and where it came from; `None` when there was nothing to fill in.
///
/// # Errors
/// Every failure of the scalar, so that two missing variables are reported together.
pub(crate) fn interpolate(
    text: &str,
    source: &SourceText,
    lookup: Lookup<'_>,
) -> Result<Option<(String, Origin)>, Vec<Failure>> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut origin = Origin::Literal;
    let mut failures = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            failures.push(Failure {
                message: "`${` is not closed".into(),
                help: "close it with `}`, or write `$${` for a literal `${`".into(),
            });
            break;
        };
        match expand(&rest[at + 2..at + end], source, lookup) {
            // An empty text from outside proves nothing: the rest of the scalar stands in the file.
            Ok((value, from)) if value.is_empty() => {
                if origin == Origin::Literal && from == Origin::Fallback {
                    origin = from;
                }
            }
            Ok((value, from)) => {
                if origin != Origin::Outside {
                    origin = from;
                }
                out.push_str(&value);
            }
            Err(failure) => failures.push(failure),
        }
        rest = &rest[at + end + 1..];
        // One scalar can name a file a hundred thousand times.
        if out.len() > EXPANDED_BYTES_MAX || failures.len() > FAILURES_MAX {
            break;
        }
    }
    out.push_str(rest);
    if failures.is_empty() { Ok(Some((out, origin))) } else { Err(failures) }
}

fn expand(reference: &str, source: &SourceText, lookup: Lookup<'_>) -> Result<(String, Origin), Failure> {
    if let Some(variable) = reference.strip_prefix("env:") {
        let (name, fallback) = match variable.split_once(":-") {
            Some((name, fallback)) => (name, Some(fallback)),
            None => (variable, None),
        };
        return expand_variable(name, fallback, lookup);
    }
    if let Some(path) = reference.strip_prefix("file:") {
        return read_file(path.trim(), source).map(|text| (text, Origin::Outside));
    }
    Err(Failure {
        message: format!("`${{{reference}}}` is not something to fill in"),
        help: "the forms are `${env:NAME}`, `${env:NAME:-default}` and `${file:path}`; write `$${` for a \
               literal `${`"
            .into(),
    })
}

fn expand_variable(name: &str, fallback: Option<&str>, lookup: Lookup<'_>) -> Result<(String, Origin), Failure> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(valid) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Failure {
            message: format!("`{name}` is not the name of an environment variable"),
            help: "names consist of letters, digits and `_`".into(),
        });
    }
    // As in a shell, `:-` also stands in for a variable that is set to nothing.
    match (lookup(name), fallback) {
        (Some(value), None) => Ok((value, Origin::Outside)),
        (Some(value), Some(_)) if !value.is_empty() => Ok((value, Origin::Outside)),
        (_, Some(fallback)) => Ok((fallback.to_owned(), Origin::Fallback)),
        (None, None) => Err(Failure {
            message: format!("environment variable `{name}` is not set"),
            help: format!("set it, or give a default: `${{env:{name}:-default}}`"),
        }),
    }
}

fn read_file(path: &str, source: &SourceText) -> Result<String, Failure> {
    let full = source.directory().join(path);
    let failure = |why: String| Failure {
        message: format!("cannot read `{path}`: {why}"),
        help: format!("looked for {}; a relative path is relative to the YAML file", full.display()),
    };
    let mut bytes = Vec::new();
    let file = File::open(&full).map_err(|error| failure(error.to_string()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failure(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failure(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| failure("it is not UTF-8 text".into()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
