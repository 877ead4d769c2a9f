//! What every [`Store`] must do.

use crate::cases;
use async_trait::async_trait;
use bytes::Bytes;
use smartpulse_pipeline::state::{DeadLetter, DeadLetterFilter, KeyState, Origin, Store};
use smartpulse_pipeline::{Operation, Position, Timestamp};
use std::sync::Arc;

/// One store that exists for one case.
#[async_trait]
pub trait StoreFixture: Send + Sync {
    /// Opens it. Opening again is another process, or a restart.
    async fn open(&self) -> Arc<dyn Store>;

    /// Whether another opening sees what the first has committed.
    fn durable(&self) -> bool;
}

/// Runs all cases.
///
/// # Panics
/// In the first case that fails.
pub async fn store_suite<F: StoreFixture>(make: impl Fn() -> F) {
    cases!(
        make,
        positions_are_replaced_listed_and_reset_with_what_is_below,
        state_is_per_chain_and_never_goes_back,
        state_is_given_in_pages_by_key,
        a_dead_letter_is_kept_once_and_whole,
        a_replay_is_asked_for_and_withdrawn_by_another_failure,
        dead_letters_are_listed_newest_first,
        what_was_committed_is_there_after_a_restart,
    );
}

/// A dead letter of this component and version.
#[must_use]
pub fn dead_letter(component: &str, version: i64) -> DeadLetter {
    DeadLetter {
        pipeline: "p".to_owned(),
        component: component.to_owned(),
        reason: "no such user: 42".to_owned(),
        attempts: 3,
        section: Some("forecast".to_owned()),
        key: Some("k".to_owned()),
        version: Some(version),
        operation: Some(Operation::Update),
        time: Timestamp::from_millis(1_451_606_400_123),
        origin: Origin::Sink,
        payload: Bytes::from_static(b"\x00payload"),
    }
}

fn state(key: &str, version: i64, document: Option<&'static str>) -> KeyState {
    KeyState { key: key.into(), version, document: document.map(|d| Bytes::from_static(d.as_bytes())) }
}

async fn positions_are_replaced_listed_and_reset_with_what_is_below(fixture: impl StoreFixture) {
    let store = fixture.open().await;
    assert_eq!(store.position("p/a").await.unwrap(), None);
    for id in ["p/a", "p/a/Forecasts", "p/a%", "p/ab", "p/b"] {
        store.commit_position(id, &Position::from(vec![0, 255])).await.unwrap();
    }
    store.commit_position("p/a", &Position::from("seq:9")).await.unwrap();
    assert_eq!(store.position("p/a").await.unwrap(), Some(Position::from("seq:9")));
    assert_eq!(store.position("p/b").await.unwrap(), Some(Position::from(vec![0, 255])));
    let ids = |stored: Vec<smartpulse_pipeline::state::StoredPosition>| -> Vec<String> {
        stored.into_iter().map(|p| p.id).collect()
    };
    assert_eq!(ids(store.positions().await.unwrap()), ["p/a", "p/a%", "p/a/Forecasts", "p/ab", "p/b"]);
    assert_eq!(store.reset_position("p/a").await.unwrap(), 2);
    assert_eq!(store.reset_position("p/a").await.unwrap(), 0);
    assert_eq!(ids(store.positions().await.unwrap()), ["p/a%", "p/ab", "p/b"]);
}

async fn state_is_per_chain_and_never_goes_back(fixture: impl StoreFixture) {
    let store = fixture.open().await;
    let keys = ["a".into(), "missing".into(), "b".into(), "a".into()];
    assert_eq!(store.load_state("c1", &keys).await.unwrap(), [None, None, None, None]);
    store.commit_state("c1", &[state("a", 2, Some("{2}")), state("b", 1, None)]).await.unwrap();
    store.commit_state("c2", &[state("a", 9, Some("{9}"))]).await.unwrap();
    // Late, equal and newer, in one call.
    let entries = [state("a", 1, Some("{1}")), state("b", 1, Some("{x}")), state("b", 3, Some("{3}"))];
    store.commit_state("c1", &entries).await.unwrap();
    let (a, b) = (Some(state("a", 2, Some("{2}"))), Some(state("b", 3, Some("{3}"))));
    assert_eq!(store.load_state("c1", &keys).await.unwrap(), [a.clone(), None, b, a]);
    store.reset_state("c1").await.unwrap();
    store.reset_state("c1").await.unwrap();
    assert_eq!(store.load_state("c1", &keys[..1]).await.unwrap(), [None]);
    assert_eq!(store.load_state("c2", &keys[..1]).await.unwrap(), [Some(state("a", 9, Some("{9}")))]);
}

async fn state_is_given_in_pages_by_key(fixture: impl StoreFixture) {
    let store = fixture.open().await;
    assert_eq!(store.state_page("c1", None, 10).await.unwrap(), []);
    // Capitals sort before small letters, and both before what is not ASCII. An empty document is one.
    let all = [state("A", 3, Some("")), state("a", 1, Some("{1}")), state("a/b", 2, None), state("\u{e4}", 4, None)];
    let mut mixed = all.to_vec();
    mixed.reverse();
    store.commit_state("c1", &mixed).await.unwrap();
    store.commit_state("c2", &[state("a", 9, None)]).await.unwrap();
    assert_eq!(store.state_page("c1", None, 10).await.unwrap(), all);
    assert_eq!(store.state_page("c1", None, 3).await.unwrap(), all[..3]);
    assert_eq!(store.state_page("c1", Some("a"), 1).await.unwrap(), all[2..3]);
    assert_eq!(store.state_page("c1", Some("\u{e4}"), 10).await.unwrap(), []);
}

