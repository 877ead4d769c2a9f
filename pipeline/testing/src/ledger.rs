//! What every [`Ledger`](smartpulse_clients::ledger::Ledger) must do.

use crate::cases;
use async_trait::async_trait;
use smartpulse_clients::ledger::{Held, Lease, LedgerEntry, Renewed, SharedLedger};
use smartpulse_pipeline::Position;
use std::time::{Duration, Instant};

/// Long enough that none ends while a test runs.
const LONG: Duration = Duration::from_secs(600);

/// A lease that ends while the test waits.
const SHORT: Duration = Duration::from_millis(300);

const ID: &str = "capture/changes/Forecasts";

/// One ledger that exists for one case.
#[async_trait]
pub trait LedgerFixture: Send + Sync {
    /// Opens it. Opening again is another process, or a restart.
    async fn open(&self) -> SharedLedger;

    /// False for a ledger that only one process can work with, so that it never refuses a lease.
    fn shared(&self) -> bool {
        true
    }
}

/// Runs all cases.
///
/// # Panics
/// In the first case that fails.
pub async fn ledger_suite<F: LedgerFixture>(make: impl Fn() -> F) {
    cases!(
        make,
        a_lease_is_taken_with_no_position_at_first_and_with_the_last_one_later,
        nobody_else_gets_a_lease_that_is_held,
        renewing_holds_on_to_a_lease_beyond_its_first_term,
        a_holder_that_paused_beyond_its_term_is_followed_and_can_commit_nothing,
        a_lease_that_ran_out_and_that_nobody_took_can_still_be_renewed,
        the_same_holder_takes_its_lease_again_under_a_higher_epoch,
        a_released_lease_is_free_at_once_and_releasing_it_late_changes_nothing,
        ids_are_independent,
        a_request_is_told_until_it_is_forgotten,
        resetting_forgets_positions_of_an_id_and_below_and_keeps_epochs,
        positions_are_bytes,
        entries_say_who_holds_what,
    );
}

async fn take(ledger: &SharedLedger, id: &str, holder: &str, term: Duration) -> Held {
    match ledger.take(id, holder, term).await.unwrap() {
        Lease::Held(held) => held,
        Lease::HeldBy { holder, .. } => panic!("{holder} holds {id}"),
    }
}

