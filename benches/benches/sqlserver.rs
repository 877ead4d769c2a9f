//! SQL Server: rows inserted in bulk, what a captured row costs us, and how much memory a long backlog takes.
//!
//! What: (i) 10,000 notifications by `insert_absent`, which loads them in bulk, against calls of it with one row each, and
//! against what one would write by hand: `INSERT .. VALUES` with 100 rows of parameters, 100 times. (ii) The changes of
//! `Forecasts` read to their end in both modes. `floor` is `tiberius` alone: one SELECT of the same rows, each thrown
//! away. `capture` is `Database::changes`, page by page, up to changes with their documents. `graph` is the `cdc` source in
//! the runtime with acks, lease and committed positions, into a sink that counts. (iii) The same graph over a backlog
//! of 1,000,000 changes, with the largest page that its settings allow.
//!
//! Method: the server is the stand-in, in a process of its own; its speed says nothing, so that only ratios on it count,
//! and what our own process spends. Each measurement of (ii) and (iii) is a fresh process, which reports its CPU time (all
//! threads, user and system, from /proc/self/task/*/schedstat; after connecting) and its peak of resident memory (VmHWM).
//! The wire is encrypted, as the product's default has it, on all sides. The sides take turns; medians of the rounds.
//!
//! Result (2 vCPU Xeon, shared; medians of 3 rounds of 50,000 rows): (i) in bulk 52,000 rows/s; one by one takes 12.2 times as
//! long, by hand 2.9 times. (ii) CPU per row, change tracking: floor 3.7 us, capture 7.6 (2.07 times the floor), graph 10.5 (2.87); CDC: floor
//! 4.3 us, capture 15.9 (3.71), graph 18.2 (4.25). So the connector's own share is 3.9 us by change tracking and 11.6 us by CDC, which
//! read 2.1 rows per change then; its pages have become shorter since, which is not in these figures. Rows per second were the server's limit, 6,000 and 40,000 to 46,000. (iii) 1,000,000 changes: a peak
//! of 30 MB by change tracking and 38 MB by CDC (in another run, beside other work).
//!
//! Run: `cargo bench -p smartpulse-benches --bench sqlserver`; `ROWS`, `BACKLOG`, `NOTIFICATIONS` and `ROUNDS` make it
//! smaller. Linux only.

