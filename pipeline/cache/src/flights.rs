//! Who loads what, and what was learned meanwhile.
//!
//! The order that makes it right: whoever learns of a version raises the floor first and looks at the entry
//! second; whoever brings a row looks at the floor while it holds the entry. So of a load and a change that
//! cross, either the change meets the loaded row, or the load meets the raised floor.

use crate::decide::Floor;
use smartpulse_pipeline::Key;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// How many keys may change while one page of a scan is read. A page takes milliseconds; if so much happens
/// meanwhile, the page is not kept.
const SCAN_FLOORS_MAX: usize = 10_000;

/// The result of a load, once there is one.
pub(crate) type Landing<T> = watch::Receiver<Option<T>>;

/// The loads and writes that are under way. Bounded by the requests that are.
pub(crate) struct Flights<T> {
    table: Mutex<Table<T>>,
}

struct Table<T> {
    keys: HashMap<Key, Flight<T>>,
    scan: Option<Scan>,
}

struct Flight<T> {
    floor: Floor,
    /// How often the floor was raised.
    raises: u64,
    /// How many loads and writes of the key are under way.
    watchers: usize,
    /// The one load, if there is one.
    load: Option<Load<T>>,
}

struct Load<T> {
    landing: Landing<T>,
    via: Via,
    /// The generation in which the attempt began; see `Cache::lost`.
    generation: u64,
    /// What was heard of when the last attempt began: the load ends with it, whatever it finds.
    last_attempt: Option<Floor>,
}

#[derive(Default)]
struct Scan {
    floors: HashMap<Key, Floor>,
    overflowed: bool,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { table: Mutex::new(Table { keys: HashMap::new(), scan: None }) }
    }
}

impl<T> Flights<T> {
    /// A version of the key was heard of.
    pub(crate) fn raise(&self, key: &Key, floor: Floor) {
        let mut table = self.lock();
        if let Some(flight) = table.keys.get_mut(key) {
            flight.floor = flight.floor.max(floor);
            flight.raises += 1;
        }
        if let Some(scan) = &mut table.scan {
            if scan.floors.len() >= SCAN_FLOORS_MAX && !scan.floors.contains_key(key) {
                scan.overflowed = true;
            } else {
                let known = scan.floors.entry(Arc::clone(key)).or_default();
                *known = known.max(floor);
            }
        }
    }

    /// The newest version of the key that was heard of since the oldest flight of it began.
    pub(crate) fn floor(&self, key: &Key) -> Floor {
        let table = self.lock();
        let flown = table.keys.get(key).map(|flight| flight.floor).unwrap_or_default();
        let scanned = table.scan.as_ref().and_then(|scan| scan.floors.get(key)).copied().unwrap_or_default();
        flown.max(scanned)
    }

    /// Watches a key until the guard is dropped.
    pub(crate) fn watch(self: &Arc<Self>, key: &Key) -> Watch<T> {
        let mut table = self.lock();
        let flight = table.keys.entry(Arc::clone(key)).or_insert_with(Flight::new);
        flight.watchers += 1;
        Watch { flights: Arc::clone(self), key: Arc::clone(key), load: None, raises: 0 }
    }

    /// Joins the load of a key, or becomes the one who loads it. A load that may give less than is known by
    /// now is not joined but replaced.
    pub(crate) fn join(self: &Arc<Self>, key: &Key, generation: u64, via: Via) -> Join<T> {
        let mut table = self.lock();
        let flight = table.keys.entry(Arc::clone(key)).or_insert_with(Flight::new);
        if let Some(load) = &flight.load
            && load.generation == generation
            && (load.via == Via::Database || via == Via::Tiers)
            && load.last_attempt.is_none_or(|floor| floor == flight.floor)
        {
            return Join::Passenger(load.landing.clone());
        }
        let (sender, landing) = watch::channel(None);
        flight.load = Some(Load { landing: landing.clone(), via, generation, last_attempt: None });
        flight.watchers += 1;
        let watch = Watch { flights: Arc::clone(self), key: Arc::clone(key), load: Some(landing.clone()), raises: 0 };
        Join::Pilot(Pilot { watch, sender }, landing)
    }

