//! SQL Server as a process of its own: the stand-in, `smartpulse dev sqlserver`.

#![allow(dead_code, reason = "each test file uses its part")]

use crate::process::{Instance, PATIENCE, block_on, random};
use serde_json::{Value, json};
use smartpulse_clients::database::{Database, Write};
use smartpulse_pipeline::Key;
use smartpulse_sqlserver::config::SqlServerConfig;
use smartpulse_sqlserver::database::SqlServerDatabase;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A `smartpulse dev sqlserver` that can be killed and started again on its port and data.
pub struct Server {
    port: u16,
    data: PathBuf,
    child: Child,
}

impl Server {
    pub fn start(data: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { port, data: data.to_owned(), child: Self::spawn(port, data) };
        server.until_answering();
        server
    }

    fn spawn(port: u16, data: &Path) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(data.join("server.txt")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_smartpulse"))
            .args(["dev", "sqlserver", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(data)
            .current_dir(data)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("server.txt")).unwrap_or_default()
    }

    /// It prints how to use it when schema and data are there.
    pub fn until_answering(&self) {
        let start = Instant::now();
        while block_on(async { self.database().ping().await }).is_err() || !self.log().contains("Ctrl-C ends it") {
            assert!(start.elapsed() < PATIENCE, "the stand-in is not up:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = Self::spawn(self.port, &self.data);
    }

    /// What makes the pipelines run on it.
    pub fn variables(&self) -> Vec<(String, String)> {
        let port = self.port.to_string();
        [
            ("TYPE", "sqlserver"),
            ("HOST", "127.0.0.1"),
            ("PORT", &port),
            ("USER", "sa"),
            ("PASSWORD", "Stand-in-1"),
            ("TRUST_SERVER_CERTIFICATE", "true"),
        ]
        .map(|(key, value)| (format!("SMARTPULSE__RESOURCES__MAIN_DB__{key}"), value.to_owned()))
        .into()
    }

    pub fn run(&self, folder: &Path, files: &[PathBuf], more: &[(&str, &str)]) -> Instance {
        let variables = self.variables();
        let own = variables.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let variables: Vec<(&str, &str)> = own.chain(more.iter().copied()).collect();
        Instance::run(folder, files, &[], &variables)
    }

    /// A connection of a writer.
    pub fn database(&self) -> SqlServerDatabase {
        let url = format!(
            "Server=tcp:127.0.0.1,{};Database=smartpulse;User Id=sa;Password=Stand-in-1;TrustServerCertificate=true",
            self.port
        );
        let config = SqlServerConfig::from_connection_string(url);
        SqlServerDatabase::open("writer", &config, &prometheus::Registry::new()).unwrap()
    }

    pub fn documents(&self) -> BTreeMap<String, Value> {
        let rows = block_on(async { self.database().scan("Forecasts", None, 1_000_000).await.unwrap() });
        rows.into_iter().map(|row| (row.key.to_string(), serde_json::from_slice(&row.document).unwrap())).collect()
    }

    /// Writes updates of random forecasts until it is told to stop, whatever becomes of the server meanwhile.
    pub fn writer(&self, stop: Arc<AtomicBool>, pause: Duration) -> std::thread::JoinHandle<u64> {
        let (database, keys) = (self.database(), self.documents().into_keys().collect::<Vec<_>>());
        std::thread::spawn(move || {
            block_on(async {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    let key = Key::from(keys[usize::try_from(random(keys.len() as u64)).unwrap()].as_str());
                    let members = json!({ "demand": random(1_000) as f64 / 1_000.0 }).as_object().cloned().unwrap();
                    let write = Write::Update { key, expected_version: None, members };
                    // A failed write may have been committed or not: the rows tell at the end.
                    if database.write("Forecasts", vec![write]).await.is_ok() {
                        written += 1;
                    }
                    tokio::time::sleep(pause).await;
                }
                written
            })
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
