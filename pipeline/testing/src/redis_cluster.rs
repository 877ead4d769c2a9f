//! A real Redis Cluster for tests: primaries that share the slots, and replicas that take over. A single server is one of one
//! node, for tests that both have to pass.

use crate::redis::RedisServer;
use crate::{PATIENCE, redis::Data};
use std::time::{Duration, Instant};

/// Primaries: the fewest that can agree on a failover.
pub const PRIMARIES: usize = 3;

const SLOTS: usize = 16_384;

/// After so long without an answer a node counts as failed: a failover within two seconds or so.
const NODE_TIMEOUT_MS: &str = "1000";

/// A running cluster.
pub struct RedisCluster {
    /// The first three were made primaries, the others replicas of the first ones.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts one. Where there is no Redis it says so, and gives none: the test is skipped.
    ///
    /// # Panics
    /// As [`RedisServer::start`], and when the nodes do not become a cluster.
    #[must_use]
    pub fn start(replicas: usize) -> Option<Self> {
        Self::start_with(replicas, &[])
    }

    /// A single server, which knows nothing of clusters.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    #[must_use]
    pub fn single() -> Option<Self> {
        RedisServer::start().map(|server| Self { nodes: vec![server] })
    }

    /// Starts one whose nodes get further arguments.
    ///
    /// # Panics
    /// As [`RedisCluster::start`].
    #[must_use]
    pub fn start_with(replicas: usize, arguments: &[&str]) -> Option<Self> {
        let nodes = (0..PRIMARIES + replicas).map(|_| {
            let bus = crate::redis::free_port().to_string();
            let cluster =
                ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT_MS, "--cluster-port", &bus];
            // A replica copies at once, and takes over however long it had no link.
            let replica = ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"];
            RedisServer::start_with(&[&cluster[..], &replica, arguments].concat()).map(|server| (server, bus))
        });
        let nodes = nodes.collect::<Option<Vec<_>>>()?;
        let (first, _) = &nodes[0];
        for (place, (node, bus)) in nodes.iter().enumerate() {
            if place < PRIMARIES {
                let (from, to) = (place * SLOTS / PRIMARIES, (place + 1) * SLOTS / PRIMARIES - 1);
                assert_eq!(node.say(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")), "+OK\r\n");
                assert_eq!(node.say(&format!("CLUSTER SET-CONFIG-EPOCH {}", place + 1)), "+OK\r\n");
            }
            assert_eq!(first.say(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port())), "+OK\r\n");
        }
        let cluster = Self { nodes: nodes.into_iter().map(|(node, _)| node).collect() };
        cluster.until("all know all", |node| {
            node.say("CLUSTER NODES").matches("connected").count() == PRIMARIES + replicas
        });
        for (place, replica) in cluster.nodes[PRIMARIES..].iter().enumerate() {
            let of = cluster.nodes[place % PRIMARIES].text("CLUSTER MYID");
            assert_eq!(replica.say(&format!("CLUSTER REPLICATE {of}")), "+OK\r\n");
        }
        cluster.until("a cluster", |node| node.say("CLUSTER INFO").contains("cluster_state:ok"));
        for replica in &cluster.nodes[PRIMARIES..] {
            until("a replica that follows", || replica.say("INFO replication").contains("master_link_status:up"));
        }
        Some(cluster)
    }

    /// Where clients begin.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes[0].url()
    }

    /// Says a command about keys to whoever has their slot.
    ///
    /// # Panics
    /// When nobody has it.
    pub fn say(&self, command: &str) -> String {
        let answers = self.nodes.iter().filter(|node| node.is_running()).map(|node| node.say(command));
        answers.into_iter().find(|answer| !answer.starts_with("-MOVED")).expect("a node that has the key")
    }

    /// The primary that has the slot of a key.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn owner(&self, key: &str) -> &RedisServer {
        let running = self.nodes.iter().filter(|node| node.is_running());
        running.into_iter().find(|node| !node.say(&format!("EXISTS {key}")).starts_with('-')).expect("an owner")
    }

    /// Moves the slot of a key to another node, its keys one by one, as `redis-cli --cluster reshard` does.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn migrate(&self, key: &str, to: &RedisServer, between: impl Fn()) {
        let from = self.owner(key);
        let slot = from.text(&format!("CLUSTER KEYSLOT {key}"));
        let (from_id, to_id) = (from.text("CLUSTER MYID"), to.text("CLUSTER MYID"));
        assert_eq!(to.say(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")), "+OK\r\n");
        assert_eq!(from.say(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")), "+OK\r\n");
        loop {
            let keys = from.say(&format!("CLUSTER GETKEYSINSLOT {slot} 1"));
            let Some(key) = keys.lines().nth(2) else { break };
            between();
            let moved = from.say(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port()));
            assert!(moved == "+OK\r\n" || moved == "+NOKEY\r\n", "{moved}");
        }
        between();
        for node in [to, from] {
            assert_eq!(node.say(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")), "+OK\r\n");
        }
    }

    /// Saves the data of all nodes.
    ///
    /// # Panics
    /// When one does not save.
    pub fn save(&self) {
        for node in &self.nodes {
            assert_eq!(node.say("SAVE"), "+OK\r\n");
        }
    }

    /// Kills all nodes.
    pub fn kill(&self) {
        for node in &self.nodes {
            node.kill();
        }
    }

    /// Ends all nodes.
    ///
    /// # Panics
    /// As [`RedisServer::stop`].
    pub fn stop(&self, data: Data) {
        for node in &self.nodes {
            node.stop(data);
        }
    }

    /// Starts all nodes again.
    ///
    /// # Panics
    /// When one does not start, or they do not find each other.
    pub fn start_again(&self) {
        for node in &self.nodes {
            node.start_again();
        }
        self.settle();
    }

    /// Ends all nodes, and starts them again.
    ///
    /// # Panics
    /// As both.
    pub fn restart(&self, data: Data) {
        self.stop(data);
        self.start_again();
    }

    /// Stops all nodes from doing anything, or lets them go on.
    ///
    /// # Panics
    /// As [`RedisServer::freeze`].
    pub fn freeze(&self, frozen: bool) {
        for node in &self.nodes {
            node.freeze(frozen);
        }
    }

    /// Waits until all running nodes agree that the cluster works.
    ///
    /// # Panics
    /// When they do not.
    pub fn settle(&self) {
        self.until("a cluster", |node| {
            let state = node.say("CLUSTER INFO");
            state.contains("cluster_state:ok") || state.contains("cluster support disabled")
        });
    }

    fn until(&self, what: &str, all: impl Fn(&RedisServer) -> bool) {
        until(what, || self.nodes.iter().filter(|node| node.is_running()).all(&all));
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
