//! Bodies and queries to typed values. Everything that is wrong is said at once; nothing unknown is let
//! through.

pub(crate) mod people;

use crate::error::FieldError;
use serde_json::{Map, Value};
use smartpulse_clients::database::ForecastQuery;
use smartpulse_json::Pointer;
use smartpulse_pipeline::Timestamp;
use uuid::Uuid;

/// How many forecasts a list gives when nothing is said.
const TAKE_DEFAULT: u32 = 20;

/// How many forecasts a list gives at most.
const TAKE_MAX: u32 = 500;

/// How many forecasts a batch asks for at most.
const BATCH_MAX: usize = 500;

/// The longest status, in characters: the column is `nvarchar(32)`.
const STATUS_CHARS_MAX: usize = 32;

/// What a member must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Id,
    Time,
    Number,
    NumberOrNull,
    /// 0 to 1.
    Fraction,
    Status,
}

/// A member that may be set.
struct Member {
    name: &'static str,
    alias: Option<&'static str>,
    kind: Type,
    required: bool,
}

const fn member(name: &'static str, kind: Type, required: bool) -> Member {
    Member { name, alias: None, kind, required }
}

const CONFIDENCE: &str = "confidence";

/// What a new forecast is made of.
const CREATE: [Member; 6] = [
    member("companyId", Type::Id, true),
    member("productionUnitId", Type::Id, true),
    member("forecastDate", Type::Time, true),
    member("demand", Type::Number, true),
    member("supply", Type::NumberOrNull, false),
    Member { name: "confidenceLevel", alias: Some(CONFIDENCE), kind: Type::Fraction, required: true },
];

/// What of a forecast may change.
const CHANGE: [Member; 5] = [
    member("forecastDate", Type::Time, false),
    member("demand", Type::Number, false),
    member("supply", Type::NumberOrNull, false),
    Member { name: "confidenceLevel", alias: Some(CONFIDENCE), kind: Type::Fraction, required: false },
    member("status", Type::Status, false),
];

/// What of a forecast never changes by request.
const FIXED: [&str; 9] = [
    "id",
    "companyId",
    "productionUnitId",
    "variance",
    "createdAt",
    "updatedAt",
    "updatedBy",
    "updatedVia",
    "versionId",
];

/// The columns of a new forecast.
pub(crate) fn created(body: Value) -> Result<Map<String, Value>, Vec<FieldError>> {
    members(body, &CREATE, &[])
}

/// The columns that a request changes; none for an empty object.
pub(crate) fn changed(body: Value) -> Result<Map<String, Value>, Vec<FieldError>> {
    members(body, &CHANGE, &FIXED)
}

fn members(body: Value, known: &[Member], fixed: &[&str]) -> Result<Map<String, Value>, Vec<FieldError>> {
    let Value::Object(mut body) = body else {
        return Err(vec![error("", "must be a JSON object")]);
    };
    let mut errors = Vec::new();
    let mut columns = Map::new();
    for member in known {
        let named = body.shift_remove(member.name).map(|value| (member.name, value));
        let aliased = member.alias.and_then(|alias| Some((alias, body.shift_remove(alias)?)));
        // The contract's own name of a member with two names is the short one.
        let missing = member.alias.unwrap_or(member.name);
        match (named, aliased) {
            (Some(_), Some((alias, _))) => errors.push(error(alias, &format!("is given again as {}", member.name))),
            (Some((name, value)), None) | (None, Some((name, value))) => match typed(member.kind, value) {
                Ok(value) => drop(columns.insert(member.name.to_owned(), value)),
                Err(wrong) => errors.push(error(name, wrong)),
            },
            (None, None) if member.required => errors.push(error(missing, "is required")),
            (None, None) => {}
        }
    }
    for name in body.keys() {
        let wrong = if fixed.contains(&name.as_str()) { "cannot be changed" } else { "is not a known member" };
        errors.push(error(name, wrong));
    }
    if errors.is_empty() { Ok(columns) } else { Err(errors) }
}

