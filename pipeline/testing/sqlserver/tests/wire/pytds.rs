//! The wire, driven by a second client that shares no line with the first: `python-tds`, from PyPI.
//!
//! The client is installed into a virtual environment below Cargo's target directory, which needs `python3` with its
//! `venv` module, and PyPI or a mirror of it. Where they are missing the test says so and passes, unless `CI` is `true`.

use super::start;
use smartpulse_stand_in::server::{Options, StandIn, TlsMode};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

/// Pinned: what is tested against should not change by itself. The last two bring TLS.
const PACKAGES: [&str; 3] = ["python-tds==1.17.1", "pyOpenSSL==25.3.0", "cryptography==46.0.3"];

/// The environment's interpreter; or why there is none.
fn python() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pytds");
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    let wanted = PACKAGES.join(" ");
    if std::fs::read_to_string(&ready).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("making a virtual environment in {} with {wanted}", folder.display());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES))?;
    std::fs::write(&ready, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(output) } else { Err(format!("{command:?}: {}\n{text}", output.status)) }
}

/// The environment's interpreter; none, having said why, where that is allowed.
fn python_or_skip() -> Option<PathBuf> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(python) {
        Ok(python) => Some(python.clone()),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => panic!("no python-tds: {error}"),
        Err(error) => {
            println!(
                "SKIPPED: there is no python-tds to test with. Install python3-venv; PyPI is needed once.\n{error}"
            );
            None
        }
    }
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
    let Some(python) = python_or_skip() else { return };
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
    let Some(python) = python_or_skip() else { return };
    let server = StandIn::start(Options::default()).unwrap();
    server.engine().set_capture_polling(Some(Duration::from_millis(20)));
    check("engine.py", &python, &[&server.address().port().to_string()]);
}
