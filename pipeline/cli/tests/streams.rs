//! Streams of live changes over a `kill -9` of the server.

mod process;

use process::{Instance, LIVE, PATIENCE, bearer, documents, load_week, pipeline, until};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const CLIENTS: usize = 200;

/// What one client has been told.
#[derive(Default)]
struct Heard {
    versions: HashMap<String, i64>,
    /// Changes after the whole documents that the stream began with.
    patches: usize,
    cursor: Option<String>,
    /// What must not be.
    wrong: Option<String>,
}

/// What all clients share.
struct World {
    address: Mutex<String>,
    over: AtomicBool,
}

#[test]
fn two_hundred_streams_resume_after_a_kill_with_every_version_in_order_and_none_twice() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let before = documents(folder.path());
    let mut companies: Vec<String> = before.values().map(|d| d["companyId"].as_str().unwrap().to_owned()).collect();
    companies.sort();
    companies.dedup();

    let instance = start(folder.path(), 300);
    let world = Arc::new(World { address: Mutex::new(instance.address()), over: AtomicBool::new(false) });
    let clients: Vec<(Arc<Mutex<Heard>>, JoinHandle<()>)> = (0..CLIENTS)
        .map(|n| {
            let (world, heard) = (Arc::clone(&world), Arc::<Mutex<Heard>>::default());
            let company = companies[n % companies.len()].clone();
            let own = Arc::clone(&heard);
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            (heard, thread.spawn(move || listen(&world, &company, &own)).unwrap())
        })
        .collect();
    until("every client has heard patches", || clients.iter().all(|(heard, _)| heard.lock().unwrap().patches > 20));
    instance.kill();

    let instance = start(folder.path(), 0);
    *world.address.lock().unwrap() = instance.address();
    let after = documents(folder.path());
    let latest = |company: &str| -> BTreeMap<String, i64> {
        let own = after.iter().filter(|(_, document)| document["companyId"] == company);
        own.map(|(id, document)| (id.clone(), document["versionId"].as_i64().unwrap())).collect()
    };
    let latest: Vec<BTreeMap<String, i64>> = companies.iter().map(|company| latest(company)).collect();
    until("every client has the last version of every forecast", || {
        clients.iter().enumerate().all(|(n, (heard, _))| {
            let heard = heard.lock().unwrap();
            assert_eq!(heard.wrong, None, "client {n}");
            let versions: BTreeMap<_, _> =
                heard.versions.iter().map(|(key, version)| (key.clone(), *version)).collect();
            versions == latest[n % companies.len()]
        })
    });
    // One whose company had nothing new was up to date before it came back.
    until("every client has come back", || instance.metric("sse_begun_total", &["from=\"cursor\""]) == CLIENTS as f64);
    assert_eq!(instance.metric("sse_begun_total", &["from=\"snapshot\""]), 0.0, "nobody had to start over");
    world.over.store(true, Ordering::Relaxed);
    for (heard, client) in clients {
        client.join().unwrap();
        assert_eq!(heard.lock().unwrap().wrong, None);
    }
}

fn start(folder: &Path, rate: u32) -> Instance {
    let mut files: Vec<PathBuf> = LIVE.map(pipeline).to_vec();
    files.push(pipeline("player"));
    let mut instance = Instance::run(folder, &files, &[&format!("player.changes_per_second={rate}")], &[]);
    instance.until_ready();
    instance
}

/// Opens the stream again and again, from where it broke off.
fn listen(world: &World, company: &str, heard: &Mutex<Heard>) {
    while !world.over.load(Ordering::Relaxed) {
        let address = world.address.lock().unwrap().clone();
        if let Ok(stream) = TcpStream::connect(&address) {
            // Whatever breaks the stream, the next one goes on.
            let _ = read(world, stream, company, heard);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn read(world: &World, mut stream: TcpStream, company: &str, heard: &Mutex<Heard>) -> std::io::Result<()> {
    let cursor = heard.lock().unwrap().cursor.clone();
    let resume = cursor.map(|cursor| format!("Last-Event-ID: {cursor}\r\n")).unwrap_or_default();
    let head = format!(
        "GET /api/changes?companyId={company} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n{resume}\r\n",
        bearer()
    );
    stream.write_all(head.as_bytes())?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut lines = BufReader::new(stream);
    let (mut line, mut id) = (Vec::new(), None);
    let begun = std::time::Instant::now();
    while !world.over.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
        match lines.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(_) if !line.ends_with(b"\n") => return Ok(()),
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if let Some(cursor) = text.strip_prefix("id: ") {
                    id = Some(cursor.to_owned());
                } else if let Some(data) = text.strip_prefix("data: ") {
                    heard.lock().unwrap().take(&serde_json::from_str(data)?, id.take());
                }
            }
            // What was read of the line stays in it.
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Heard {
    fn take(&mut self, message: &Value, cursor: Option<String>) {
        let Some(key) = message["DataKey"].as_str() else {
            self.wrong = Some(format!("not a change: {message}"));
            return;
        };
        let version = message["VersionId"].as_i64().unwrap();
        let whole = message["PatchItems"][0]["Path"] == "";
        let last = self.versions.insert(key.to_owned(), version);
        let right = match last {
            None => whole,
            Some(last) if whole => version == last + 1,
            Some(last) => version == last + 1 && message["PreviousVersionId"] == last,
        };
        if !right {
            self.wrong = Some(format!("{key}: after version {last:?} came {message}"));
        }
        self.patches += usize::from(!whole);
        self.cursor = cursor.or_else(|| self.cursor.take());
    }
}