use async_trait::async_trait;
use futures::TryStreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use smartpulse_benches::median;
use smartpulse_clients::database::{CaptureMode, Database, Poll, SharedDatabase};
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_clients::ledger::Lease;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{BuildContext, Config, ResourceConfig, ResourceContext, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::{Batch, Position};
use smartpulse_sqlserver::config::SqlServerConfig;
use smartpulse_sqlserver::connection::Param;
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_sqlserver::retrying;
use smartpulse_stand_in::server::{Options, StandIn};
use smartpulse_stand_in::session::{Output, Session};
use smartpulse_testing::{Rig, uuid};
use std::any::Any;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tiberius::{ColumnData, QueryItem};
use tokio_util::compat::TokioAsyncWriteCompatExt;

const TABLE: &str = "Forecasts";
const MODES: [CaptureMode; 2] = [CaptureMode::ChangeTracking, CaptureMode::Cdc];
/// Rows of one transaction of the backlog, and of one statement by hand.
const TRANSACTION: usize = 500;
const BY_HAND: usize = 100;
/// A page as the settings have it by default, and the largest they allow.
const PAGE: usize = 500;
const PAGE_MAX: usize = 10_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| args.iter().position(|arg| arg == flag).map(|at| &args[at + 1..]);
    if after("--serve").is_some() {
        return serve();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match after("--client") {
        Some(args) => runtime.block_on(client(args)),
        None => runtime.block_on(measure()),
    }
}

/// A number of the environment.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

async fn measure() {
    let (rows, backlog, rounds) = (number("ROWS", 50_000), number("BACKLOG", 1_000_000), number("ROUNDS", 3));
    let mut server = Server::start();
    let database = open(server.port);
    database.create_schema().await.expect("the schema");
    inserts(&database, number("NOTIFICATIONS", 10_000), rounds).await;
    // The capture job has come to the table.
    server.fill(0, 0);
    let mut heads = Vec::new();
    for mode in MODES {
        heads.push(database.head(TABLE, mode).await.expect("a head").to_string());
    }
    server.fill(0, rows);
    for (mode, head) in MODES.into_iter().zip(&heads) {
        let mut sides: [Vec<Spent>; 3] = Default::default();
        for _ in 0..rounds {
            for (side, spent) in ["floor", "capture", "graph"].into_iter().zip(&mut sides) {
                spent.push(server.client(side, mode, head, rows, PAGE));
            }
        }
        let cpu = |side: &[Spent]| median(side.iter().map(|spent| spent.cpu * 1e6 / rows as f64).collect());
        let rate = |side: &[Spent]| median(side.iter().map(|spent| rows as f64 / spent.elapsed).collect());
        let floor = cpu(&sides[0]);
        for (name, side) in ["floor", "capture", "graph"].into_iter().zip(&sides) {
            println!(
                "{mode:?}: {name:<8} {:>6.2} us of CPU per row, ratio {:>5.2}; {:>8.0} rows/s with this server",
                cpu(side),
                cpu(side) / floor,
                rate(side)
            );
        }
    }
    server.fill(rows, backlog.saturating_sub(rows));
    for (mode, head) in MODES.into_iter().zip(&heads) {
        let spent = server.client("graph", mode, head, backlog, PAGE_MAX);
        println!("{mode:?}: {backlog} changes drained with a peak of {:.0} MB", spent.peak_mb);
    }
}

/// (i): seconds per side, the sides in turns.
async fn inserts(database: &SqlServerDatabase, count: usize, rounds: usize) {
    let rows: Vec<Map<String, Value>> = (0..count as u64).map(notification).collect();
    let mut sides: [Vec<f64>; 3] = Default::default();
    for round in 0..=rounds {
        for (side, seconds) in sides.iter_mut().enumerate() {
            let started = Instant::now();
            match side {
                0 => {
                    let inserted = database.insert_absent("Notifications", &rows).await.expect("inserted");
                    assert_eq!(inserted.inserted, count);
                }
                1 => {
                    for row in &rows {
                        let inserted = database.insert_absent("Notifications", std::slice::from_ref(row)).await;
                        assert_eq!(inserted.expect("inserted").inserted, 1);
                    }
                }
                _ => by_hand(database, &rows).await,
            }
            // The first round warms up.
            if round > 0 {
                seconds.push(started.elapsed().as_secs_f64());
            }
            let pool = &database.context().pool;
            retrying!(pool, "bench", c => c.batch("bench", "DELETE FROM dbo.Notifications").await).expect("deleted");
        }
    }
    let [bulk, single, hand] = sides.map(median);
    let rate = |seconds: f64| count as f64 / seconds;
    println!("{count} notifications: in bulk {:.0} rows/s, in {bulk:.2} s", rate(bulk));
    println!("{count} notifications: one by one {:.0} rows/s, {:.1} times as long", rate(single), single / bulk);
    println!(
        "{count} notifications: {BY_HAND} rows by INSERT {:.0} rows/s, {:.1} times as long",
        rate(hand),
        hand / bulk
    );
}

fn notification(id: u64) -> Map<String, Value> {
    let row = json!({
        "id": uuid(id), "userId": uuid(id % 100), "title": format!("Forecast {id} changed"),
        "body": "The demand of your unit was revised from 12.5 to 14.25 MW for tomorrow, 12:00.", "type": "forecast",
        "createdAt": "2016-01-02T03:04:05.678Z",
    });
    row.as_object().cloned().expect("an object")
}

/// Several rows to a statement, as one would write it by hand.
async fn by_hand(database: &SqlServerDatabase, rows: &[Map<String, Value>]) {
    let pool = &database.context().pool;
    for rows in rows.chunks(BY_HAND) {
        let values = (0..rows.len()).map(|row| {
            let names: Vec<String> = (1..=6).map(|column| format!("@P{}", row * 6 + column)).collect();
            format!("({})", names.join(", "))
        });
        let values: Vec<String> = values.collect();
        let sql = format!(
            "INSERT INTO dbo.Notifications (Id, UserId, Title, Body, Type, CreatedAt) VALUES {}",
            values.join(", ")
        );
        let text = |row: &Map<String, Value>, name: &str| row[name].as_str().expect("a text").to_owned();
        let id = |row: &Map<String, Value>, name: &str| {
            Param(ColumnData::Guid(Some(text(row, name).parse().expect("an id"))))
        };
        let params = rows.iter().flat_map(|row| {
            let texts = ["title", "body", "type"].map(|name| Param::text(text(row, name)));
            // Without its zone, which datetime2 has not.
            let created = Param::text(text(row, "createdAt").trim_end_matches('Z'));
            [id(row, "id"), id(row, "userId")].into_iter().chain(texts).chain([created])
        });
        let params: Vec<Param> = params.collect();
        retrying!(pool, "bench", c => c.query("bench", &sql, &params).await).expect("inserted");
    }
}

/// What a client process spent.
#[derive(Debug)]
struct Spent {
    elapsed: f64,
    cpu: f64,
    peak_mb: f64,
}

/// The stand-in in a process of its own.
struct Server {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let mut process = itself(&["--serve"]).stdin(Stdio::piped()).spawn().expect("this binary");
        let commands = process.stdin.take().expect("its input");
        let answers = BufReader::new(process.stdout.take().expect("its output"));
        let mut server = Self { process, commands, answers, port: 0 };
        server.port = server.answer().parse().expect("a port");
        server
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the server's answer");
        assert!(!line.is_empty(), "the server ended");
        line.trim().to_owned()
    }

    /// Inserts so many rows, which both modes have captured then.
    fn fill(&mut self, first: usize, rows: usize) {
        writeln!(self.commands, "{first} {rows}").expect("the server listens");
        assert_eq!(self.answer(), "filled");
    }

    /// Runs one side in a process of its own.
    fn client(&self, side: &str, mode: CaptureMode, head: &str, rows: usize, page: usize) -> Spent {
        let (port, rows, page) = (self.port.to_string(), rows.to_string(), page.to_string());
        let cdc = if mode == CaptureMode::Cdc { "cdc" } else { "change_tracking" };
        let output = itself(&["--client", side, &port, cdc, head, &rows, &page]).output().expect("this binary");
        assert!(output.status.success(), "{side} failed: {}", output.status);
        let text = String::from_utf8(output.stdout).expect("text");
        let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
        let [elapsed, cpu, peak_mb] = numbers[..] else { panic!("{side} said {text:?}") };
        Spent { elapsed, cpu, peak_mb }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn itself(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// The server's process: says its port, then fills the table as it is told, until nobody is there any more.
fn serve() {
    let server = StandIn::start(Options::default()).expect("a stand-in");
    println!("{}", server.address().port());
    let mut writer = server.engine().session("sa").expect("a session");
    run(writer.as_mut(), "USE [smartpulse]");
    for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
        let (first, rows) = line.split_once(' ').expect("two numbers");
        let (first, rows): (usize, usize) = (first.parse().expect("a number"), rows.parse().expect("a number"));
        for from in (first..first + rows).step_by(TRANSACTION) {
            let ids = from..(from + TRANSACTION).min(first + rows);
            let value = |id: usize| {
                let (unit, demand) = (uuid(id as u64 % 28), id as f64 / 7.0);
                format!("('{}', '{unit}', '{unit}', '2016-06-01T00:15:00', {demand:?}, 0.9)", uuid(id as u64))
            };
            let values: Vec<String> = ids.map(value).collect();
            let columns = "Id, CompanyId, ProductionUnitId, ForecastDate, Demand, ConfidenceLevel";
            run(writer.as_mut(), &format!("INSERT INTO dbo.Forecasts ({columns}) VALUES {};", values.join(", ")));
        }
        while server.engine().run_capture_now().expect("a scan of the log").transactions > 0 {}
        println!("filled");
    }
}

fn run(session: &mut dyn Session, batch: &str) {
    session.batch(batch, &[], &AtomicBool::new(false), &mut |piece| {
        if let Output::Message(message) = piece {
            assert!(message.class <= 10, "{}", message.text);
        }
        true
    });
}

/// A client's process: reads all changes by one of the sides, and says what that took.
async fn client(args: &[String]) {
    let [side, port, mode, head, rows, page] = args else { panic!("{args:?}") };
    let (port, rows, page) =
        (port.parse().expect("a port"), rows.parse().expect("rows"), page.parse().expect("a page"));
    let cdc = if mode == "cdc" { CaptureMode::Cdc } else { CaptureMode::ChangeTracking };
    let (elapsed, cpu) = match side.as_str() {
        "floor" => Box::pin(floor(port, cdc, rows)).await,
        "capture" => capture(port, cdc, head, rows, page).await,
        _ => graph(port, mode, head, rows, page).await,
    };
    println!("{elapsed} {cpu} {}", peak_mb());
}

/// `tiberius` alone, one statement.
async fn floor(port: u16, mode: CaptureMode, rows: usize) -> (f64, f64) {
    let config = tiberius::Config::from_ado_string(&url(port)).expect("a connection string");
    let stream = tokio::net::TcpStream::connect(config.get_addr()).await.expect("the server");
    stream.set_nodelay(true).expect("a socket");
    let login = tiberius::Client::connect(config, stream.compat_write());
    let mut client = Box::pin(login).await.expect("a login");
    let sql = match mode {
        CaptureMode::Cdc => {
            "SELECT x.* FROM [cdc].[dbo_Forecasts_CT] AS x \
             ORDER BY x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation]"
        }
        CaptureMode::ChangeTracking => {
            "SELECT ct.SYS_CHANGE_VERSION, ct.SYS_CHANGE_CREATION_VERSION, ct.SYS_CHANGE_OPERATION, t.* \
             FROM CHANGETABLE(CHANGES [dbo].[Forecasts], 0) AS ct LEFT JOIN [dbo].[Forecasts] AS t ON t.Id = ct.Id \
             ORDER BY ct.SYS_CHANGE_VERSION, ct.Id"
        }
    };
    let (started, before) = (Instant::now(), cpu());
    let mut items = client.simple_query(sql).await.expect("an answer");
    let mut read = 0;
    while let Some(item) = items.try_next().await.expect("a row") {
        read += usize::from(matches!(item, QueryItem::Row(_)));
    }
    assert_eq!(read, rows);
    (started.elapsed().as_secs_f64(), cpu() - before)
}

/// The connector: changes with their documents, page by page.
async fn capture(port: u16, mode: CaptureMode, head: &str, rows: usize, page: usize) -> (f64, f64) {
    let database = open(port);
    let mut position = Position::from(head.to_owned());
    // Connected, and what must be known of the table is.
    database.changes(TABLE, mode, &position, 1).await.expect("a page");
    let (started, before) = (Instant::now(), cpu());
    let mut read = 0;
    loop {
        let Poll::Changes(found) = database.changes(TABLE, mode, &position, page).await.expect("a page") else {
            panic!("the position is lost");
        };
        read += found.changes.iter().filter(|change| change.document.is_some()).count();
        position = found.next;
        if !found.more {
            break;
        }
    }
    assert_eq!(read, rows);
    (started.elapsed().as_secs_f64(), cpu() - before)
}

/// The source in the runtime, from a committed position on.
async fn graph(port: u16, mode: &str, head: &str, rows: usize, page: usize) -> (f64, f64) {
    let ledger = open(port).ledger().expect("a ledger");
    let id = format!("bench/c/{TABLE}");
    ledger.reset(&id).await.expect("the ledger");
    let term = Duration::from_secs(1);
    let Lease::Held(held) = ledger.take(&id, "bench", term).await.expect("a lease") else { panic!("it is free") };
    let position = json!({ "phase": "stream", "stream": head }).to_string();
    ledger.renew(&id, held.epoch, term, Some(&Position::from(position))).await.expect("a commit");
    ledger.release(&id, held.epoch).await.expect("a release");
    let port = format!("resources.db.port={port}");
    let rig = Rig::new(Arc::new(MemoryStore::new()), &["resources.db.type=at_port", &port], |registry| {
        registry.resource::<AtPort>().sink::<CountConfig>();
        smartpulse_sources::register(registry);
    });
    let (started, before) = (Instant::now(), cpu());
    let yaml = format!(
        "name: bench\nsources: {{ c: {{ type: cdc, database: db, mode: {mode}, changes_max: {page}, \
         tables: {{ {TABLE}: {{ section: forecast }} }} }} }}\nsinks: {{ k: {{ type: count, inputs: [c] }} }}\n"
    );
    let graph = rig.start(&yaml).await;
    while COUNTED.load(Ordering::Relaxed) < rows {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let spent = (started.elapsed().as_secs_f64(), cpu() - before);
    graph.stop().await.expect("a graph that ends");
    assert_eq!(COUNTED.load(Ordering::Relaxed), rows, "each change once");
    spent
}

static COUNTED: AtomicUsize = AtomicUsize::new(0);

/// A sink that counts.
#[derive(Clone, Deserialize, JsonSchema)]
struct CountConfig {}

impl Config for CountConfig {
    const TYPE: &'static str = "count";
}

#[async_trait]
impl SinkConfig for CountConfig {
    async fn build(&self, _: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Count))
    }
}

struct Count;

#[async_trait]
impl Sink for Count {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        COUNTED.fetch_add(batch.events.len(), Ordering::Relaxed);
        Ok(Vec::new())
    }
}

