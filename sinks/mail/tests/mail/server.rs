//! A mail server that nobody here wrote: `aiosmtpd`, from PyPI, with Python's parser of mails.

use serde_json::Value;
use smartpulse_testing::python_with;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Pinned: what is tested against should not change by itself.
const PACKAGES: [&str; 1] = ["aiosmtpd==1.4.6"];

pub struct Server {
    child: Child,
    pub port: u16,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    /// On a port, or on any with 0; none where it cannot be had, which was said.
    pub fn start(port: u16) -> Option<Self> {
        let python = python_with(env!("CARGO_TARGET_TMPDIR"), &PACKAGES)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mail/server.py");
        let mut command = Command::new(python);
        command.arg(script).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let port = first.strip_prefix("PORT ").unwrap().parse().unwrap();
        let taken: Arc<Mutex<Vec<Value>>> = Arc::default();
        let own = Arc::clone(&taken);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                own.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Some(Self { child, port, taken })
    }

    /// The mails that it took.
    pub fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
