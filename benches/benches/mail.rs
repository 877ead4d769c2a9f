//! Mails: how many leave by one SMTP connection, against a loop on a socket; and what batches save in front of the queue.
//!
//! What: (i) `ours` is [`SmtpRelay`] with one connection, mail after mail, each made into a message and its bytes. `raw` writes the same
//! bytes, made before, to a socket with TCP_NODELAY: MAIL, RCPT, DATA, the mail, and reads each reply before it goes on. The server
//! is a thread that answers at once. (ii) 2,000 mails rendered and queued in the embedded database by the sink `mail_queue`,
//! behind a `batch` of 100 and with one mail per batch.
//!
//! Method: 2,000 mails of 2 KB per round, the sides in turns, the median of 7 rounds.
//!
//! Run: `cargo bench -p smartpulse-benches --bench mail`.

use lettre::message::Mailbox;
use serde_json::json;
use smartpulse_benches::median;
use smartpulse_clients::database::Database;
use smartpulse_clients::delivery::QueuedMail;
use smartpulse_clients::embedded::{MemoryStore, SqliteConfig, SqliteDatabase};
use smartpulse_json::Document;
use smartpulse_mail::{Relay, SmtpConfig, SmtpRelay, compose};
use smartpulse_pipeline::{Event, Operation};
use smartpulse_testing::{Rig, uuid};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

const MAILS: u64 = 2_000;
const ROUNDS: usize = 7;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let port = serve();
        let from: Mailbox = "SmartPulse <pulse@example.com>".parse().expect("a sender");
        let mails: Vec<QueuedMail> = (0..MAILS).map(mail).collect();
        let bytes = mails.iter().map(|mail| compose(mail, &from).expect("a message").formatted());
        let bytes: Vec<Vec<u8>> = bytes.collect();
        let (mut ours, mut raw) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(through_the_relay(port, &mails).await);
            raw.push(by_hand(port, &bytes));
        }
        let (ours, raw) = (median(ours), median(raw));
        println!("one connection: ours {ours:.0} mails/s, raw {raw:.0} mails/s, ratio {:.2}", ours / raw);
        let (mut batched, mut single) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            batched.push(queued(100).await);
            single.push(queued(1).await);
        }
        let (batched, single) = (median(batched), median(single));
        println!("queued: batched {batched:.0} mails/s, one by one {single:.0} mails/s, ratio {:.1}", batched / single);
    });
}

fn mail(number: u64) -> QueuedMail {
    QueuedMail {
        id: uuid::Uuid::parse_str(&uuid(number)).expect("a uuid"),
        to_address: "anna@example.com".to_owned(),
        subject: "A forecast crossed one half".to_owned(),
        body_html: Some("<p>The demand crossed one half of its capacity.</p>\n".repeat(20)),
        body_text: Some("The demand crossed one half of its capacity.\n".repeat(15)),
        attachments: None,
        unsubscribe_url: None,
        attempts: 1,
    }
}

async fn through_the_relay(port: u16, mails: &[QueuedMail]) -> f64 {
    let config = json!({"host": "127.0.0.1", "port": port, "tls": "none", "from": "a@b.example", "connections": 1});
    let config: SmtpConfig = serde_json::from_value(config).expect("settings");
    let relay = SmtpRelay::new(&config).expect("a relay");
    let start = Instant::now();
    for mail in mails {
        relay.send(mail).await.expect("sent");
    }
    mails.len() as f64 / start.elapsed().as_secs_f64()
}

fn by_hand(port: u16, mails: &[Vec<u8>]) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a server");
    stream.set_nodelay(true).expect("an option");
    let mut replies = BufReader::new(stream.try_clone().expect("a socket"));
    let mut line = String::new();
    let mut say = |what: &[u8]| {
        stream.write_all(what).expect("written");
        line.clear();
        replies.read_line(&mut line).expect("a reply");
    };
    // The greeting is read as the reply to EHLO, and so on: the server has told both when the first mail begins.
    say(b"EHLO bench\r\n");
    let start = Instant::now();
    for mail in mails {
        say(b"MAIL FROM:<pulse@example.com>\r\n");
        say(b"RCPT TO:<anna@example.com>\r\n");
        say(b"DATA\r\n");
        say(&[mail, b"\r\n.\r\n".as_slice()].concat());
    }
    mails.len() as f64 / start.elapsed().as_secs_f64()
}

/// A server that takes everything, on a port of its own.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || converse(&stream));
        }
    });
    port
}

fn converse(stream: &TcpStream) {
    stream.set_nodelay(true).expect("an option");
    let mut output = stream;
    let mut input = BufReader::new(stream);
    let mut line = Vec::new();
    let mut reply = b"220 bench\r\n".as_slice();
    loop {
        if output.write_all(reply).is_err() {
            return;
        }
        line.clear();
        if input.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            return;
        }
        reply = b"250 OK\r\n";
        if line.starts_with(b"DATA") {
            if output.write_all(b"354 go on\r\n").is_err() {
                return;
            }
            while line != b".\r\n" {
                line.clear();
                if input.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                    return;
                }
            }
        }
    }
}

/// Mails per second, rendered and queued in batches of `items`.
async fn queued(items: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = prometheus::Registry::new();
    let database =
        SqliteDatabase::open("bench", &SqliteConfig::default(), folder.path(), &registry).expect("a database");
    database.create_schema().await.expect("the schema");
    let set = format!("data_dir={}", folder.path().display());
    let rig = Rig::new(Arc::new(MemoryStore::new()), &[&set], |registry| {
        smartpulse_clients::register(registry);
        smartpulse_operators::register(registry);
        smartpulse_mail::register(registry);
    });
    let yaml = format!(
        "name: bench
sources: {{ s: {{ type: probe }} }}
operators: {{ many: {{ type: batch, inputs: [s], items: {items}, window_ms: 100 }} }}
sinks: {{ queue: {{ type: mail_queue, inputs: [many], database: main_db }} }}
"
    );
    let events = (0..MAILS).map(|number| {
        let request = json!({
            "Id": uuid(number), "To": "anna@example.com", "Subject": "A forecast crossed one half",
            "TemplateId": "notification", "TemplateData": {"title": "Demand", "body": "crossed one half of its capacity"},
        });
        let document = Document::from_value(&request).expect("a document");
        Event::new("mail".into(), uuid(number).into(), 1, Operation::Insert, Some(document))
    });
    let events: Vec<Event> = events.collect();
    let graph = rig.start(&yaml).await;
    let start = Instant::now();
    rig.probe.emit(events);
    rig.probe.until("all is queued", |probe| probe.last_committed() == Some(MAILS)).await;
    let rate = MAILS as f64 / start.elapsed().as_secs_f64();
    graph.stop().await.expect("an end");
    rate
}
