//! `smartpulse token`: a bearer token for development.

use crate::args::{SettingsArgs, TokenArgs};
use crate::failure::Failure;
use crate::setup;
use crate::style::print;
use smartpulse_api::{DevelopmentToken, Role, development_token};
use smartpulse_config::Settings;
use std::time::Duration;
use uuid::Uuid;

pub fn token(args: &SettingsArgs, token: &TokenArgs) -> Result<(), Failure> {
    let settings = Settings::load(&setup::load_options(args))?;
    let token = DevelopmentToken {
        user: token.user,
        role: token.role.into(),
        companies: token.companies.clone(),
        ttl: token.ttl,
    };
    let text = development_token(&settings.api.auth, &settings.environment, &token)?;
    print(&format!("{text}\n"))?;
    Ok(())
}

/// A role, as typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum RoleArg {
    /// Reads the companies' forecasts
    Viewer,
    /// Reads and writes them
    Editor,
    /// Reads and writes all forecasts
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Editor => Self::Editor,
            RoleArg::Admin => Self::Admin,
        }
    }
}

/// The user of the demo's tokens.
pub const DEMO_USER: Uuid = Uuid::from_u128(0xde00_0000_0000_4000_8000_0000_0000_0001);

/// A duration such as `90s`, `30m`, `1h` or `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let help = || format!("`{text}` is no duration: write 90s, 30m, 1h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(help)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(help()),
    };
    let number: u64 = number.parse().map_err(|_| help())?;
    number.checked_mul(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, seconds) in [("90s", Some(90)), ("30m", Some(1_800)), ("1h", Some(3_600)), ("7d", Some(604_800))] {
            assert_eq!(parse_duration(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        }
        for text in ["", "s", "0s", "1", "-1h", "1w", "1.5h", "99999999999999999999h", "18446744073709551615d", "1é"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
