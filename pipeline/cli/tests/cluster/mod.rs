//! Three instances of the program on a real Redis, a real Pulsar and the stand-in for SQL Server.

#![allow(dead_code, reason = "each test file uses its part")]

use crate::process::{Instance, LIVE, block_on, pipeline, until};
use crate::server::Server;
use serde_json::{Value, json};
use smartpulse_clients::database::{Database, Write, Written};
use smartpulse_clients::documents::SharedDocuments;
use smartpulse_clients::ledger::LedgerEntry;
use smartpulse_pipeline::Key;
use smartpulse_redis::{RedisConfig, RedisPubSub};
use smartpulse_testing::pulsar::Broker;
use smartpulse_testing::redis::RedisServer;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How many instances a cluster has.
pub const INSTANCES: usize = 3;

/// How many ids one request of the API may name.
const IDS_MAX: usize = 500;

/// Logs what an instance's cache takes over: key, version.
const TAKEN_OVER: &str = r#"
name: applied
sources:
  changes: { type: data_changed, cache: forecasts }
operators:
  line: { type: map, inputs: [changes], template: { key: "{/key}", version: "{/version}" } }
sinks:
  log: { type: file, inputs: [line], path: "${env:APPLIED}" }
"#;

/// The engines, and the instances on them.
pub struct Cluster {
    pub broker: &'static Broker,
    pub namespace: String,
    pub redis: RedisServer,
    pub server: Server,
    pub slots: Vec<Slot>,
    folder: TempDir,
}

/// An instance's place: its data folder, and the process that runs there now.
pub struct Slot {
    folder: PathBuf,
    files: Vec<PathBuf>,
    /// How often it was started.
    lives: usize,
    pub instance: Option<Instance>,
}

impl Cluster {
    /// Starts the engines; none on a machine that lacks one, which is then said.
    pub fn engines() -> Option<Self> {
        let redis = RedisServer::start()?;
        let broker = Broker::shared()?;
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let applied = folder.path().join("applied.yaml");
        std::fs::write(&applied, TAKEN_OVER).unwrap();
        let files: Vec<PathBuf> = LIVE.iter().map(|name| pipeline(name)).chain([applied]).collect();
        let slot = |n: usize| {
            let folder = make(&format!("instance-{n}"));
            Slot { folder, files: files.clone(), lives: 0, instance: None }
        };
        let slots = (0..INSTANCES).map(slot).collect();
        let server = Server::start(&make("server"));
        Some(Self { broker, namespace: broker.namespace().1, redis, server, slots, folder })
    }

    /// Starts the engines and all instances, and waits until these are ready.
    pub fn start() -> Option<Self> {
        let mut cluster = Self::engines()?;
        cluster.run_all();
        Some(cluster)
    }

    /// Has instances that are started from now on run these texts, and not the repository's beside a log of what they hear.
    pub fn set_pipelines(&mut self, pipelines: &[(&str, String)]) {
        let write = |(name, text): &(&str, String)| {
            let path = self.folder.path().join(format!("{name}.yaml"));
            std::fs::write(&path, text).unwrap();
            path
        };
        let files: Vec<PathBuf> = pipelines.iter().map(write).collect();
        self.slots.iter_mut().for_each(|slot| slot.files.clone_from(&files));
    }

    /// Starts all instances, and waits until they are ready.
    pub fn run_all(&mut self) {
        for n in 0..INSTANCES {
            self.run(n);
        }
        self.until_ready();
    }

    /// The settings of instance `n`, without those of its database.
    fn variables(&self, n: usize) -> Vec<(String, String)> {
        let of = |resource: &str, key: &str| format!("SMARTPULSE__RESOURCES__{resource}__{key}");
        vec![
            ("SMARTPULSE__API__STREAMS__INSTANCE".to_owned(), format!("instance-{n}")),
            (of("PUBSUB", "TYPE"), "redis".to_owned()),
            (of("PUBSUB", "URL"), self.redis.url()),
            (of("BUS", "TYPE"), "pulsar".to_owned()),
            (of("BUS", "SERVICE_URL"), self.broker.service_url.clone()),
            (of("BUS", "ADMIN_URL"), self.broker.admin_url.clone()),
            (of("BUS", "NAMESPACE"), self.namespace.clone()),
        ]
    }

    /// Starts an instance that is not running.
    pub fn run(&mut self, n: usize) {
        let variables = self.variables(n);
        let slot = &mut self.slots[n];
        let log = slot.log(slot.lives);
        let own = variables.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let more: Vec<(&str, &str)> = own.chain([("APPLIED", log.to_str().unwrap())]).collect();
        slot.instance = Some(self.server.run(&slot.folder, &slot.files, &more));
        slot.lives += 1;
    }

