//! Notifications end to end: requests on the bus until people have them in their inboxes, mails and devices.
//!
//! What: 20 users with a browser each; `notify.yaml` and `push.yaml` as they are in `config/`, in one process, with the embedded
//! database and bus. `all` is 20,000 deliveries (334 requests by three channels), published at once; the clock runs from then
//! until the last row is in an inbox, the last mail is `Sent` (to the folder of files) and the last message is at the push
//! service, a thread of this program that answers at once. `without push` is the same while the push service answers 503
//! to everything for the whole run: the rates of the other two channels should be those of `all`. `at rest` is one request every
//! 100 ms, by inbox and mail: from its publication until its row is in the inbox, and until its mail is in the queue. What of
//! that `batch` adds is what the second has above the first, less the rendering.
//!
//! Method: the median of 3 rounds, each with a fresh data folder; rows are looked for every millisecond.
//!
//! Run: `cargo bench -p smartpulse --features push --bench notify`, on two processors.

#[path = "../../../pipeline/cli/tests/process/mod.rs"]
mod process;
#[path = "../../../pipeline/cli/tests/told/mod.rs"]
mod told;

use process::pipeline;
use serde_json::{Value, json};
use smartpulse_testing::uuid;
use std::time::{Duration, Instant};
use told::{COMPANY, Scene};

const USERS: u64 = 20;
const REQUESTS: u64 = 334;
const ROUNDS: usize = 3;

/// Requests while nothing else is going on, and the pause between them.
const SINGLES: u64 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// No round takes longer on any machine that is worth measuring on.
const PATIENCE: Duration = Duration::from_secs(600);

const INBOX: &str = "SELECT count(*) FROM Notifications";
const SENT: &str = "SELECT count(*) FROM NheaMailQueue WHERE Status = 'Sent'";
const QUEUED: &str = "SELECT count(*) FROM NheaMailQueue";

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let healthy: Vec<Rates> = (0..ROUNDS).map(|_| Rates::measure(true)).collect();
    let broken: Vec<Rates> = (0..ROUNDS).map(|_| Rates::measure(false)).collect();
    let of = |rounds: &[Rates], rate: fn(&Rates) -> f64| median(rounds.iter().map(rate).collect());
    println!(
        "all: {:.0} deliveries/s (inbox {:.0}/s, mails {:.0}/s, push {:.0}/s)",
        of(&healthy, |rates| rates.all),
        of(&healthy, |rates| rates.inbox),
        of(&healthy, |rates| rates.mails),
        of(&healthy, |rates| rates.push)
    );
    let ratio = |rate: fn(&Rates) -> f64| of(&broken, rate) / of(&healthy, rate);
    println!(
        "without push: inbox {:.0}/s ({:.2} of all), mails {:.0}/s ({:.2} of all)",
        of(&broken, |rates| rates.inbox),
        ratio(|rates| rates.inbox),
        of(&broken, |rates| rates.mails),
        ratio(|rates| rates.mails)
    );
    let (inbox, queue) = at_rest();
    println!("at rest: inbox after {inbox:.1} ms, mail queued after {queue:.1} ms");
}

/// Per second, from the publication until the last of a channel.
struct Rates {
    all: f64,
    inbox: f64,
    mails: f64,
    push: f64,
}

impl Rates {
    fn measure(pushes: bool) -> Self {
        let scene = Scene::new(USERS);
        (1..=USERS).for_each(|user| scene.browser(user));
        scene.service.answer(pushes);
        let _instance = scene.run(pipeline("notify"));
        let requests: Vec<Value> = (1..=REQUESTS).map(|version| request(version, &["All"])).collect();
        let each = REQUESTS * USERS;
        let start = Instant::now();
        scene.request(&requests);
        let pushed = || (1..=USERS).map(|user| scene.service.told(user)).sum::<u64>() >= each;
        let mut ends: [Option<Duration>; 3] = [None, None, (!pushes).then_some(Duration::ZERO)];
        while ends.contains(&None) {
            let all = i64::try_from(each).expect("a count");
            let now = [scene.number(INBOX) == all, scene.number(SENT) == all, pushed()];
            for (end, done) in ends.iter_mut().zip(now) {
                if done && end.is_none() {
                    *end = Some(start.elapsed());
                }
            }
            assert!(start.elapsed() < PATIENCE, "{ends:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let [inbox, mails, push] = ends.map(|end| end.unwrap_or_default().as_secs_f64());
        let rate = |seconds: f64| each as f64 / seconds;
        let last = inbox.max(mails).max(push);
        Self { all: 3.0 * rate(last), inbox: rate(inbox), mails: rate(mails), push: rate(push) }
    }
}

/// Milliseconds from a publication until the row is in the inbox, and until the mail is in the queue.
fn at_rest() -> (f64, f64) {
    let scene = Scene::new(1);
    let _instance = scene.run(pipeline("notify"));
    let (mut inbox, mut queue) = (Vec::new(), Vec::new());
    for version in 1..=SINGLES {
        let (start, count) = (Instant::now(), i64::try_from(version).expect("a count"));
        scene.request(&[request(version, &["InApp", "Email"])]);
        let (mut told, mut queued) = (None, None);
        while told.is_none() || queued.is_none() {
            let elapsed = start.elapsed();
            told = told.or((scene.number(INBOX) == count).then_some(elapsed));
            queued = queued.or((scene.number(QUEUED) == count).then_some(elapsed));
            assert!(elapsed < PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
        inbox.extend(told.map(|time| time.as_secs_f64() * 1_000.0));
        queue.extend(queued.map(|time| time.as_secs_f64() * 1_000.0));
        std::thread::sleep(PAUSE);
    }
    (median(inbox), median(queue))
}

fn request(version: u64, channels: &[&str]) -> Value {
    json!({"rule": "bench", "entity": uuid(9), "version": version, "tell": {"company": uuid(COMPANY)}, "channels": channels,
           "title": format!("number {version}"), "body": "The demand crossed one half of its capacity.", "type": "x"})
}

/// The middle of the measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
