//! Connections that fail, stall, go stale or are refused: what the caller sees of it.

use smartpulse_clients::database::Database;
use smartpulse_config::Secret;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use smartpulse_sqlserver::config::SqlServerConfig;
use smartpulse_sqlserver::connection::Connection;
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_sqlserver::errors::Outcome;
use smartpulse_sqlserver::retrying;
use smartpulse_stand_in::faults::{Action, Failure, Fault};
use smartpulse_stand_in::server::{Options, StandIn, TlsMode};
use smartpulse_stand_in::session::{Column, Message, Output, Parameter, Session, Sink};
use smartpulse_stand_in::value::{SqlType, Value};
use smartpulse_testing::within;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// How many rows a statement with `Rows` in it gives.
const ROWS: i64 = 20;

/// A session that knows one answer: a row, or [`ROWS`] of them.
struct Parrot;

impl Session for Parrot {
    fn batch(&mut self, sql: &str, _: &[Parameter], _: &AtomicBool, out: Sink<'_>) -> bool {
        if sql.starts_with("SET") {
            return out(Output::Done { rows: None });
        }
        let column = Column { name: "n".into(), sql_type: SqlType::BigInt, nullable: false, identity: false };
        out(Output::Columns(Arc::from([column])));
        for n in 0..if sql.contains("Rows") { ROWS } else { 1 } {
            if !out(Output::Row(vec![Value::Int(n)])) {
                return false;
            }
        }
        out(Output::Done { rows: None })
    }

    fn call(&mut self, _: &str, _: &[Parameter], _: &AtomicBool, out: Sink<'_>) -> bool {
        out(Output::Done { rows: None })
    }

    fn bulk_columns(&mut self, _: &str) -> std::result::Result<Arc<[Column]>, Message> {
        Ok(Arc::from([]))
    }

    fn bulk_insert(&mut self, _: Vec<Vec<Value>>) -> std::result::Result<u64, Message> {
        Ok(0)
    }

    fn begin(&mut self, _: u8, _: Sink<'_>) -> bool {
        true
    }

    fn commit(&mut self, _: Sink<'_>) -> bool {
        true
    }

    fn rollback(&mut self, _: Sink<'_>) -> bool {
        true
    }

    fn reset(&mut self) {}
}

fn server() -> StandIn {
    server_with(Options::default())
}

fn server_with(options: Options) -> StandIn {
    StandIn::with_sessions(options, Arc::new(|_| Ok(Box::new(Parrot)))).unwrap()
}

fn settings(server: &StandIn) -> SqlServerConfig {
    SqlServerConfig::from_connection_string(server.url())
}

/// Time-outs that a loaded machine keeps and a test can wait for.
fn patient(server: &StandIn, command_timeout_ms: u64) -> SqlServerConfig {
    SqlServerConfig { command_timeout_ms, connect_timeout_ms: 2_000, ..settings(server) }
}

fn database(config: &SqlServerConfig) -> SqlServerDatabase {
    SqlServerDatabase::open("main_db", config, &prometheus::Registry::new()).unwrap()
}

async fn failed(work: impl Future<Output = Result<()>>) -> Error {
    within("a failure", work).await.unwrap_err()
}

