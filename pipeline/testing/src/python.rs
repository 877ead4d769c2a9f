//! Clients of other makers from PyPI, in virtual environments below Cargo's target folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

/// The interpreter of an environment with these pinned packages, made when it is not there yet: what is tested
/// against should not change by itself. `folder` is the test's `CARGO_TARGET_TMPDIR`. None, having said why, where it cannot be
/// made: it needs `python3` with its `venv` module, and PyPI or a mirror of it.
///
/// # Panics
/// Instead of that, when `CI` is `true`.
#[must_use]
pub fn python_with(folder: &str, packages: &[&str]) -> Option<PathBuf> {
    match environment(Path::new(folder), packages) {
        Ok(python) => Some(python),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => panic!("no {}: {error}", packages.join(" ")),
        Err(error) => {
            println!(
                "SKIPPED: there is no {} to test with. Install python3-venv; PyPI is needed once.\n{error}",
                packages.join(" ")
            );
            None
        }
    }
}

fn environment(folder: &Path, packages: &[&str]) -> Result<PathBuf, String> {
    // Tests of one binary run beside each other, and may want the same one.
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = packages.first().map_or("python", |first| first.split("==").next().unwrap_or(first));
    let folder = folder.join(name);
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    let wanted = packages.join(" ");
    if std::fs::read_to_string(&ready).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("making a virtual environment in {} with {wanted}", folder.display());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages))?;
    std::fs::write(&ready, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

/// What a program printed; or that it failed, with everything it said.
///
/// # Errors
/// When it cannot be started, or ends with a failure.
pub fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(output) } else { Err(format!("{command:?}: {}\n{text}", output.status)) }
}
