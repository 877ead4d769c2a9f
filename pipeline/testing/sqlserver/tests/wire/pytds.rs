//! The wire, driven by a second client that shares no line with the first: `python-tds`, from PyPI.
//!
//! The client is installed into a virtual environment below Cargo's target directory, which needs `python3` with its
//! `venv` module, and PyPI or a mirror of it. Where they are missing the test says so and passes, unless `CI` is `true`.

use super::start;
use smartpulse_stand_in::server::{Options, StandIn, TlsMode};
use smartpulse_testing::{python_with, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Pinned: what is tested against should not change by itself. The last two bring TLS.
const PACKAGES: [&str; 3] = ["python-tds==1.17.1", "pyOpenSSL==25.3.0", "cryptography==46.0.3"];

/// The environment's interpreter; none, having said why, where that is allowed.
fn python() -> Option<PathBuf> {
    python_with(env!("CARGO_TARGET_TMPDIR"), &PACKAGES)
}

fn check(script: &str, python: &Path, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/pytds").join(script);
    match run(Command::new(python).arg(script).args(arguments)) {
        Ok(output) => println!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_client_of_others_understands_the_wire() {
    let Some(python) = python() else { return };
    let (server, seen) = start(Options::default());
    let (strict, _) = start(Options { tls: TlsMode::Required, ..Options::default() });
    let ca = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stand-in-ca-{}.pem", std::process::id()));
    // Two servers, two authorities: one file vouches for both.
    std::fs::write(&ca, format!("{}{}", server.ca_pem(), strict.ca_pem())).unwrap();
    let ports = [server.address().port().to_string(), strict.address().port().to_string()];
    check("check.py", &python, &[&ports[0], &ports[1], ca.to_str().unwrap()]);
    let _ = std::fs::remove_file(&ca);
    assert!(seen.has("begin 5") && seen.has("commit") && seen.has("rollback") && seen.has("stopped"));
    assert_eq!(seen.loaded.lock().unwrap().len(), 1001);
}

#[test]
fn a_client_of_others_works_with_the_whole_stand_in() {
    let Some(python) = python() else { return };
    let server = StandIn::start(Options::default()).unwrap();
    server.engine().set_capture_polling(Some(Duration::from_millis(20)));
    check("engine.py", &python, &[&server.address().port().to_string()]);
}
