//! `smartpulse vapid generate`: the key pair that Web Push is signed with.

use crate::failure::Failure;
use crate::style::{Paint, print};
use smartpulse_push::vapid;
use std::fmt::Write as _;

/// Prints a new pair: for a person as the settings that take it, for a program as JSON.
pub fn generate(json: bool) -> Result<(), Failure> {
    let pair = vapid::generate()?;
    let text = if json {
        let pair = serde_json::json!({"privateKey": pair.private_key, "publicKey": pair.public_key});
        format!("{pair}\n")
    } else {
        block(&pair, Paint::stdout())
    };
    print(&text)?;
    Ok(())
}

fn block(pair: &vapid::Generated, paint: Paint) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    line(paint.bold("private key"));
    line(format!("  {}", pair.private_key));
    line(paint.dim("  keep it secret and for good: browsers that subscribed are tied to it"));
    line(String::new());
    line(paint.bold("public key"));
    line(format!("  {}", pair.public_key));
    line(paint.dim("  pages subscribe with it: pushManager.subscribe({ applicationServerKey })"));
    line(String::new());
    line(paint.bold("settings"));
    line(format!("  export SMARTPULSE_VAPID_KEY={}", pair.private_key));
    line(String::new());
    for setting in [
        "resources:",
        "  push:",
        "    type: push_services",
        "    database: main_db",
        "    web_push: { private_key: \"${env:SMARTPULSE_VAPID_KEY}\", contact: \"mailto:you@example.com\" }",
    ] {
        line(format!("  {}", paint.cyan(setting)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_carry_the_key_that_was_made() {
        let pair = vapid::generate().unwrap();
        let text = block(&pair, Paint::none());
        assert!(text.contains(&format!("export SMARTPULSE_VAPID_KEY={}\n", pair.private_key)));
        assert!(text.contains(&format!("public key\n  {}\n", pair.public_key)));
        assert!(text.lines().all(|line| line.len() <= 110), "{text}");
    }
}
