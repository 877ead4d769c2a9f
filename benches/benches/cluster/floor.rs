//! The floor: no database, no bus, no versions. What is due is looked for every 10 ms, and published to three subscribers.

use crate::cluster::{Cluster, INSTANCES};
use crate::latency::line;
use crate::observe::now;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// A message's time stands in front of this many bytes: about a patch.
const BYTES: usize = 400;

const MEASURED: Duration = Duration::from_secs(20);

/// As many as changes under load.
const PACE: Duration = Duration::from_millis(1);

/// The times of messages, and when each came.
type Heard = Arc<Mutex<Vec<(u64, u64)>>>;

pub fn measure(cluster: &Cluster) {
    let port = cluster.redis.port();
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("a server");
    let heard: Vec<Heard> = (0..INSTANCES).map(|_| subscribe(connect())).collect();
    let (queue, last) = (Arc::<Mutex<Vec<u64>>>::default(), Arc::<AtomicU64>::default());
    let (queued, end) = (queue.clone(), Instant::now() + MEASURED);
    let generator = std::thread::spawn(move || {
        let mut due = Instant::now();
        while Instant::now() < end {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += PACE;
            // Distinct, so that a message is known by its time.
            let time = now().max(last.load(Ordering::Relaxed) + 1);
            last.store(time, Ordering::Relaxed);
            queued.lock().expect("a queue").push(time);
        }
    });
    let (mut server, mut answers, filler) = (connect(), vec![0; 64 << 10], " ".repeat(BYTES));
    server.set_nodelay(true).expect("a socket");
    while !generator.is_finished() {
        std::thread::sleep(POLL);
        let due = std::mem::take(&mut *queue.lock().expect("a queue"));
        let publish = |time: &u64| {
            let message = format!("{time}{filler}");
            format!("*3\r\n$7\r\nPUBLISH\r\n$5\r\nfloor\r\n${}\r\n{message}\r\n", message.len())
        };
        let commands: String = due.iter().map(publish).collect();
        if !commands.is_empty() {
            server.write_all(commands.as_bytes()).expect("a server");
            let _ = server.read(&mut answers).expect("a server");
        }
    }
    generator.join().expect("a generator");
    std::thread::sleep(POLL * 10);
    let heard: Vec<Vec<(u64, u64)>> = heard.iter().map(|heard| heard.lock().expect("a list").clone()).collect();
    let all = heard[0].iter().enumerate().filter_map(|(n, (time, _))| {
        let at = heard.iter().map(|heard| heard.get(n).map(|(_, at)| *at)).collect::<Option<Vec<u64>>>()?;
        Some((at.into_iter().max()? - time) as f64 / 1e3)
    });
    line("the floor: bare fan-out, 10 ms poll", all);
}

/// Notes of each message its time and when it came, until the program ends.
fn subscribe(mut stream: TcpStream) -> Heard {
    stream.write_all(b"SUBSCRIBE floor\r\n").expect("a server");
    let heard = Heard::default();
    let noted = heard.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if line.len() > BYTES {
                let time = line.trim().parse().expect("a time");
                noted.lock().expect("a list").push((time, now()));
            }
        }
    });
    heard
}
