//! A folder of its own for each test, and the program in it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pipelines of the repository.
pub fn pipeline(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/pipelines").join(name).canonicalize().expect(name)
}

/// A working folder without settings of its own.
pub struct Place {
    folder: TempDir,
}

/// What a finished command left.
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect(name);
        path
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect(name)
    }

    /// The program in this folder, with nothing of the test's own environment that it would look at.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smartpulse"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SMARTPULSE") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.folder.path())
            .env("SMARTPULSE__LOG__LEVEL", "warn")
            .env("SMARTPULSE__API__LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run<const N: usize>(&self, args: [&str; N]) -> Done {
        done(self.command().args(args).output().expect("the program starts"))
    }
}

pub fn done(output: Output) -> Done {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Done {
    /// Asserts the exit code, showing everything when it is another.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// Waits until a condition holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program that runs on; killed when it is dropped, whatever the test found.
pub struct Live {
    child: Option<Child>,
}

impl Live {
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        Self { child: Some(child) }
    }

    /// The same with its standard output in a file, to be read while it runs.
    pub fn printing(command: &mut Command, file: &Path) -> Self {
        let file = std::fs::File::create(file).expect("a file");
        let child = command.stdout(file).stderr(Stdio::piped()).spawn().expect("the program starts");
        Self { child: Some(child) }
    }

    pub fn running(&mut self) -> bool {
        let child = self.child.as_mut().expect("not ended");
        child.try_wait().expect("its status").is_none()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("not ended").id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(sent.success());
    }

    /// Waits for its end.
    pub fn end(mut self) -> Done {
        wait_until("the end of the program", || !self.running());
        done(self.child.take().expect("not ended").wait_with_output().expect("its output"))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
