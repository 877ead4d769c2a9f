//! Whom the demo tells: two people of the company that the lines to try are about.

use crate::failure::Failure;
use crate::setup::{Session, shown};
use crate::style::Paint;
use serde_json::{Map, Value, json};
use smartpulse_api::{DevelopmentToken, Role, development_token};
use smartpulse_clients::database::Database;
use smartpulse_pipeline::error::Result;
use std::time::Duration;
use uuid::Uuid;

/// The table of users.
const USERS: &str = "SysUser";

/// How long their tokens are good.
const TOKEN_LIFE: Duration = Duration::from_secs(86_400);

/// Somebody of the demo's company.
struct Person {
    id: Uuid,
    name: &'static str,
    role: (&'static str, Role),
}

const PEOPLE: [Person; 2] = [
    Person {
        id: Uuid::from_u128(0xde00_0000_0000_4000_8000_0000_0000_00aa),
        name: "Anna",
        role: ("editor", Role::Editor),
    },
    Person {
        id: Uuid::from_u128(0xde00_0000_0000_4000_8000_0000_0000_00be),
        name: "Ben",
        role: ("viewer", Role::Viewer),
    },
];

/// Makes them users of the company, where they are not there yet.
///
/// # Errors
/// The database's.
pub async fn settle(database: &dyn Database, company: &str) -> Result<()> {
    let row = |person: &Person| -> Map<String, Value> {
        let email = format!("{}@demo.example", person.name.to_lowercase());
        let members = [
            ("id", json!(person.id)),
            ("companyId", json!(company)),
            ("email", json!(email)),
            ("displayName", json!(person.name)),
            ("role", json!(person.role.0)),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    database.insert_absent(USERS, &PEOPLE.each_ref().map(row)).await?;
    Ok(())
}

/// The lines about them: who they are, and how to read what they were told.
///
/// # Errors
/// When the settings have no key to sign tokens with.
pub fn lines(session: &Session, company: &str, url: &str, paint: Paint) -> Result<Vec<String>, Failure> {
    let settings = &session.settings;
    let company = Uuid::parse_str(company).ok();
    let mut lines =
        vec![paint.bold("People are told when demand falls by 30 %, supply falls short, or a forecast is complete")];
    for Person { id, name, role } in PEOPLE {
        let token =
            DevelopmentToken { user: id, role: role.1, companies: company.into_iter().collect(), ttl: TOKEN_LIFE };
        let token = development_token(&settings.api.auth, &settings.environment, &token)?;
        lines.push(format!("  {name}, {}: {id}", role.0));
        lines.push(format!("  {}", paint.cyan(format!("{}={token}", name.to_uppercase()))));
    }
    let inbox = format!("curl -H \"Authorization: Bearer $ANNA\" '{url}/api/notifications?take=3'");
    let mails = format!("ls {}", shown(&settings.data_dir.join("mails")));
    lines.extend([inbox, mails].map(|line| format!("  {}", paint.cyan(line))));
    Ok(lines)
}