/// The value as the database takes it.
fn typed(kind: Type, value: Value) -> Result<Value, &'static str> {
    match kind {
        Type::Id => value.as_str().and_then(id).map(Value::from).ok_or("must be a UUID"),
        Type::Time => value.as_str().and_then(time).map(Value::from).ok_or("must be an RFC 3339 time"),
        Type::NumberOrNull if value.is_null() => Ok(value),
        // JSON has no infinite numbers, and one too large for a float does not parse.
        Type::Number if value.is_number() => Ok(value),
        Type::NumberOrNull if value.is_number() => Ok(value),
        Type::Number => Err("must be a number"),
        Type::NumberOrNull => Err("must be a number or null"),
        Type::Fraction => match value.as_f64() {
            Some(number) if (0.0..=1.0).contains(&number) => Ok(value),
            _ => Err("must be a number from 0 to 1"),
        },
        Type::Status => match value.as_str().map(|text| text.chars().count()) {
            Some(1..=STATUS_CHARS_MAX) => Ok(value),
            _ => Err("must be a text of 1 to 32 characters"),
        },
    }
}

/// An id as documents spell it: lower-case, with hyphens. Other spellings of a UUID are not ids.
pub(crate) fn id(text: &str) -> Option<String> {
    const HYPHENATED_CHARS: usize = 36;
    (text.len() == HYPHENATED_CHARS).then(|| Uuid::try_parse(text).ok()).flatten().map(|id| id.hyphenated().to_string())
}

/// A time as documents spell it: UTC, with milliseconds. Years have four digits there.
fn time(text: &str) -> Option<String> {
    let time: Timestamp = text.parse().ok()?;
    let spelled = time.to_string();
    (spelled.len() == "2026-01-01T00:00:00.000Z".len()).then_some(spelled)
}

/// What is wrong with a parameter that nobody reads.
const UNKNOWN: &str = "is not a known parameter";

/// The parameters of a list.
pub(crate) fn query(parameters: &[(String, String)]) -> Result<ForecastQuery, Vec<FieldError>> {
    let mut query = ForecastQuery { take: TAKE_DEFAULT, ..ForecastQuery::default() };
    each(parameters, |name, text| match name {
        "companyId" => {
            let company = id(text).map(|id| [id.into_boxed_str()].into());
            set(&mut query.companies, company, "must be a UUID")
        }
        "productionUnitId" => set(&mut query.production_unit_id, id(text), "must be a UUID"),
        "from" => set(&mut query.from, time(text), "must be an RFC 3339 time"),
        "to" => set(&mut query.to, time(text), "must be an RFC 3339 time"),
        "skip" => match text.parse() {
            Ok(skip) => {
                query.skip = skip;
                None
            }
            Err(_) => Some("must be an integer from 0 to 4294967295"),
        },
        "take" => match text.parse() {
            Ok(take @ 1..=TAKE_MAX) => {
                query.take = take;
                None
            }
            _ => Some("must be an integer from 1 to 500"),
        },
        _ => Some(UNKNOWN),
    })?;
    Ok(query)
}

/// The ids of a batch: each once, in the order given.
pub(crate) fn ids(body: &Value) -> Result<Vec<String>, Vec<FieldError>> {
    let Some(object) = body.as_object() else {
        return Err(vec![error("", "must be a JSON object")]);
    };
    let mut errors: Vec<FieldError> =
        object.keys().filter(|name| *name != "ids").map(|name| error(name, "is not a known member")).collect();
    let mut ids = Vec::new();
    match object.get("ids").and_then(Value::as_array) {
        None => errors.push(error("ids", "must be a list of UUIDs")),
        Some(texts) if texts.is_empty() || texts.len() > BATCH_MAX => {
            errors.push(error("ids", "must be 1 to 500 UUIDs"));
        }
        Some(texts) => {
            for (index, text) in texts.iter().enumerate() {
                match text.as_str().and_then(id) {
                    Some(id) if ids.contains(&id) => {}
                    Some(id) => ids.push(id),
                    None => errors.push(error(&format!("ids/{index}"), "must be a UUID")),
                }
            }
        }
    }
    if errors.is_empty() { Ok(ids) } else { Err(errors) }
}

