//! The ledger passes the suite that every ledger must pass.

mod common;

use async_trait::async_trait;
use common::{Server, database, open, settings, stand_in};
use smartpulse_clients::database::Database;
use smartpulse_clients::ledger::SharedLedger;
use smartpulse_testing::{LedgerFixture, ledger_suite, within};

struct Fixture(Server);

#[async_trait]
impl LedgerFixture for Fixture {
    async fn open(&self) -> SharedLedger {
        database(&self.0).await.ledger().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_conforms() {
    ledger_suite(|| Fixture(stand_in())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_sent_again_and_committed_once() {
    let server = stand_in();
    let ledger = database(&server).await.ledger().unwrap();
    let term = std::time::Duration::from_secs(60);
    let smartpulse_clients::ledger::Lease::Held(held) = ledger.take("p/s/T", "a", term).await.unwrap() else {
        panic!("somebody else has it")
    };
    let lost = server.faults().arm(smartpulse_stand_in::faults::Fault::break_after().on("SnapshotRequest"));
    ledger.renew("p/s/T", held.epoch, term, Some(&"one".into())).await.unwrap();
    assert_eq!(lost.struck(), 1);
    let other = open(&settings(&server.url())).ledger().unwrap();
    let entries = other.entries().await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].epoch, entries[0].position.clone()), (held.epoch, Some("one".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_while_all_other_connections_are_busy() {
    let server = stand_in();
    let database = database(&server).await;
    let (context, mut busy) = (database.context(), Vec::new());
    for _ in 0..=context.config.captured_tables.len() {
        busy.push(within("a connection", context.capture_pool.get()).await.unwrap());
    }
    for _ in 0..context.config.pool_max {
        busy.push(within("a connection", context.pool.get()).await.unwrap());
    }
    let ledger = database.ledger().unwrap();
    let term = std::time::Duration::from_secs(60);
    within("the lease", ledger.take("p/s/T", "a", term)).await.unwrap();
}
