//! What anybody may see of a change on its way: on the bus, on the broadcast's channels, and in the instances' metrics.

use crate::cluster::Cluster;
use crate::process::block_on;
use smartpulse_clients::bus::{Bus, InitialPosition, Subscribe, SubscriptionType};
use smartpulse_pulsar::{PulsarBus, PulsarConfig};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970. All of it happens on one machine, by one clock.
pub fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_micros()).expect("a time")
}

/// A change that went by.
#[derive(Debug, Clone)]
pub struct Sight {
    pub at: u64,
    /// On the bus, when its publisher handed it over.
    pub handed: Option<u64>,
}

/// What has been seen, by key and version.
pub type Seen = Arc<Mutex<HashMap<(String, i64), Sight>>>;

fn note(seen: &Seen, key: &str, version: i64, handed: Option<u64>) {
    let sight = Sight { at: now(), handed };
    seen.lock().expect("a map").entry((key.to_owned(), version)).or_insert(sight);
}

/// Listens to captured changes, as one more consumer, until the program ends.
pub fn bus(cluster: &Cluster) -> Seen {
    let config =
        PulsarConfig { namespace: cluster.namespace.clone(), ..PulsarConfig::new(&cluster.broker.service_url) };
    let seen = Seen::default();
    let (noted, ready) = (seen.clone(), Arc::new(std::sync::Barrier::new(2)));
    let subscribed = ready.clone();
    std::thread::spawn(move || {
        block_on(async move {
            let bus = PulsarBus::connect(&config).await.expect("a broker");
            let subscribe = Subscribe {
                topic: "cdc:forecasts".to_owned(),
                subscription: "observer".to_owned(),
                kind: SubscriptionType::Exclusive,
                initial: InitialPosition::Latest,
                durable: false,
            };
            let mut consumer = bus.subscribe(subscribe).await.expect("a subscription");
            subscribed.wait();
            let acker = consumer.acker();
            loop {
                let messages = consumer.receive(500).await.expect("messages");
                for message in &messages {
                    let key = message.key.as_deref().expect("a key");
                    let version = message.properties["version"].parse().expect("a version");
                    let handed = u64::try_from(message.publish_time.as_millis()).expect("a time") * 1_000;
                    note(&noted, key, version, Some(handed));
                }
                let ids: Vec<_> = messages.into_iter().map(|message| message.id).collect();
                acker.ack(&ids).await.expect("an ack");
            }
        });
    });
    ready.wait();
    seen
}

/// Listens to broadcasts, as one more subscriber, until the program ends.
pub fn broadcasts(cluster: &Cluster) -> Seen {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.redis.port())).expect("a server");
    stream.write_all(b"PSUBSCRIBE __dataChanged:*\r\n").expect("a server");
    let seen = Seen::default();
    let noted = seen.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let (Some(key), Some(version)) = (member(&line, "\"DataKey\":\""), member(&line, "\"VersionId\":")) {
                note(&noted, key, version.parse().expect("a version"), None);
            }
        }
    });
    seen
}

/// The text behind `name`, up to a quote, a comma or a brace.
fn member<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    line.split_once(name)?.1.split(['"', ',', '}']).next()
}

/// Sums of the series of all instances, by the part of their labels that is asked for.
pub fn sums(cluster: &Cluster, name: &str, labels: &[&str], by: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for instance in cluster.instances() {
        let text = instance.get("/metrics").expect("metrics").body;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix('{')) else { continue };
            let Some((series, value)) = rest.rsplit_once("} ") else { continue };
            if labels.iter().all(|label| series.contains(label)) {
                let of = member(series, &format!("{by}=\"")).unwrap_or_default();
                *sums.entry(of.to_owned()).or_default() += value.parse::<f64>().expect("a number");
            }
        }
    }
    sums
}

/// What was added to sums meanwhile.
pub fn added(before: &BTreeMap<String, f64>, after: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    after.into_iter().map(|(of, sum)| (of.clone(), sum - before.get(&of).copied().unwrap_or_default())).collect()
}

/// The bound, in milliseconds, below which this share of a histogram's observations are, at worst.
pub fn bound_ms(buckets: &BTreeMap<String, f64>, share: f64) -> f64 {
    let bound = |le: &str| le.parse().unwrap_or(f64::INFINITY) * 1e3;
    let mut bounds: Vec<(f64, f64)> = buckets.iter().map(|(le, count)| (bound(le), *count)).collect();
    bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total = bounds.last().map_or(0.0, |(_, count)| *count);
    bounds.iter().find(|(_, count)| *count >= total * share).map_or(0.0, |(bound, _)| *bound)
}