/// Takes a lease that will be free.
async fn take_when_free(ledger: &SharedLedger, id: &str, holder: &str, term: Duration) -> Held {
    let started = Instant::now();
    loop {
        match ledger.take(id, holder, term).await.unwrap() {
            Lease::Held(held) => return held,
            Lease::HeldBy { .. } => assert!(started.elapsed() < crate::PATIENCE, "the lease of {id} does not end"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn held(request: Option<&str>) -> Renewed {
    Renewed::Held { snapshot_request: request.map(str::to_owned) }
}

async fn entry(ledger: &SharedLedger, id: &str) -> Option<LedgerEntry> {
    ledger.entries().await.unwrap().into_iter().find(|entry| entry.id == id)
}

async fn position(ledger: &SharedLedger, id: &str) -> Option<Position> {
    entry(ledger, id).await.and_then(|entry| entry.position)
}

async fn a_lease_is_taken_with_no_position_at_first_and_with_the_last_one_later(fixture: impl LedgerFixture) {
    let ledger = fixture.open().await;
    let first = take(&ledger, ID, "a", LONG).await;
    assert!(first.epoch >= 1);
    assert_eq!(first.position, None);
    // Without a position the one there is stays.
    assert_eq!(ledger.renew(ID, first.epoch, LONG, Some(&"one".into())).await.unwrap(), held(None));
    assert_eq!(ledger.renew(ID, first.epoch, LONG, None).await.unwrap(), held(None));
    ledger.release(ID, first.epoch).await.unwrap();
    let second = take(&fixture.open().await, ID, "b", LONG).await;
    assert!(second.epoch > first.epoch);
    assert_eq!(second.position, Some("one".into()));
}

async fn nobody_else_gets_a_lease_that_is_held(fixture: impl LedgerFixture) {
    if !fixture.shared() {
        return;
    }
    let (one, other) = (fixture.open().await, fixture.open().await);
    let first = take(&one, ID, "a", LONG).await;
    match other.take(ID, "b", LONG).await.unwrap() {
        Lease::HeldBy { holder, remaining } => {
            assert_eq!(holder, "a");
            assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
        }
        Lease::Held(held) => panic!("two hold it: {held:?}"),
    }
    // Asking in vain changes nothing.
    assert_eq!(one.renew(ID, first.epoch, LONG, Some(&"one".into())).await.unwrap(), held(None));
}

async fn renewing_holds_on_to_a_lease_beyond_its_first_term(fixture: impl LedgerFixture) {
    if !fixture.shared() {
        return;
    }
    let (one, other) = (fixture.open().await, fixture.open().await);
    let first = take(&one, ID, "a", SHORT).await;
    assert_eq!(one.renew(ID, first.epoch, LONG, None).await.unwrap(), held(None));
    tokio::time::sleep(SHORT * 2).await;
    assert!(matches!(other.take(ID, "b", LONG).await.unwrap(), Lease::HeldBy { .. }));
}

async fn a_holder_that_paused_beyond_its_term_is_followed_and_can_commit_nothing(fixture: impl LedgerFixture) {
    let (paused, other) = (fixture.open().await, fixture.open().await);
    let first = take(&paused, ID, "a", SHORT).await;
    assert_eq!(paused.renew(ID, first.epoch, SHORT, Some(&"one".into())).await.unwrap(), held(None));
    let second = take_when_free(&other, ID, "b", LONG).await;
    assert!(second.epoch > first.epoch);
    assert_eq!(second.position, Some("one".into()));

    assert_eq!(paused.renew(ID, first.epoch, LONG, Some(&"stale".into())).await.unwrap(), Renewed::Lost);
    assert_eq!(paused.renew(ID, first.epoch, LONG, None).await.unwrap(), Renewed::Lost);
    assert_eq!(position(&other, ID).await, Some("one".into()));
    paused.release(ID, first.epoch).await.unwrap();
    assert_eq!(other.renew(ID, second.epoch, LONG, Some(&"two".into())).await.unwrap(), held(None));
    assert_eq!(position(&other, ID).await, Some("two".into()));
}

async fn a_lease_that_ran_out_and_that_nobody_took_can_still_be_renewed(fixture: impl LedgerFixture) {
    let ledger = fixture.open().await;
    let first = take(&ledger, ID, "a", SHORT).await;
    tokio::time::sleep(SHORT * 2).await;
    // Nobody followed, so that nothing can contradict it.
    assert_eq!(ledger.renew(ID, first.epoch, LONG, Some(&"one".into())).await.unwrap(), held(None));
    assert_eq!(position(&ledger, ID).await, Some("one".into()));
}

async fn the_same_holder_takes_its_lease_again_under_a_higher_epoch(fixture: impl LedgerFixture) {
    let ledger = fixture.open().await;
    let mut last = take(&ledger, ID, "a", LONG).await.epoch;
    for _ in 0..5 {
        let next = take(&ledger, ID, "a", LONG).await.epoch;
        assert!(next > last, "{next} after {last}");
        assert_eq!(ledger.renew(ID, last, LONG, None).await.unwrap(), Renewed::Lost);
        last = next;
    }
}

async fn a_released_lease_is_free_at_once_and_releasing_it_late_changes_nothing(fixture: impl LedgerFixture) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    let first = take(&one, ID, "a", LONG).await;
    one.release(ID, first.epoch).await.unwrap();
    one.release(ID, first.epoch).await.unwrap();
    assert_eq!(one.renew(ID, first.epoch, LONG, Some(&"late".into())).await.unwrap(), Renewed::Lost);
    let second = take(&other, ID, "b", LONG).await;
    assert_eq!(second.position, None);
    one.release(ID, first.epoch).await.unwrap();
    one.release("capture/changes/Unknown", 1).await.unwrap();
    assert_eq!(other.renew(ID, second.epoch, LONG, None).await.unwrap(), held(None));
    assert_eq!(one.renew("capture/changes/Unknown", 1, LONG, None).await.unwrap(), Renewed::Lost);
}

async fn ids_are_independent(fixture: impl LedgerFixture) {
    let ledger = fixture.open().await;
    let (one, other) = (take(&ledger, "p/s/A", "a", LONG).await, take(&ledger, "p/s/B", "b", LONG).await);
    assert_eq!(ledger.renew("p/s/A", one.epoch, LONG, Some(&"a".into())).await.unwrap(), held(None));
    assert_eq!(ledger.renew("p/s/B", other.epoch, LONG, Some(&"b".into())).await.unwrap(), held(None));
    assert_eq!(position(&ledger, "p/s/A").await, Some("a".into()));
    assert_eq!(position(&ledger, "p/s/B").await, Some("b".into()));
}

async fn a_request_is_told_until_it_is_forgotten(fixture: impl LedgerFixture) {
    let (ledger, tool) = (fixture.open().await, fixture.open().await);
    assert!(!tool.request_snapshot(ID, "r1").await.unwrap(), "nobody has captured it");
    let lease = take(&ledger, ID, "a", LONG).await;
    assert!(tool.request_snapshot(ID, "r1").await.unwrap());
    for _ in 0..2 {
        assert_eq!(ledger.renew(ID, lease.epoch, LONG, Some(&"p".into())).await.unwrap(), held(Some("r1")));
    }
    // A later request replaces it, and is not forgotten in its place.
    assert!(tool.request_snapshot(ID, "r2").await.unwrap());
    ledger.forget_request(ID, "r1").await.unwrap();
    // It outlives the holder.
    ledger.release(ID, lease.epoch).await.unwrap();
    let next = take(&fixture.open().await, ID, "b", LONG).await;
    assert_eq!(ledger.renew(ID, next.epoch, LONG, None).await.unwrap(), held(Some("r2")));
    ledger.forget_request(ID, "r2").await.unwrap();
    ledger.forget_request(ID, "r2").await.unwrap();
    assert_eq!(ledger.renew(ID, next.epoch, LONG, None).await.unwrap(), held(None));
    assert_eq!(position(&ledger, ID).await, Some("p".into()), "requests are no positions");
}

async fn resetting_forgets_positions_of_an_id_and_below_and_keeps_epochs(fixture: impl LedgerFixture) {
    let ledger = fixture.open().await;
    let mut epochs = Vec::new();
    let ids = ["p/s/A", "p/s/B", "p/s_/C", "p/st/D", "p/s%/E"];
    for id in ids {
        let lease = take(&ledger, id, "a", LONG).await;
        assert_eq!(ledger.renew(id, lease.epoch, LONG, Some(&"x".into())).await.unwrap(), held(None));
        ledger.release(id, lease.epoch).await.unwrap();
        epochs.push(lease.epoch);
    }
    assert_eq!(ledger.reset("p/s").await.unwrap(), 2);
    assert_eq!(ledger.reset("p/s").await.unwrap(), 0);
    assert_eq!(ledger.reset("p/s_/C").await.unwrap(), 1);
    assert_eq!(ledger.reset("p/s%").await.unwrap(), 1, "it is no pattern");
    assert_eq!(ledger.reset("p/unknown").await.unwrap(), 0);
    for (id, epoch) in ids.into_iter().zip(epochs) {
        let next = take(&ledger, id, "b", LONG).await;
        assert!(next.epoch > epoch, "{id}: {} after {epoch}", next.epoch);
        assert_eq!(next.position.is_some(), id == "p/st/D", "{id}");
    }
}

async fn positions_are_bytes(fixture: impl LedgerFixture) {
    let ledger = fixture.open().await;
    let lease = take(&ledger, ID, "a", LONG).await;
    for bytes in [vec![0, 255, 10, 0], Vec::new(), vec![7; 2_000]] {
        let written = Position::from(bytes);
        assert_eq!(ledger.renew(ID, lease.epoch, LONG, Some(&written)).await.unwrap(), held(None));
        assert_eq!(position(&ledger, ID).await, Some(written));
    }
}

async fn entries_say_who_holds_what(fixture: impl LedgerFixture) {
    let ledger = fixture.open().await;
    assert_eq!(ledger.entries().await.unwrap(), []);
    let (b, a) = (take(&ledger, "p/s/B", "somebody", LONG).await, take(&ledger, "p/s/A", "else", LONG).await);
    ledger.renew("p/s/B", b.epoch, LONG, Some(&"x".into())).await.unwrap();
    ledger.release("p/s/A", a.epoch).await.unwrap();
    let entries = ledger.entries().await.unwrap();
    let said: Vec<_> = entries
        .iter()
        .map(|entry| (entry.id.as_str(), entry.epoch, entry.holder.as_deref(), entry.position.clone()))
        .collect();
    assert_eq!(said, [("p/s/A", a.epoch, None, None), ("p/s/B", b.epoch, Some("somebody"), Some("x".into()))]);
}
