//! Over real sockets: slow clients, broken requests, the orderly end. Bounds are generous.

use crate::common::support::MemoryDatabase;
use crate::common::{ID, admin, api, forecast, settings};
use smartpulse_api::bind;
use smartpulse_config::{ApiSettings, AuthKey, Secret};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

async fn start(database: &Arc<MemoryDatabase>, settings: ApiSettings) -> Server {
    database.set(ID, forecast(450));
    let listener = bind(&settings).await.unwrap();
    let (api, ..) = api(database, settings);
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(api.serve(listener, async {
        let _ = stopped.await;
    }));
    Server { address, stop, served }
}

/// Sends, and reads until the server closes or has sent `until`.
async fn talk(stream: &mut TcpStream, text: &str, until: Option<&str>) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match timeout(PATIENCE, stream.read(&mut buffer)).await.expect("the server closes in time") {
            Ok(0) | Err(_) => break,
            Ok(n) => received.extend_from_slice(&buffer[..n]),
        }
        if until.is_some_and(|until| String::from_utf8_lossy(&received).contains(until)) {
            break;
        }
    }
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn only_loopback_is_bound_as_long_as_everybody_can_sign() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080"] {
        let error = bind(&ApiSettings { listen: address.parse().unwrap(), ..settings() }).await.unwrap_err();
        assert!(
            error.to_string().starts_with(&format!(
                "tokens are signed with the development secret, which everybody knows, and so the api listens on \
                 loopback only: api.listen is {address}; use 127.0.0.1:8080, or set a secret of your own"
            )),
            "{error}"
        );
    }
    let mut own = settings();
    own.auth.keys = vec![AuthKey::Hs256 { secret: Secret::new("x".repeat(32)), kid: None }];
    own.listen = "0.0.0.0:0".parse().unwrap();
    bind(&own).await.unwrap();
}

#[tokio::test]
async fn slow_headers_are_cut_and_slow_bodies_refused() {
    let settings = ApiSettings { header_timeout_ms: 200, request_timeout_ms: 400, ..settings() };
    let server = start(&MemoryDatabase::new(), settings).await;
    let start = Instant::now();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let answer = talk(&mut slow, "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ", None).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(talk(&mut silent, "", None).await, "");
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < Duration::from_secs(10));
    let mut body = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/forecasts HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{",
        admin()
    );
    let answer = talk(&mut body, &head, Some("}")).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.ends_with(r#"{"error":"the body did not arrive in time","code":"REQUEST_TIMEOUT"}"#), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_the_next_connection_served() {
    let server = start(&MemoryDatabase::new(), settings()).await;
    for (text, status) in [
        ("\u{16}\u{3}\u{1}not http at all\r\n\r\n".to_owned(), "400"),
        ("GET /health HTTP/1.1\r\nHost : x\r\n\r\n".to_owned(), "400"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)), "431"),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)), "431"),
        (
            format!(
                "POST /api/forecasts HTTP/1.1\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
                 Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                admin()
            ),
            "400",
        ),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may close before it has read all of it.
        let _ = stream.write_all(text.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes in time");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let label: String = text.chars().take(40).collect();
        assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status} ")), "{label}: {answer}");
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let answer = talk(&mut stream, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", Some("alive")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn the_end_waits_for_requests_under_way_and_takes_no_more() {
    let database = MemoryDatabase::new();
    let server = start(&database, settings()).await;
    let request = format!("GET /api/forecasts/{ID} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n", admin());
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    assert!(talk(&mut idle, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", Some("alive")).await.contains("200 OK"));
    database.hold_answers(true);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let held = database.next_held().await;
    server.stop.send(()).unwrap();
    // The idle connection is closed, new ones are refused, the busy one is waited for.
    assert_eq!(talk(&mut idle, "", None).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
    assert!(!server.served.is_finished());
    held.release();
    let answer = talk(&mut stream, "", None).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    timeout(PATIENCE, server.served).await.unwrap().unwrap();
}