/// Whether a body is a list of operations (RFC 6902 section 4).
pub(crate) fn operations(body: &Value) -> Result<(), Vec<FieldError>> {
    let Some(operations) = body.as_array() else {
        return Err(vec![error("", "must be a list of operations")]);
    };
    let mut errors = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let mut wrong = |member: &str, text: &str| errors.push(error(&format!("{index}/{member}"), text));
        let (has_value, has_from) = match operation.get("op").and_then(Value::as_str) {
            Some("add" | "replace" | "test") => (true, false),
            Some("move" | "copy") => (false, true),
            Some("remove") => (false, false),
            _ => {
                wrong("op", "must be add, remove, replace, move, copy or test");
                continue;
            }
        };
        let pointer = |member: &str| operation.get(member).and_then(Value::as_str).is_some_and(is_pointer);
        if !pointer("path") {
            wrong("path", "must be a JSON pointer");
        }
        if has_from && !pointer("from") {
            wrong("from", "must be a JSON pointer");
        }
        if has_value && operation.get("value").is_none() {
            wrong("value", "is required");
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn is_pointer(text: &str) -> bool {
    text.parse::<Pointer>().is_ok()
}

/// What a stream is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamQuery {
    pub company_id: Option<String>,
    pub last_event_id: Option<String>,
}

/// The parameters of a stream; `more` of them beyond those that every stream has.
pub(crate) fn stream(parameters: &[(String, String)], more: &[&str]) -> Result<StreamQuery, Vec<FieldError>> {
    let mut query = StreamQuery::default();
    each(parameters, |name, text| match name {
        // The gate has taken it.
        "ticket" => None,
        "lastEventId" => {
            query.last_event_id = Some(text.to_owned());
            None
        }
        "companyId" if more.contains(&"companyId") => set(&mut query.company_id, id(text), "must be a UUID"),
        _ => Some(UNKNOWN),
    })?;
    Ok(query)
}

/// Takes parameters one by one, each at most once; `take` says what is wrong with one. All errors at once.
fn each(
    parameters: &[(String, String)],
    mut take: impl FnMut(&str, &str) -> Option<&'static str>,
) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    for (index, (name, text)) in parameters.iter().enumerate() {
        let again = parameters[..index].iter().any(|(before, _)| before == name);
        let wrong = if again { Some("is given more than once") } else { take(name, text) };
        errors.extend(wrong.map(|wrong| error(name, wrong)));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The value of a parameter in a query, as it stands there.
pub(crate) fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn set<T>(place: &mut Option<T>, value: Option<T>, wrong: &'static str) -> Option<&'static str> {
    let failed = value.is_none().then_some(wrong);
    *place = value;
    failed
}

fn error(field: &str, error: &str) -> FieldError {
    FieldError { field: field.to_owned(), error: error.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COMPANY: &str = "0b0a1c60-0000-4000-8000-00000000000a";
    const UNIT: &str = "0b0a1c60-0000-4000-8000-00000000000b";

    fn check(result: Result<Map<String, Value>, Vec<FieldError>>, expected: Result<Value, &[(&str, &str)]>) {
        let expected = expected.map_err(|errors| errors.iter().map(|(f, e)| error(f, e)).collect::<Vec<_>>());
        assert_eq!(result.map(Value::Object), expected);
    }

    #[test]
    fn a_new_forecast_is_spelled_as_documents_are() {
        check(
            created(json!({
                "companyId": COMPANY.to_uppercase(), "productionUnitId": UNIT, "demand": 450,
                "forecastDate": "2026-01-01T01:00:00+01:00", "supply": null, "confidence": 0.5
            })),
            Ok(json!({
                "companyId": COMPANY, "productionUnitId": UNIT, "forecastDate": "2026-01-01T00:00:00.000Z",
                "demand": 450, "supply": null, "confidenceLevel": 0.5
            })),
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        check(
            created(json!({
                "id": COMPANY, "companyId": "x", "forecastDate": "tomorrow", "demand": "450", "supply": true,
                "confidence": 0.5, "confidenceLevel": 0.5, "colour": 1
            })),
            Err(&[
                ("companyId", "must be a UUID"),
                ("productionUnitId", "is required"),
                ("forecastDate", "must be an RFC 3339 time"),
                ("demand", "must be a number"),
                ("supply", "must be a number or null"),
                ("confidence", "is given again as confidenceLevel"),
                ("id", "is not a known member"),
                ("colour", "is not a known member"),
            ]),
        );
        check(created(json!([])), Err(&[("", "must be a JSON object")]));
    }

    #[test]
    fn a_change_touches_only_what_may_change() {
        check(changed(json!({})), Ok(json!({})));
        check(
            changed(json!({"confidence": 1, "status": "Completed", "supply": null})),
            Ok(json!({"supply": null, "confidenceLevel": 1, "status": "Completed"})),
        );
        check(
            changed(
                json!({"demand": null, "status": "", "confidenceLevel": 1.01, "companyId": COMPANY, "versionId": 7}),
            ),
            Err(&[
                ("demand", "must be a number"),
                ("confidenceLevel", "must be a number from 0 to 1"),
                ("status", "must be a text of 1 to 32 characters"),
                ("companyId", "cannot be changed"),
                ("versionId", "cannot be changed"),
            ]),
        );
    }

    #[test]
    fn ids_and_times_have_one_spelling() {
        for (text, expected) in [
            (COMPANY, Some(COMPANY)),
            ("0B0A1C60-0000-4000-8000-00000000000A", Some(COMPANY)),
            ("0b0a1c60000040008000-00000000000a", None),
            ("{0b0a1c60-0000-4000-8000-00000000000a}", None),
            ("", None),
            ("0b0a1c60-0000-4000-8000-00000000000g", None),
        ] {
            assert_eq!(id(text).as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", Some("2026-01-01T00:00:00.000Z")),
            ("2026-01-01T00:00:00.123456-02:00", Some("2026-01-01T02:00:00.123Z")),
            ("2026-01-01", None),
            ("9999-12-31T23:59:59-23:00", None),
            ("", None),
        ] {
            assert_eq!(time(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_query_is_checked_as_a_whole() {
        let query = |text: &[(&str, &str)]| {
            query(&text.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(query(&[]), Ok(ForecastQuery { take: 20, ..ForecastQuery::default() }));
        assert_eq!(
            query(&[("companyId", COMPANY), ("from", "2026-01-01T00:00:00Z"), ("skip", "5"), ("take", "500")]),
            Ok(ForecastQuery {
                companies: Some([COMPANY.into()].into()),
                from: Some("2026-01-01T00:00:00.000Z".to_owned()),
                skip: 5,
                take: 500,
                ..ForecastQuery::default()
            })
        );
        let wrong = query(&[
            ("companyId", "x"),
            ("productionUnitId", ""),
            ("from", "1"),
            ("to", "2"),
            ("skip", "-1"),
            ("take", "501"),
            ("take", "1"),
            ("page", "1"),
        ]);
        let names: Vec<(String, String)> = wrong.unwrap_err().into_iter().map(|e| (e.field, e.error)).collect();
        let expected = [
            ("companyId", "must be a UUID"),
            ("productionUnitId", "must be a UUID"),
            ("from", "must be an RFC 3339 time"),
            ("to", "must be an RFC 3339 time"),
            ("skip", "must be an integer from 0 to 4294967295"),
            ("take", "must be an integer from 1 to 500"),
            ("take", "is given more than once"),
            ("page", "is not a known parameter"),
        ];
        assert_eq!(names, expected.map(|(n, e)| (n.to_owned(), e.to_owned())));
    }
}
