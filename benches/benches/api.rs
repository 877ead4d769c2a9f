//! The API against a bare handler: `GET /api/forecasts/{id}` from L1 with a bearer token, and an axum handler that does
//! nothing but return the same bytes.
//!
//! Method: both servers run in this process, on the same runtime of two threads; `wrk` (Debian: `apt-get install wrk`) asks
//! over loopback with 64 connections, in alternating rounds of a few seconds; the median counts. `304` sends the tag
//! along. `overload` serves without L1, so that each read is the database's, eight at a time: `1x` asks with eight
//! connections, `3x` with three times as many; the excess is shed with 503.
//!
//! Run: `cargo bench -p smartpulse-benches --bench api`; `WRK` names another program, `SECONDS` the time of a round.

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use smartpulse_api::{Api, DevelopmentToken, Parts, Readiness, Role, bind, development_token};
use smartpulse_benches::median;
use smartpulse_cache::{Cache, CacheConfig};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use smartpulse_config::Settings;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Of each case.
const ROUNDS: usize = 5;

const CONNECTIONS: usize = 64;

/// Requests at a time in the overloaded server.
const CONCURRENCY: usize = 8;

fn main() {
    let wrk = std::env::var("WRK").unwrap_or_else(|_| "wrk".to_owned());
    if Command::new(&wrk).arg("-v").output().is_err() {
        println!("skipped: there is no `{wrk}`; install it (Debian: apt-get install wrk) or name it with WRK");
        return;
    }
    let seconds = std::env::var("SECONDS").unwrap_or_else(|_| "4".to_owned());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (api, slow, bare, id) = runtime.block_on(servers(folder.path()));
    let ask = |address: SocketAddr, connections: usize, more: &[&str]| {
        let url = format!("http://{address}/api/forecasts/{id}");
        let authorization = format!("Authorization: Bearer {}", token());
        let connections = connections.to_string();
        let mut command = Command::new(&wrk);
        command.args(["-t1", "-c", &connections, "-d", &seconds, "--latency", "-H", &authorization]);
        let output = command.args(more).arg(url).output().expect("wrk runs");
        Report::of(&String::from_utf8_lossy(&output.stdout))
    };
    let known = ["-H", "If-None-Match: \"1\""];
    let (mut ours, mut unchanged, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(ask(api, CONNECTIONS, &[]));
        theirs.push(ask(bare, CONNECTIONS, &[]));
        unchanged.push(ask(api, CONNECTIONS, &known));
    }
    let rate = |reports: &[Report]| median(reports.iter().map(|report| report.per_second).collect());
    let p99 = |reports: &[Report]| median(reports.iter().map(|report| report.p99_ms).collect());
    for (name, reports) in [("L1 hit", &ours), ("304", &unchanged), ("bare", &theirs)] {
        assert!(name == "304" || reports.iter().all(|report| report.refused == 0), "{name}: requests were refused");
        println!("{name:<12} {:>9.0} requests/s  p99 {:>6.2} ms", rate(reports), p99(reports));
    }
    println!("ratio        {:>9.2}", rate(&ours) / rate(&theirs));
    for (name, connections) in [("1x", CONCURRENCY), ("3x overload", 3 * CONCURRENCY)] {
        let report = ask(slow, connections, &[]);
        let accepted = report.requests - report.refused;
        let seconds = report.requests as f64 / report.per_second;
        println!(
            "{name:<12} {:>9.0} accepted/s  p99 {:>6.2} ms of all, {} shed",
            accepted as f64 / seconds,
            report.p99_ms,
            report.refused
        );
    }
}

/// What wrk says.
#[derive(Debug)]
struct Report {
    per_second: f64,
    p99_ms: f64,
    requests: u64,
    /// Neither 2xx nor 3xx.
    refused: u64,
}

impl Report {
    fn of(text: &str) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
        let p99 = field("99%").unwrap_or_else(|| panic!("wrk said:\n{text}"));
        let (number, unit) = p99.split_at(p99.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(p99.len()));
        let scale = match unit {
            "us" => 1e-3,
            "ms" => 1.0,
            _ => 1e3,
        };
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")).expect("requests").0;
        Self {
            per_second: field("Requests/sec:").and_then(|rate| rate.parse().ok()).expect("a rate"),
            p99_ms: number.parse::<f64>().expect("a time") * scale,
            requests: requests.parse().expect("a number"),
            refused: field("Non-2xx or 3xx responses:").map_or(0, |count| count.parse().expect("a number")),
        }
    }
}

fn token() -> String {
    let token = DevelopmentToken {
        user: Uuid::from_u128(7),
        role: Role::Viewer,
        companies: vec![COMPANY.parse().expect("a company")],
        ttl: Duration::from_secs(3_600),
    };
    development_token(&Settings::default().api.auth, "development", &token).expect("a token")
}

const COMPANY: &str = "0b0a1c60-0000-4000-8000-00000000000a";
const ID: &str = "0b0a1c60-0000-4000-8000-000000000001";

/// The API, one without memory and with few places, and the bare handler.
async fn servers(folder: &Path) -> (SocketAddr, SocketAddr, SocketAddr, String) {
    let database: SharedDatabase = Arc::new(
        SqliteDatabase::open("main", &SqliteConfig::default(), folder, &prometheus::Registry::new())
            .expect("a database"),
    );
    database.create_schema().await.expect("a schema");
    let members = serde_json::json!({
        "id": ID, "companyId": COMPANY, "productionUnitId": "0b0a1c60-0000-4000-8000-00000000000b",
        "forecastDate": "2026-01-01T00:00:00.000Z", "demand": 0.4321, "supply": 0.5, "confidenceLevel": 0.9,
        "status": "Draft", "createdAt": "2026-01-01T00:00:00.000Z", "updatedAt": "2026-01-01T00:00:00.000Z"
    });
    let insert = smartpulse_clients::database::Write::Insert { members: members.as_object().expect("members").clone() };
    database.write("Forecasts", vec![insert]).await.expect("a forecast");
    let body = database.get("Forecasts", &[ID.into()]).await.expect("a row").remove(0).document;
    let api = serve(&database, CacheConfig::default(), 512).await;
    let slow = serve(&database, CacheConfig { l1_bytes_max: 0, ..CacheConfig::default() }, CONCURRENCY).await;
    (api, slow, bare(body).await, ID.to_owned())
}

async fn serve(database: &SharedDatabase, cache: CacheConfig, concurrency_max: usize) -> SocketAddr {
    let registry = prometheus::Registry::new();
    let cache = Cache::new(cache, Arc::clone(database), &registry).expect("a cache");
    let mut settings = Settings::default().api;
    settings.listen = "127.0.0.1:0".parse().expect("an address");
    settings.concurrency_max = concurrency_max;
    let parts = Parts {
        cache,
        database: Arc::clone(database),
        bus: None,
        partition: "production".to_owned(),
        readiness: Arc::new(Readiness::default()),
        registry,
        tracer: None,
    };
    let listener = bind(&settings).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let api = Api::new(settings, "development", parts).expect("an api");
    tokio::spawn(api.serve(listener, std::future::pending()));
    address
}

async fn bare(body: Bytes) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = move || async move { ([(CONTENT_TYPE, "application/json")], body) };
    let router = Router::new().route("/api/forecasts/{id}", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