    /// What `smartpulse explain` says of a forecast.
    pub fn explain(&self, key: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smartpulse"));
        command.args(["explain", "--key", key]).current_dir(self.folder.path());
        for instance in self.instances() {
            command.args(["--instance", &instance.address()]);
        }
        let output = command.envs(self.server.variables()).envs(self.variables(0)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// `kill -9`.
    pub fn kill(&mut self, n: usize) {
        if let Some(instance) = self.slots[n].instance.take() {
            instance.kill();
        }
    }

    /// Waits until all instances are up and ready.
    pub fn until_ready(&mut self) {
        for n in 0..INSTANCES {
            self.instance(n).until_ready();
        }
    }

    pub fn instance(&mut self, n: usize) -> &mut Instance {
        self.slots[n].instance.as_mut().expect("a running instance")
    }

    /// The running instances.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.slots.iter().filter_map(|slot| slot.instance.as_ref())
    }

    /// Which instance captures forecasts.
    pub fn holder(&self) -> Option<usize> {
        let holder = self.lease()?.holder?;
        let pid = holder.split(':').nth(1)?.parse::<u32>().ok()?;
        self.slots.iter().position(|slot| slot.instance.as_ref().is_some_and(|instance| instance.id() == pid))
    }

    /// The capture lease of forecasts.
    pub fn lease(&self) -> Option<LedgerEntry> {
        let entries = block_on(async { self.server.database().ledger().unwrap().entries().await });
        entries.ok()?.into_iter().find(|entry| entry.id == "capture/changes/Forecasts")
    }

    /// What an instance answers for these keys: its documents, null where there is none; nothing when it does not answer.
    pub fn answers<'k>(&self, n: usize, keys: &[&'k str]) -> Option<BTreeMap<&'k str, Value>> {
        let instance = self.slots[n].instance.as_ref()?;
        let mut found: BTreeMap<&str, Value> = keys.iter().map(|key| (*key, Value::Null)).collect();
        for ids in keys.chunks(IDS_MAX) {
            let answer = instance.post("/api/forecasts/query", &json!({ "ids": ids }))?;
            let Value::Array(items) = answer.json()["items"].take() else { return None };
            for item in items {
                if let Some(slot) = found.get_mut(item["id"].as_str()?) {
                    *slot = item;
                }
            }
        }
        Some(found)
    }

    /// Waits until all instances answer with the database's documents; gives when they did.
    pub fn converge(&self, keys: &[String], expected: &BTreeMap<String, Value>, wait: Duration) -> Instant {
        let end = Instant::now() + wait;
        let mut open: Vec<Vec<&str>> = vec![keys.iter().map(String::as_str).collect(); INSTANCES];
        loop {
            for (n, open) in open.iter_mut().enumerate() {
                let Some(answers) = self.answers(n, open) else { continue };
                open.retain(|key| answers[key] != *expected.get(*key).unwrap_or(&Value::Null));
            }
            let now = Instant::now();
            if open.iter().all(Vec::is_empty) {
                return now;
            }
            if now >= end {
                let differ: Vec<usize> = open.iter().map(Vec::len).collect();
                let key = open.iter().flatten().next().expect("a key that differs");
                let report =
                    format!("{differ:?} keys differ\n{}\nexpected {:?}\n", self.explain(key), expected.get(*key));
                let logs: String = self.instances().map(Instance::log).collect();
                panic!("no agreement:\n{report}{logs}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The shared counters of keys, and the versions that the database has: of a deleted row its tombstone's.
    pub fn counters(&self) -> BTreeMap<String, (Option<i64>, i64)> {
        let redis = RedisPubSub::open(&RedisConfig::at(self.redis.url()), "test").unwrap();
        block_on(async {
            let database = self.server.database();
            let rows = database.scan("Forecasts", None, 1_000_000).await.unwrap();
            let gone = database.tombstones("Forecasts", None, 1_000_000).await.unwrap();
            // A tombstone stays when its row comes back.
            let mut versions: BTreeMap<Key, i64> = gone.into_iter().map(|gone| (gone.key, gone.version)).collect();
            versions.extend(rows.into_iter().map(|row| (row.key, row.version)));
            let keys: Vec<Key> = versions.keys().cloned().collect();
            let counters = redis.counters("forecast", &keys).await.unwrap();
            versions.into_iter().zip(counters).map(|((key, v), counter)| (key.to_string(), (counter, v))).collect()
        })
    }

    /// Sets the demand of a forecast; gives its new version.
    pub fn update(&self, key: &str, demand: f64) -> i64 {
        let members = json!({ "demand": demand }).as_object().cloned().unwrap();
        let write = Write::Update { key: Key::from(key), expected_version: None, members };
        let written = block_on(async { self.server.database().write("Forecasts", vec![write]).await.unwrap() });
        match &written[..] {
            [Written::Done(row)] => row.version,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until all running instances answer with this version of a forecast.
    pub fn until_version(&self, key: &str, version: i64) {
        until(&format!("version {version} of {key} is everywhere"), || {
            self.instances().all(|instance| {
                let answer = instance.get(&format!("/api/forecasts/{key}"));
                answer.is_some_and(|answer| answer.status == 200 && answer.json()["versionId"] == version)
            })
        });
    }

    /// What the caches of all lives of all instances took over, each in its own file.
    pub fn applied(&self) -> Vec<PathBuf> {
        self.slots.iter().flat_map(|slot| (0..slot.lives).map(|life| slot.log(life))).collect()
    }
}

impl Slot {
    fn log(&self, life: usize) -> PathBuf {
        self.folder.join(format!("applied-{life}.ndjson"))
    }
}
