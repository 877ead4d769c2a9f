//! People with inboxes, mail addresses and devices, a push service on this machine, and what became of what they are told.

#![allow(dead_code, reason = "each test file uses its part")]

use crate::process::{Instance, block_on, foreign_connection, pipeline};
use rusqlite::Connection;
use serde_json::{Value, json};
use smartpulse_clients::bus::{Bus, Outgoing};
use smartpulse_clients::database::Database;
use smartpulse_clients::embedded::{
    BusConfig, DataFolder, EmbeddedBus, SqliteConfig, SqliteDatabase, StateConfig, StateFile,
};
use smartpulse_testing::{user, uuid};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// The company of everybody.
pub const COMPANY: u64 = 0xa1;

/// Where push services are, as an operator would write it.
const SETTINGS: &str = r#"
resources:
  push:
    type: push_services
    database: main_db
    loopback: true
    web_push: { private_key: "${env:SMARTPULSE_VAPID_KEY}", contact: "mailto:ops@example.com" }
"#;

/// A data folder with users 1, 2, ... of one company.
pub struct Scene {
    pub folder: TempDir,
    pub service: PushService,
    private_key: String,
    public_key: String,
}

impl Scene {
    pub fn new(users: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("config")).unwrap();
        std::fs::write(folder.path().join("config/local.yaml"), SETTINGS).unwrap();
        let keys = Command::new(env!("CARGO_BIN_EXE_smartpulse")).args(["vapid", "generate", "--json"]).output();
        let keys: Value = serde_json::from_slice(&keys.unwrap().stdout).unwrap();
        let key = |name: &str| keys[name].as_str().unwrap().to_owned();
        block_on(async {
            let registry = prometheus::Registry::new();
            let database = SqliteDatabase::open("main_db", &SqliteConfig::default(), folder.path(), &registry).unwrap();
            database.create_schema().await.unwrap();
            let rows: Vec<_> = (1..=users).map(|number| user(number, COMPANY, "editor")).collect();
            database.insert_absent("SysUser", &rows).await.unwrap();
        });
        let (private_key, public_key) = (key("privateKey"), key("publicKey"));
        Self { folder, service: PushService::start(), private_key, public_key }
    }

    /// Another program's connection to the database.
    pub fn database(&self) -> Connection {
        foreign_connection(self.folder.path(), "main.db")
    }

    /// Gives a user a browser, whose push service counts by the user's number.
    pub fn browser(&self, user: u64) {
        // Any point of the curve is as good as a browser's own.
        let keys = json!({"p256dh": self.public_key, "auth": "AAAAAAAAAAAAAAAAAAAAAA"});
        let subscription = json!({"endpoint": format!("{}/{user}", self.service.base), "keys": keys});
        let sql =
            "INSERT INTO SysUserDeviceInfo (Id, UserId, IntegrationType, SubscriptionJson) VALUES (?1, ?2, 0, ?3)";
        self.database().execute(sql, [uuid(user), uuid(user), subscription.to_string()]).unwrap();
    }

    /// The pipelines from the database to people, of which `notify` may be another file.
    pub fn run(&self, notify: PathBuf) -> Instance {
        let files = [pipeline("capture"), pipeline("events"), notify, pipeline("push")];
        let mut instance =
            Instance::run(self.folder.path(), &files, &[], &[("SMARTPULSE_VAPID_KEY", self.private_key.as_str())]);
        instance.until_ready();
        instance
    }

    /// Publishes requests, as another program would.
    pub fn request(&self, requests: &[Value]) {
        let message = |request: &Value| Outgoing {
            key: Some(request["entity"].as_str().unwrap().to_owned()),
            payload: request.to_string().into(),
            properties: BTreeMap::new(),
        };
        let messages = requests.iter().map(message).collect();
        block_on(async {
            let folder = DataFolder::beside(self.folder.path()).unwrap();
            let file = StateFile::open(&folder, &StateConfig::default()).await.unwrap();
            let bus = EmbeddedBus::open(file, &BusConfig::default());
            bus.publish("notification:publish", messages).await.unwrap();
        });
    }

    /// The payloads of a topic, in their order.
    pub fn topic(&self, name: &str) -> Vec<Value> {
        let connection = foreign_connection(self.folder.path(), "smartpulse.db");
        let sql =
            "SELECT m.payload FROM bus_messages m JOIN bus_topics t ON t.id = m.topic WHERE t.name = ?1 ORDER BY m.id";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([name], |row| Ok(serde_json::from_slice(&row.get::<_, Vec<u8>>(0)?).unwrap()));
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// The first number that a query gives.
    pub fn number(&self, sql: &str) -> i64 {
        self.database().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The mails that left, as they were written.
    pub fn mails(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.folder.path().join("mails")) else { return Vec::new() };
        let texts = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "txt"));
        texts.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

/// A push service that takes everything (RFC 8030) and counts by path, unless it is told to be out of order.
pub struct PushService {
    base: String,
    takes: Arc<AtomicBool>,
    told: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl PushService {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let told = Arc::<Mutex<BTreeMap<String, u64>>>::default();
        let takes = Arc::new(AtomicBool::new(true));
        let (order, counts) = (Arc::clone(&takes), Arc::clone(&told));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (order, counts) = (Arc::clone(&order), Arc::clone(&counts));
                std::thread::spawn(move || serve(stream, &order, &counts));
            }
        });
        Self { base, takes, told }
    }

    /// Whether it takes messages, or answers 503.
    pub fn answer(&self, takes: bool) {
        self.takes.store(takes, Ordering::Release);
    }

    /// How many messages came for a user.
    pub fn told(&self, user: u64) -> u64 {
        self.told.lock().unwrap().get(&format!("/{user}")).copied().unwrap_or_default()
    }
}

/// Takes the requests of a connection until it ends, in whatever way.
fn serve(stream: TcpStream, takes: &AtomicBool, counts: &Mutex<BTreeMap<String, u64>>) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(read) if read > 0 => {}
                _ => return,
            }
            let line = line.trim_end().to_ascii_lowercase();
            match (line.strip_prefix("post "), line.strip_prefix("content-length: ")) {
                (Some(rest), _) => path = rest.split(' ').next().unwrap_or_default().to_owned(),
                (_, Some(value)) => length = value.parse().unwrap(),
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        if reader.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        let answer = match takes.load(Ordering::Acquire) {
            true => {
                *counts.lock().unwrap().entry(path).or_default() += 1;
                "201 Created"
            }
            false => "503 Service Unavailable",
        };
        if writer.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).is_err() {
            return;
        }
    }
}
