//! Faults on request, restarts and a network that fails.

use crate::types::row;
use crate::{Tiberius, config, connect, connect_with, start, until};
use futures::TryStreamExt;
use smartpulse_stand_in::faults::{Failure, Fault};
use smartpulse_stand_in::server::{Options, StandIn};
use std::time::{Duration, Instant};
use tiberius::QueryItem;
use tokio::net::TcpStream;

async fn works(client: &mut Tiberius) -> bool {
    match client.simple_query("sets").await {
        Ok(stream) => stream.into_results().await.is_ok(),
        Err(_) => false,
    }
}

async fn number_of(client: &mut Tiberius, sql: &str) -> Option<u32> {
    match client.simple_query(sql).await {
        Ok(stream) => stream.into_results().await.err()?.code(),
        Err(error) => error.code(),
    }
}

#[tokio::test]
async fn a_connection_is_lost_after_so_many_rows() {
    let (server, seen) = start(Options::default());
    let fault = server.faults().arm(Fault::break_after_rows(1500).on("ROWS 100"));
    let mut client = connect(&server).await;
    assert!(works(&mut client).await, "another statement is left alone");
    let mut stream = client.simple_query("rows 10000").await.unwrap();
    let mut rows = 0;
    let error = loop {
        match stream.try_next().await {
            Ok(Some(QueryItem::Row(_))) => rows += 1,
            Ok(Some(_)) => {}
            Ok(None) => panic!("the end of {rows} rows is no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(rows, 1500, "{error}");
    assert_eq!(fault.struck(), 1);
    assert!(seen.has("stopped"));
    let mut client = connect(&server).await;
    let rows = client.simple_query("rows 10000").await.unwrap().into_first_result().await.unwrap();
    assert_eq!(rows.len(), 10_000);
}

#[tokio::test]
async fn a_connection_is_lost_before_or_after_the_statement_runs() {
    let (server, seen) = start(Options::default());
    for (fault, ran) in [(Fault::break_before(), false), (Fault::break_after(), true)] {
        let fault = server.faults().arm(fault.on("update 9"));
        let mut client = connect(&server).await;
        assert!(client.execute("update 9", &[]).await.is_err());
        assert!(!works(&mut client).await);
        assert_eq!((fault.struck(), seen.has("update 9")), (1, ran));
    }
}

#[tokio::test]
async fn a_connection_is_lost_in_the_middle_of_a_bulk_load() {
    let (server, seen) = start(Options::default());
    let fault = server.faults().arm(Fault::break_bulk(20_000).on("[loaded]"));
    let mut client = connect(&server).await;
    client.simple_query("INSERT BULK [dbo].[loaded] ([int] int)").await.unwrap().into_results().await.unwrap();
    drop(client);
    // What is armed for a load strikes only when that many bytes have come.
    assert_eq!(fault.struck(), 0);
    let mut client = connect(&server).await;
    let mut load = client.bulk_insert("[dbo].[loaded]").await.unwrap();
    let mut failed = false;
    for number in 0..5000 {
        if load.send(row(number)).await.is_err() {
            failed = true;
            break;
        }
    }
    assert!(failed || load.finalize().await.is_err());
    assert_eq!(fault.struck(), 1);
    assert!(seen.loaded.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_statement_fails_with_the_number_wanted() {
    let (server, seen) = start(Options::default());
    let mut client = connect(&server).await;
    client.begin_transaction().await.unwrap();
    let fault = server.faults().arm(Fault::fail(Failure::deadlock()).on("update").times(2));
    for _ in 0..2 {
        assert_eq!(client.execute("update 1", &[]).await.unwrap_err().code(), Some(1205));
    }
    assert_eq!(fault.struck(), 2);
    assert!(seen.has("rollback") && !seen.has("update 1"));
    assert_eq!(client.execute("update 1", &[]).await.unwrap().total(), 1);

    server.faults().arm(Fault::fail(Failure::no_snapshot()));
    assert_eq!(number_of(&mut client, "sets").await, Some(3952));
    server.faults().arm(Fault::fail(Failure::busy()));
    assert_eq!(number_of(&mut client, "sets").await, Some(40_501));
    assert!(!works(&mut client).await, "severity 20 ends the connection");
}

#[tokio::test]
async fn logins_fail_as_often_as_wanted() {
    let (server, _) = start(Options::default());
    let fault = server.faults().arm(Fault::fail_login(Failure::login()).times(2));
    for expected in [Some(18_456), Some(18_456), None] {
        let error = connect_with(&server, config(&server)).await.err();
        assert_eq!(error.and_then(|error| error.code()), expected);
    }
    assert_eq!(fault.struck(), 2);
}

#[tokio::test]
async fn a_statement_is_delayed() {
    let (server, _) = start(Options::default());
    server.faults().arm(Fault::delay(Duration::from_millis(150)));
    let mut client = connect(&server).await;
    let begun = Instant::now();
    assert!(works(&mut client).await);
    assert!(begun.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_delayed_statement_does_not_run_for_a_client_that_is_gone() {
    let (server, seen) = start(Options::default());
    let delay = server.faults().arm(Fault::delay(Duration::from_secs(60)));
    let mut client = connect(&server).await;
    let asked = tokio::spawn(async move { works(&mut client).await });
    until("it has begun", || delay.struck() == 1).await;
    asked.abort();
    until("it is gone", || server.connections() == 0).await;
    assert!(server.stop(), "nothing waits for the end of the delay");
    assert!(!seen.has("sets"));
}

#[tokio::test]
async fn in_a_blackhole_nothing_is_answered_and_nothing_new_runs() {
    let (server, seen) = start(Options::default());
    let (mut idle, mut asking) = (connect(&server).await, connect(&server).await);
    server.faults().begin_blackhole();
    let short = Duration::from_millis(150);
    assert!(tokio::time::timeout(short, works(&mut asking)).await.is_err());
    let config = config(&server);
    let tcp = TcpStream::connect(server.address()).await.unwrap();
    let connecting = tiberius::Client::connect(config, tokio_util::compat::TokioAsyncWriteCompatExt::compat_write(tcp));
    assert!(tokio::time::timeout(short, Box::pin(connecting)).await.is_err(), "a new connection hears nothing");
    assert!(!seen.has("sets"));
    server.faults().end_blackhole();
    assert!(works(&mut idle).await, "who said nothing goes on");
    until("who was swallowed is gone", || server.connections() == 1).await;
    assert_eq!(seen.log.lock().unwrap().len(), 1, "what was swallowed never ran");
}

#[tokio::test]
async fn what_was_under_way_when_a_blackhole_began_is_answered_when_it_ends() {
    let (server, seen) = start(Options::default());
    let delay = server.faults().arm(Fault::delay(Duration::from_secs(1)));
    let mut client = connect(&server).await;
    let asked = tokio::spawn(async move { works(&mut client).await });
    until("it has begun", || delay.struck() == 1).await;
    server.faults().begin_blackhole();
    until("it runs", || seen.has("sets")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!asked.is_finished());
    server.faults().end_blackhole();
    assert!(asked.await.unwrap());
}

#[tokio::test]
async fn a_restart_drops_what_was_open_and_keeps_the_port() {
    let (server, seen) = start(Options::default());
    let mut client = connect(&server).await;
    client.begin_transaction().await.unwrap();
    let address = server.address();
    assert!(server.stop(), "nothing is left running");
    assert!(seen.has("rolled back at the end"));
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!works(&mut client).await);
    server.start_again().unwrap();
    assert_eq!(server.address(), address);
    assert!(works(&mut connect(&server).await).await);
    server.restart().unwrap();
    assert!(works(&mut connect(&server).await).await);
}

#[tokio::test]
async fn a_restart_keeps_what_was_committed_and_nothing_else() {
    let server = StandIn::start(Options::default()).unwrap();
    let mut client = connect(&server).await;
    for statement in ["CREATE TABLE dbo.T (Id int NOT NULL PRIMARY KEY)", "INSERT dbo.T VALUES (1)", "BEGIN TRAN"] {
        client.simple_query(statement).await.unwrap().into_results().await.unwrap();
    }
    client.simple_query("INSERT dbo.T VALUES (2)").await.unwrap().into_results().await.unwrap();
    server.restart().unwrap();
    assert!(client.simple_query("SELECT 1").await.is_err());
    let mut client = connect(&server).await;
    let rows = client.simple_query("SELECT Id FROM dbo.T").await.unwrap().into_first_result().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<i32, _>(0).unwrap()).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn connections_are_refused_and_old_ones_live_on() {
    let (server, _) = start(Options::default());
    let mut old = connect(&server).await;
    server.faults().refuse_connections(true);
    let refused = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(server.address()).await.is_ok() {
        assert!(Instant::now() < refused);
    }
    assert!(works(&mut old).await);
    server.faults().refuse_connections(false);
    let back = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(server.address()).await.is_err() {
        assert!(Instant::now() < back);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(works(&mut connect(&server).await).await);
}

#[tokio::test]
async fn idle_connections_are_killed_when_that_is_wanted() {
    let (server, _) = start(Options { idle_kill: Some(Duration::from_millis(50)), ..Options::default() });
    let mut client = connect(&server).await;
    until("it is killed", || server.connections() == 0).await;
    assert!(!works(&mut client).await);
}

#[tokio::test]
async fn all_connections_are_dropped_and_new_ones_taken() {
    let (server, _) = start(Options::default());
    let mut client = connect(&server).await;
    server.drop_connections();
    assert!(!works(&mut client).await);
    assert!(works(&mut connect(&server).await).await);
}
