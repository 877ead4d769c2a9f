//! Logins, batches, calls, transactions, and stopping what runs.

use crate::session::Seen;
use crate::{Tiberius, config, connect, connect_with, start, until};
use futures::TryStreamExt;
use smartpulse_stand_in::server::{Options, TlsMode};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tiberius::{AuthMethod, Command, EncryptionLevel, IsolationLevel, QueryItem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn number(client: &mut Tiberius, sql: &str) -> i32 {
    let row = client.simple_query(sql).await.unwrap().into_row().await.unwrap().unwrap();
    row.get::<i32, _>(0).unwrap()
}

fn code(error: &tiberius::error::Error) -> Option<u32> {
    error.code()
}

#[tokio::test]
async fn tls_is_what_both_agree_on() {
    use EncryptionLevel::{NotSupported, Off, On, Required, Strict};
    let cases = [
        (TlsMode::Supported, vec![NotSupported, Off, On, Required, Strict], vec![]),
        (TlsMode::NotSupported, vec![NotSupported, Off], vec![On, Required]),
        (TlsMode::Required, vec![Off, On, Required, Strict], vec![NotSupported]),
    ];
    for (tls, works, fails) in cases {
        let (server, _) = start(Options { tls, ..Options::default() });
        let with = |level, packet_bytes| {
            let mut config = config(&server);
            config.encryption(level);
            config.trust_cert_ca_bundle(server.ca_pem().as_bytes().to_vec());
            config.packet_size(packet_bytes);
            config
        };
        for level in works {
            // Off with a server that has no TLS is, to this client, a wish for TLS.
            if (tls, level) == (TlsMode::NotSupported, Off) {
                continue;
            }
            let mut client =
                connect_with(&server, with(level, 512)).await.unwrap_or_else(|e| panic!("{tls:?} {level:?}: {e}"));
            let row = client.query("echo", &[&"x".repeat(100_000)]).await.unwrap().into_row().await.unwrap().unwrap();
            assert_eq!(row.get::<&str, _>(0).unwrap().len(), 100_000);
        }
        for level in fails {
            assert!(connect_with(&server, with(level, 4096)).await.is_err(), "{tls:?} {level:?}");
        }
    }
}

#[tokio::test]
async fn the_connection_string_of_the_server_leads_to_it() {
    for tls in [TlsMode::Supported, TlsMode::NotSupported, TlsMode::Required] {
        let (server, _) = start(Options { tls, ..Options::default() });
        let config = tiberius::Config::from_ado_string(&server.url()).unwrap();
        assert_eq!(number(&mut connect_with(&server, config).await.unwrap(), "sets").await, 1);
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (server, _) = start(Options::default());
    let mut config = config(&server);
    config.encryption(EncryptionLevel::Required);
    let error = connect_with(&server, config).await.err().unwrap();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_login_fails_with_the_number_that_says_why() {
    let (server, _) = start(Options::default());
    let login = |user: &str, password: &str, database: &str| {
        let mut config = config(&server);
        config.authentication(AuthMethod::sql_server(user, password));
        config.database(database);
        config
    };
    for (user, password, database, expected) in [
        ("sa", "wrong", "smartpulse", 18_456),
        ("nobody", "Stand-in-1", "smartpulse", 18_456),
        ("sa", "Stand-in-1", "elsewhere", 4060),
    ] {
        let error = connect_with(&server, login(user, password, database)).await.err().unwrap();
        assert_eq!(code(&error), Some(expected), "{error}");
    }
    connect_with(&server, login("SA", "Stand-in-1", "SmartPulse")).await.unwrap();
    until("they are gone", || server.connections() == 0).await;
}

#[tokio::test]
async fn a_batch_may_have_several_results_and_counts() {
    let (server, _) = start(Options::default());
    let mut client = connect(&server).await;
    let results = client.simple_query("sets").await.unwrap().into_results().await.unwrap();
    let numbers: Vec<i32> = results.iter().flatten().map(|row| row.get(0).unwrap()).collect();
    assert_eq!(numbers, [1, 2]);
    let counts = client.execute("sets", &[]).await.unwrap();
    assert_eq!(counts.rows_affected(), [1, 3, 1]);
    // NOCOUNT: the end of the statement is not told.
    assert_eq!(client.execute("update none", &[]).await.unwrap().rows_affected(), [] as [u64; 0]);
}

#[tokio::test]
async fn an_error_comes_with_its_number_and_the_connection_lives_below_severity_20() {
    let (server, _) = start(Options::default());
    let mut client = connect(&server).await;
    for call in [false, true] {
        let result =
            if call { client.query("error 2627 14", &[]).await } else { client.simple_query("error 2627 14").await };
        let error = result.unwrap().into_results().await.err().unwrap();
        assert!(matches!(&error, tiberius::error::Error::Server(token) if token.class() == 14 && token.line() == 3));
        assert_eq!(code(&error), Some(2627));
    }
    assert_eq!(number(&mut client, "sets").await, 1);
    let error = client.simple_query("error 40501 20").await.unwrap().into_results().await.err().unwrap();
    assert_eq!(code(&error), Some(40_501));
    until("the connection ends", || server.connections() == 0).await;
    assert!(client.simple_query("sets").await.is_err());
}

#[tokio::test]
async fn a_fault_of_the_engine_is_told_and_the_server_lives() {
    let (server, _) = start(Options::default());
    for statement in ["panic", "wrong"] {
        let mut client = connect(&server).await;
        let error = match client.simple_query(statement).await {
            Ok(stream) => stream.into_results().await.err().unwrap(),
            Err(error) => error,
        };
        assert!(error.to_string().contains("fault in the stand-in"), "{error}");
    }
    assert_eq!(number(&mut connect(&server).await, "sets").await, 1);
}

#[tokio::test]
async fn a_procedure_gives_rows_a_status_and_output_parameters() {
    let (server, _) = start(Options::default());
    let mut client = connect(&server).await;
    let mut command = Command::new("[dbo].[double]");
    command.bind_param("@in", 4);
    command.bind_out_param("@out", 21);
    command.bind_out_param("@text", "ab");
    let mut stream = command.exec(&mut client).await.unwrap();
    let (mut rows, mut status, mut values) = (Vec::new(), None, Vec::new());
    while let Some(item) = stream.try_next().await.unwrap() {
        match item {
            tiberius::CommandItem::Row(row) => rows.push(row.get::<i32, _>(0).unwrap()),
            tiberius::CommandItem::ReturnStatus(got) => status = Some(got),
            tiberius::CommandItem::ReturnValue(value) => values.push(format!("{value:?}")),
            _ => {}
        }
    }
    drop(stream);
    assert_eq!((rows, status), (vec![3], Some(7)));
    assert!(values[0].contains("@out") && values[0].contains("I32(Some(42))"), "{values:?}");
    assert!(values[1].contains("@text") && values[1].contains("abab"), "{values:?}");

    let stream = Command::new("missing").exec(&mut client).await;
    let error = match stream {
        Ok(stream) => stream.try_collect::<Vec<_>>().await.err().unwrap(),
        Err(error) => error,
    };
    assert_eq!(code(&error), Some(2812));
}

#[tokio::test]
async fn transactions_of_the_transaction_manager() {
    let (server, seen) = start(Options::default());
    let mut client = connect(&server).await;
    client.begin_transaction_with_isolation(IsolationLevel::Snapshot).await.unwrap();
    assert_eq!(client.execute("update 1", &[]).await.unwrap().total(), 1);
    client.commit_transaction().await.unwrap();
    client.begin_transaction().await.unwrap();
    client.rollback_transaction().await.unwrap();
    assert_eq!(*seen.log.lock().unwrap(), ["begin 5", "update 1", "commit", "begin 0", "rollback"]);
    assert_eq!(code(&client.commit_transaction().await.unwrap_err()), Some(3902));
    client.begin_transaction().await.unwrap();
    drop(client);
    until("it is rolled back", || seen.has("rolled back at the end")).await;
}

#[tokio::test]
async fn a_client_that_goes_away_stops_what_it_asked_for() {
    let (server, seen) = start(Options::default());
    let mut client = connect(&server).await;
    let asked = tokio::spawn(async move { client.simple_query("wait").await.is_ok() });
    until("it has begun", || seen.has("wait")).await;
    asked.abort();
    until("it stops", || seen.has("stopped")).await;
    until("it is gone", || server.connections() == 0).await;
}

#[tokio::test]
async fn an_attention_stops_a_result_and_the_connection_goes_on() {
    let (server, seen) = start(Options::default());
    let mut client = connect(&server).await;
    let mut stream = client.simple_query("rows 100000000").await.unwrap();
    let mut rows = 0;
    while let Some(item) = stream.try_next().await.unwrap() {
        rows += i32::from(matches!(item, QueryItem::Row(_)));
        if rows == 1000 {
            break;
        }
    }
    drop(stream);
    client.cancel_query().await.unwrap();
    assert!(seen.has("stopped"));
    assert_eq!(number(&mut client, "sets").await, 1);
}

/// The engine must not run ahead of a client that does not read: what it has made fits into the buffers between.
#[tokio::test]
async fn a_long_result_waits_for_its_reader() {
    let (server, seen) = start(Options::default());
    let mut client = connect(&server).await;
    let mut stream = client.simple_query("wide 2500").await.unwrap();
    for _ in 0..10 {
        stream.try_next().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let made = seen.rows.load(Ordering::Relaxed);
    assert!(made < 2300, "{made} rows were made for a client that has read ten");
    let mut rows = 0_u64;
    while let Some(item) = stream.try_next().await.unwrap() {
        rows += u64::from(matches!(item, QueryItem::Row(_)));
    }
    assert!(rows > 2480, "{rows}");
}

#[tokio::test]
async fn nonsense_ends_its_connection_and_nothing_else() {
    let (server, _) = start(Options::default());
    let nonsense: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0x12, 1, 0, 8, 0, 0, 0, 0],
        &[0x12, 1, 0, 9, 0, 0, 0, 0, 0xFF],
        &[0x10, 1, 0, 12, 0, 0, 1, 0, 1, 2, 3, 4],
        &[0x16, 3, 1, 0, 4, 1, 2, 3, 4, 5, 6, 7],
    ];
    for bytes in nonsense {
        let mut tcp = TcpStream::connect(server.address()).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
    }
    until("they are gone", || server.connections() == 0).await;
    assert_eq!(number(&mut connect(&server).await, "sets").await, 1);
}

#[tokio::test]
async fn a_load_for_a_table_that_is_not_there_fails_before_it_begins() {
    let (server, _): (_, std::sync::Arc<Seen>) = start(Options::default());
    let mut client = connect(&server).await;
    let error = match client.simple_query("INSERT BULK [dbo].[nowhere] ([a] int)").await {
        Ok(stream) => stream.into_results().await.err().unwrap(),
        Err(error) => error,
    };
    assert_eq!(code(&error), Some(208));
    assert_eq!(number(&mut client, "sets").await, 1);
}
