//! Real processes of the binary, and what tests ask of them.

#![allow(dead_code, reason = "each test file uses its part")]

use rusqlite::Connection;
use serde_json::Value;
use smartpulse_clients::database::Database;
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine, and short enough to see a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The live pipelines of the repository, without the player.
pub const LIVE: [&str; 5] = ["capture", "sync", "cache", "events", "invalidate"];

/// A pipeline that writes what an instance hears, in order, to a file of its own.
pub const APPLIED: &str = r#"
name: applied
sources:
  changes: { type: pubsub, pubsub: pubsub, channel: "__dataChanged:production:forecast:*" }
sinks:
  log: { type: file, inputs: [changes], path: "${env:APPLIED}" }
"#;

pub fn pipeline(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../config/pipelines/{name}.yaml"))
}

/// A running `smartpulse run`.
pub struct Instance {
    child: Child,
    base: String,
    log: PathBuf,
}

impl Instance {
    /// Starts pipelines on a data folder. `sets` are `--set` arguments.
    pub fn run(folder: &Path, files: &[PathBuf], sets: &[&str], variables: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = folder.join(format!("log-{port}.txt"));
        let output = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_smartpulse"));
        command.arg("run").args(files);
        for set in sets {
            command.arg("--set").arg(set);
        }
        let child = command
            .env("SMARTPULSE__DATA_DIR", folder)
            .env("SMARTPULSE__API__LISTEN", format!("127.0.0.1:{port}"))
            .envs(variables.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, base: format!("http://127.0.0.1:{port}"), log }
    }

    /// Host and port of the API.
    pub fn address(&self) -> String {
        self.base.trim_start_matches("http://").to_owned()
    }

    /// `http://host:port` of the API.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the API says that it is ready.
    pub fn until_ready(&mut self) {
        let start = Instant::now();
        while self.get("/health/ready").map(|answer| answer.status) != Some(200) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the process ended with {status}:\n{}", self.log());
            }
            assert!(start.elapsed() < PATIENCE, "not ready in time:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> (Option<i32>, String) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.log());
            }
            assert!(start.elapsed() < PATIENCE, "did not stop in time:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As an admin.
    pub fn get(&self, path: &str) -> Option<Answer> {
        get(&self.base, path)
    }

    /// As an admin, with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Option<Answer> {
        let request = agent().post(format!("{}{path}", self.base)).header("authorization", bearer());
        Answer::of(request.header("content-type", "application/json").send(body.to_string()).ok()?)
    }

    /// As an admin, with a merge patch and more headers.
    pub fn patch(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Option<Answer> {
        let mut request = agent().patch(format!("{}{path}", self.base)).header("authorization", bearer());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.header("content-type", "application/json").send(body.to_string()).ok()?)
    }

    pub fn forecast(&self, id: &str) -> Answer {
        self.get(&format!("/api/forecasts/{id}")).unwrap_or_else(|| panic!("no answer:\n{}", self.log()))
    }

    /// The sum of a metric's series whose labels contain all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").expect("metrics").body;
        let series = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|l| line.contains(l))
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One for all: making one reads certificates, which takes longer than an answer. It keeps no connection.
fn agent() -> &'static ureq::Agent {
    static AGENT: OnceLock<ureq::Agent> = OnceLock::new();
    AGENT.get_or_init(|| {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(0);
        config.timeout_global(Some(Duration::from_secs(10))).build().into()
    })
}

/// Asks an instance, as an admin; nothing when it does not answer.
pub fn get(base: &str, path: &str) -> Option<Answer> {
    Answer::of(agent().get(format!("{base}{path}")).header("authorization", bearer()).call().ok()?)
}

/// The `Authorization` of an admin, from the program itself.
pub fn bearer() -> &'static str {
    static BEARER: OnceLock<String> = OnceLock::new();
    BEARER.get_or_init(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smartpulse"));
        let output =
            command.args(["token", "--user", "0b0a1c60-0000-4000-8000-0000000000aa", "--ttl", "1d"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        format!("Bearer {}", String::from_utf8(output.stdout).unwrap().trim())
    })
}

/// What the API answered.
pub struct Answer {
    pub status: u16,
    pub level: String,
    /// Whether it says that something newer may exist.
    pub stale: bool,
    pub body: String,
}

impl Answer {
    fn of(mut response: ureq::http::Response<ureq::Body>) -> Option<Self> {
        let mut body = String::new();
        response.body_mut().as_reader().read_to_string(&mut body).ok()?;
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (level, stale) = (header("x-cache-level"), header("x-cache-stale") == "true");
        Some(Self { status: response.status().as_u16(), level, stale, body })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Creates the schema and the demo's week in a data folder.
pub fn load_week(folder: &Path) {
    block_on(async {
        let database = open(folder);
        database.create_schema().await.unwrap();
        smartpulse_sources::load_week(&database).await.unwrap();
    });
}

/// Every forecast of the database by id, as the product's own reader renders it.
pub fn documents(folder: &Path) -> BTreeMap<String, Value> {
    block_on(async {
        let rows = open(folder).scan("Forecasts", None, 1_000_000).await.unwrap();
        rows.into_iter().map(|row| (row.key.to_string(), serde_json::from_slice(&row.document).unwrap())).collect()
    })
}

/// A connection of another program: nothing of the product is in it.
pub fn foreign_connection(folder: &Path, file: &str) -> Connection {
    let connection = Connection::open(folder.join(file)).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection
}

fn open(folder: &Path) -> SqliteDatabase {
    SqliteDatabase::open("main_db", &SqliteConfig::default(), folder, &prometheus::Registry::new()).unwrap()
}

/// Runs a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A number below `below`.
pub fn random(below: u64) -> u64 {
    RandomState::new().hash_one(0_u8) % below
}

/// Waits until `holds`.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