    /// Watches all keys while a page of a scan is read. `None` if a scan is being watched already.
    pub(crate) fn watch_scan(self: &Arc<Self>) -> Option<WatchScan<T>> {
        let mut table = self.lock();
        if table.scan.is_some() {
            return None;
        }
        table.scan = Some(Scan::default());
        Some(WatchScan { flights: Arc::clone(self) })
    }

    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Flight<T> {
    fn new() -> Self {
        Self { floor: Floor::default(), raises: 0, watchers: 0, load: None }
    }
}

/// Where a load may find what it looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// In the nearest tier that has it.
    Tiers,
    /// Only in the database.
    Database,
}

/// What [`Flights::join`] gives.
pub(crate) enum Join<T> {
    /// Somebody loads the key already.
    Passenger(Landing<T>),
    /// The caller has to load it.
    Pilot(Pilot<T>, Landing<T>),
}

/// The duty to load a key. Dropped without landing, it leaves its passengers with a closed channel.
pub(crate) struct Pilot<T> {
    watch: Watch<T>,
    sender: watch::Sender<Option<T>>,
}

impl<T> Pilot<T> {
    /// An attempt begins; the last one ends the load.
    pub(crate) fn attempt(&mut self, generation: u64, attempt: Attempt) {
        self.watch.raises = self.watch.with_flight(|flight, own| {
            let floor = flight.floor;
            if let Some(load) = flight.load.as_mut().filter(|_| own) {
                load.generation = generation;
                load.last_attempt = (attempt == Attempt::Last).then_some(floor);
            }
            flight.raises
        });
    }

    /// Ends the load if no version was heard of that is newer than what it found; otherwise gives the duty
    /// back. Nobody can join a load that has ended, so nobody gets less than was known when he asked.
    pub(crate) fn land(self, found: Option<i64>, result: T) -> Result<(), Self> {
        let admitted = self.watch.with_flight(|flight, own| {
            let admitted = self.watch.floor_of(flight, found).admits(found);
            if admitted && own {
                flight.load = None;
            }
            admitted
        });
        if !admitted {
            return Err(self);
        }
        self.finish(result);
        Ok(())
    }

    /// What a row that this attempt found must not be older than.
    pub(crate) fn floor(&self, found: Option<i64>) -> Floor {
        self.watch.with_flight(|flight, _| self.watch.floor_of(flight, found))
    }

    /// Ends the load, whatever was heard.
    pub(crate) fn finish(self, result: T) {
        let Self { watch, sender } = self;
        drop(watch);
        // Every passenger may have left.
        let _ = sender.send(Some(result));
    }
}

/// Whether an attempt to load may be followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It may.
    Repeatable,
    /// It is the last.
    Last,
}

/// Keeps the floor of a key.
pub(crate) struct Watch<T> {
    flights: Arc<Flights<T>>,
    key: Key,
    /// The load that ends with this guard.
    load: Option<Landing<T>>,
    /// How often the floor had been raised when the attempt began.
    raises: u64,
}

impl<T> Watch<T> {
    /// Runs `f` on the flight; `true` unless its load has been replaced by another's.
    fn with_flight<R>(&self, f: impl FnOnce(&mut Flight<T>, bool) -> R) -> R {
        let mut table = self.flights.lock();
        let flight = table.keys.get_mut(&self.key).expect("a watched key has a flight");
        let own = self.owns(flight);
        f(flight, own)
    }

    fn owns(&self, flight: &Flight<T>) -> bool {
        match (&self.load, &flight.load) {
            (Some(own), Some(load)) => own.same_channel(&load.landing),
            _ => false,
        }
    }

    /// That there is no row is the truth, whatever was heard of before, unless something was heard of since
    /// the attempt began: a delete nobody told us of yet has no version to compare.
    fn floor_of(&self, flight: &Flight<T>, found: Option<i64>) -> Floor {
        if found.is_none() && flight.raises == self.raises { Floor::default() } else { flight.floor }
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        if let Some(flight) = table.keys.get_mut(&self.key) {
            if self.owns(flight) {
                flight.load = None;
            }
            flight.watchers -= 1;
            if flight.watchers == 0 {
                table.keys.remove(&self.key);
            }
        }
    }
}

/// Keeps the floors of all keys that are heard of.
pub(crate) struct WatchScan<T> {
    flights: Arc<Flights<T>>,
}

impl<T> WatchScan<T> {
    /// True if more keys changed than could be noted: what was scanned must not be kept.
    pub(crate) fn overflowed(&self) -> bool {
        self.flights.lock().scan.as_ref().is_some_and(|scan| scan.overflowed)
    }
}

impl<T> Drop for WatchScan<T> {
    fn drop(&mut self) {
        self.flights.lock().scan = None;
    }
}