/// The product's resource, at a port of this machine.
#[derive(Deserialize, JsonSchema)]
struct AtPort {
    port: u16,
}

impl Config for AtPort {
    const TYPE: &'static str = "at_port";
}

#[async_trait]
impl ResourceConfig for AtPort {
    const KIND: &'static str = "database";

    async fn build(&self, _: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let database: SharedDatabase = Arc::new(open(self.port));
        Ok(Arc::new(database))
    }
}

fn url(port: u16) -> String {
    format!(
        "Server=tcp:127.0.0.1,{port};Database=smartpulse;User Id=sa;Password=Stand-in-1;Encrypt=true;\
         TrustServerCertificate=true"
    )
}

/// With one connection for writes, and time enough for a server that is no real one.
fn open(port: u16) -> SqlServerDatabase {
    let settings = SqlServerConfig {
        command_timeout_ms: 600_000,
        pool_max: 1,
        ..SqlServerConfig::from_connection_string(url(port))
    };
    SqlServerDatabase::open("bench", &settings, &prometheus::Registry::new()).expect("the settings")
}

/// Seconds of CPU that this process's threads have used.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let spent = |task: std::fs::DirEntry| -> f64 {
        let line = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        line.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0.0)
    };
    tasks.flatten().map(spent).sum::<f64>() / 1e9
}

/// The peak of resident memory.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