/// Waits until the database answers, and says for how long.
async fn back(database: &SqlServerDatabase) -> Duration {
    let start = Instant::now();
    within("the server's return", async {
        while database.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_used_again_after_success_and_never_after_a_failure() {
    let server = server();
    let database = database(&settings(&server));
    for _ in 0..5 {
        database.ping().await.unwrap();
    }
    assert_eq!((server.connections(), database.context().pool.idle()), (1, 1));
    server.faults().arm(Fault::fail(Failure::new(50_001, "no")).on("Alive"));
    let error = failed(database.ping()).await;
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.chain().contains("ping failed on 127.0.0.1:"), "{}", error.chain());
    assert!(error.chain().contains("error 50001: no"), "{}", error.chain());
    assert_eq!(database.context().pool.idle(), 0);
    database.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_costs_its_connection_and_nothing_else() {
    let server = server();
    let database = database(&settings(&server));
    database.ping().await.unwrap();
    let slow = server.faults().arm(Fault::delay(Duration::from_secs(20)).on("Alive"));
    tokio::select! {
        _ = database.ping() => panic!("it was to wait"),
        () = async { while slow.struck() == 0 { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    assert_eq!(database.context().pool.idle(), 0, "what is left on the wire is unknown");
    // The pool has room for it again, and the next call does not hang.
    within("the next call", database.ping()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_is_given_up_and_asked_for_again() {
    let server = server();
    let database = database(&patient(&server, 1_000));
    database.ping().await.unwrap();
    let slow = server.faults().arm(Fault::delay(Duration::from_secs(30)).on("Alive"));
    within("the second try", database.ping()).await.unwrap();
    assert_eq!(slow.struck(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_is_always_slow_ends_as_unavailable() {
    let server = server();
    let database = database(&patient(&server, 300));
    let slow = server.faults().arm(Fault::delay(Duration::from_secs(30)).on("Rows").always());
    let pool = database.context().pool.clone();
    let rows: Result<usize> = retrying!(pool, "rows", connection => rows(connection).await);
    let error = rows.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("rows had no answer from 127.0.0.1:"), "{}", error.chain());
    assert_eq!(slow.struck(), 3, "three tries");
}

async fn rows(connection: &mut Connection) -> Outcome<usize> {
    Ok(connection.rows("rows", "SELECT Rows", &[]).await?.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_connections_cost_a_retry_and_no_error() {
    let server = server();
    let database = database(&settings(&server));
    for _ in 0..3 {
        database.ping().await.unwrap();
        server.restart().unwrap();
        database.ping().await.unwrap();
        server.drop_connections();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_never_taken_for_the_whole() {
    let server = server();
    let database = database(&settings(&server));
    let pool = database.context().pool.clone();
    server.faults().arm(Fault::break_after_rows(7).on("Rows"));
    let whole: Result<usize> = retrying!(pool, "rows", connection => rows(connection).await);
    assert_eq!(whole.unwrap(), usize::try_from(ROWS).unwrap());
    // Row by row, too: an error, not an end.
    server.faults().arm(Fault::break_after_rows(7).on("Rows"));
    let mut lent = pool.get().await.unwrap();
    let mut seen = 0;
    let each = lent.each("rows", "SELECT Rows", &[], |_, _| {
        seen += 1;
        Ok(())
    });
    let failure = each.await.unwrap_err();
    assert!(failure.lost() && seen <= 7, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_costs_one_time_out_and_not_one_per_request() {
    let server = server();
    let database = Arc::new(database(&SqlServerConfig { connect_timeout_ms: 1_000, ..patient(&server, 1_000) }));
    database.ping().await.unwrap();
    server.faults().begin_blackhole();
    let error = failed(database.ping()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let start = Instant::now();
    for _ in 0..200 {
        assert_eq!(failed(database.ping()).await.kind(), ErrorKind::Unavailable);
    }
    // Two hundred time-outs would take minutes.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(database.context().pool.server().down().is_some());
    server.faults().end_blackhole();
    let took = back(&database).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_away_is_used_as_soon_as_it_is_back() {
    let server = server();
    let database = database(&settings(&server));
    database.ping().await.unwrap();
    server.stop();
    let error = failed(database.ping()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    server.start_again().unwrap();
    let took = back(&database).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_victim_is_tried_three_times() {
    let server = server();
    let database = database(&settings(&server));
    let victim = server.faults().arm(Fault::fail(Failure::deadlock()).on("Alive").times(2));
    database.ping().await.unwrap();
    assert_eq!(victim.struck(), 2);
    let victim = server.faults().arm(Fault::fail(Failure::deadlock()).on("Alive").times(3));
    let error = failed(database.ping()).await;
    assert_eq!((error.kind(), victim.struck()), (ErrorKind::Transient, 3));
    let busy = server.faults().arm(Fault::fail(Failure::throttled()).on("Alive").times(3));
    let error = failed(database.ping()).await;
    // Held back, not dead-lettered: the input is not at fault.
    assert_eq!((error.kind(), busy.struck()), (ErrorKind::Unavailable, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_fatal_at_first_and_unavailable_later() {
    let server = server();
    let wrong = server.url().replace("Stand-in-1", "wrong");
    let error = failed(database(&SqlServerConfig::from_connection_string(wrong)).ping()).await;
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.chain().contains("18456") && error.chain().contains("check user and password"), "{}", error.chain());
    let nowhere = server.url().replace("Database=smartpulse", "Database=elsewhere");
    let error = failed(database(&SqlServerConfig::from_connection_string(nowhere)).ping()).await;
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.chain().contains("4060"), "{}", error.chain());

    let database = database(&settings(&server));
    database.ping().await.unwrap();
    let refused = server.faults().arm(Fault::new(Action::FailLogin(Failure::login())).always());
    server.drop_connections();
    let error = failed(database.ping()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    server.faults().disarm(&refused);
    back(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_has_no_more_connections_than_it_may() {
    let server = server();
    let database = Arc::new(database(&SqlServerConfig { pool_max: 3, ..settings(&server) }));
    server.faults().arm(Fault::delay(Duration::from_millis(20)).on("Alive").always());
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let database = Arc::clone(&database);
            tokio::spawn(async move { database.ping().await })
        })
        .collect();
    let mut most = 0;
    for call in calls {
        most = most.max(server.connections());
        within("a call", call).await.unwrap().unwrap();
    }
    assert!((1..=3).contains(&most), "{most}");
    assert_eq!(database.context().pool.idle(), 3);
    assert_eq!(database.metrics().count("ping"), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_verified_unless_settings_say_otherwise() {
    let server = server_with(Options { tls: TlsMode::Required, ..Options::default() });
    let address = server.address();
    let fields = SqlServerConfig {
        host: Some(address.ip().to_string()),
        port: address.port(),
        user: Some("sa".into()),
        password: Some(Secret::new("Stand-in-1")),
        ..SqlServerConfig::default()
    };
    let error = failed(database(&fields).ping()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().to_lowercase().contains("certificate"), "{}", error.chain());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, server.ca_pem()).unwrap();
    let verified = SqlServerConfig { ca_file: Some(file.display().to_string()), ..fields.clone() };
    database(&verified).ping().await.unwrap();
    let other = SqlServerConfig { certificate_host: Some("other.example".into()), ..verified };
    let error = failed(database(&other).ping()).await;
    assert!(error.chain().to_lowercase().contains("certificate"), "{}", error.chain());
    database(&SqlServerConfig { trust_server_certificate: true, ..fields }).ping().await.unwrap();
}