async fn a_dead_letter_is_kept_once_and_whole(fixture: impl StoreFixture) {
    let store = fixture.open().await;
    let bare = DeadLetter {
        section: None,
        key: None,
        version: None,
        operation: None,
        origin: Origin::Topic { bus: "bus".to_owned(), topic: "cdc:forecasts".to_owned() },
        ..dead_letter("s", 1)
    };
    store.put_dead_letters(&[dead_letter("s", 1), bare.clone(), dead_letter("s", 1)]).await.unwrap();
    let again = DeadLetter { reason: "still".to_owned(), attempts: 7, ..dead_letter("s", 1) };
    store.put_dead_letters(std::slice::from_ref(&again)).await.unwrap();
    let all = store.dead_letters(&DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() }).await.unwrap();
    let letters: Vec<DeadLetter> = all.iter().rev().map(|stored| stored.letter.clone()).collect();
    assert_eq!(letters, [again.clone(), bare]);
    let first = &all[1];
    assert_eq!(store.dead_letter(first.id).await.unwrap().as_ref(), Some(first));
    assert_eq!(store.remove_dead_letters(&[first.id, first.id, -1]).await.unwrap(), 1);
    assert_eq!(store.dead_letter(first.id).await.unwrap(), None);
    // A removed letter's number is not given to another one: a tool may still hold it.
    store.put_dead_letters(&[again]).await.unwrap();
    assert_eq!(store.dead_letter(first.id).await.unwrap(), None);
}

async fn a_replay_is_asked_for_and_withdrawn_by_another_failure(fixture: impl StoreFixture) {
    let store = fixture.open().await;
    let letters = [dead_letter("s", 1), dead_letter("s", 2), dead_letter("t", 1)];
    store.put_dead_letters(&letters).await.unwrap();
    let all = store.dead_letters(&DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() }).await.unwrap();
    assert!(all.iter().all(|stored| !stored.replay_requested));
    for stored in &all {
        assert!(store.request_replay(stored.id).await.unwrap());
    }
    assert!(!store.request_replay(-1).await.unwrap());
    let requested = |component: &'static str, limit| {
        let store = Arc::clone(&store);
        async move {
            let found = store.requested_replays("p", component, limit).await.unwrap();
            found.into_iter().map(|stored| stored.letter.version).collect::<Vec<_>>()
        }
    };
    assert_eq!(requested("s", 10).await, [Some(1), Some(2)]);
    assert_eq!(requested("s", 1).await, [Some(1)]);
    assert_eq!(store.requested_replays("other", "s", 10).await.unwrap(), []);
    // The sink refuses it again: it waits for a human once more.
    store.put_dead_letters(&letters[..1]).await.unwrap();
    assert_eq!(requested("s", 10).await, [Some(2)]);
    assert_eq!(requested("t", 10).await, [Some(1)]);
    // Whoever has replayed them all removes what did not come back meanwhile.
    let ids: Vec<i64> = all.iter().map(|stored| stored.id).collect();
    assert_eq!(store.remove_replayed(&ids).await.unwrap(), 2);
    let left = store.dead_letters(&DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() }).await.unwrap();
    assert_eq!(left.iter().map(|stored| stored.letter.version).collect::<Vec<_>>(), [Some(1)]);
}

async fn dead_letters_are_listed_newest_first(fixture: impl StoreFixture) {
    let store = fixture.open().await;
    let mut letters: Vec<DeadLetter> = (1..=5).map(|version| dead_letter("s", version)).collect();
    letters[3].component = "t".to_owned();
    letters[4].pipeline = "q".to_owned();
    store.put_dead_letters(&letters).await.unwrap();
    for (pipeline, component, limit, expected) in [
        (None, None, 10, vec![5, 4, 3, 2, 1]),
        (None, None, 2, vec![5, 4]),
        (Some("p"), None, 10, vec![4, 3, 2, 1]),
        (Some("p"), Some("s"), 2, vec![3, 2]),
        (None, Some("t"), 10, vec![4]),
        (Some("x"), None, 10, vec![]),
    ] {
        let filter =
            DeadLetterFilter { pipeline: pipeline.map(str::to_owned), component: component.map(str::to_owned), limit };
        let listed = store.dead_letters(&filter).await.unwrap();
        assert_eq!(listed.iter().filter_map(|s| s.letter.version).collect::<Vec<i64>>(), expected, "{filter:?}");
    }
}

async fn what_was_committed_is_there_after_a_restart(fixture: impl StoreFixture) {
    if !fixture.durable() {
        return;
    }
    let store = fixture.open().await;
    store.commit_position("p/a", &Position::from("seq:1")).await.unwrap();
    store.commit_state("c", &[state("a", 1, Some("{}"))]).await.unwrap();
    store.put_dead_letters(&[dead_letter("s", 1)]).await.unwrap();
    // Seen by a tool beside it, and after its end.
    for _ in 0..2 {
        let other = fixture.open().await;
        assert_eq!(other.position("p/a").await.unwrap(), Some(Position::from("seq:1")));
        assert_eq!(other.load_state("c", &["a".into()]).await.unwrap(), [Some(state("a", 1, Some("{}")))]);
        let filter = DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() };
        assert_eq!(other.dead_letters(&filter).await.unwrap().len(), 1);
        store.commit_position("p/a", &Position::from("seq:1")).await.unwrap();
    }
}
