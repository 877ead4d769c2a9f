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
    /// How many loads and writes of the key are under way.
    watchers: usize,
    /// The one load, if there is one.
    load: Option<Landing<T>>,
}

#[derive(Default)]
struct Scan {
    floors: HashMap<Key, Floor>,
    overflowed: bool,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self {
            table: Mutex::new(Table {
                keys: HashMap::new(),
                scan: None,
            }),
        }
    }
}

impl<T> Flights<T> {
    /// A version of the key was heard of.
    pub(crate) fn raise(&self, key: &Key, floor: Floor) {
        let mut table = self.lock();
        if let Some(flight) = table.keys.get_mut(key) {
            flight.floor = flight.floor.max(floor);
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
        let flown = table
            .keys
            .get(key)
            .map(|flight| flight.floor)
            .unwrap_or_default();
        let scanned = table
            .scan
            .as_ref()
            .and_then(|scan| scan.floors.get(key))
            .copied()
            .unwrap_or_default();
        flown.max(scanned)
    }

    /// Watches a key until the guard is dropped.
    pub(crate) fn watch(self: &Arc<Self>, key: &Key) -> Watch<T> {
        let mut table = self.lock();
        let flight = table
            .keys
            .entry(Arc::clone(key))
            .or_insert_with(Flight::new);
        flight.watchers += 1;
        Watch {
            flights: Arc::clone(self),
            key: Arc::clone(key),
            loads: false,
        }
    }

    /// Joins the load of a key, or becomes the one who loads it.
    pub(crate) fn join(self: &Arc<Self>, key: &Key) -> Join<T> {
        let mut table = self.lock();
        let flight = table
            .keys
            .entry(Arc::clone(key))
            .or_insert_with(Flight::new);
        if let Some(landing) = &flight.load {
            return Join::Passenger(landing.clone());
        }
        let (sender, landing) = watch::channel(None);
        flight.load = Some(landing.clone());
        flight.watchers += 1;
        let watch = Watch {
            flights: Arc::clone(self),
            key: Arc::clone(key),
            loads: true,
        };
        Join::Pilot(Pilot { watch, sender }, landing)
    }

    /// Watches all keys while a page of a scan is read. `None` if a scan is being watched already.
    pub(crate) fn watch_scan(self: &Arc<Self>) -> Option<WatchScan<T>> {
        let mut table = self.lock();
        if table.scan.is_some() {
            return None;
        }
        table.scan = Some(Scan::default());
        Some(WatchScan {
            flights: Arc::clone(self),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Flight<T> {
    fn new() -> Self {
        Self {
            floor: Floor::default(),
            watchers: 0,
            load: None,
        }
    }
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
    /// Ends the load if no version was heard of that is newer than what it found; otherwise gives the duty
    /// back. Nobody can join a load that has ended, so nobody gets less than was known when he asked.
    pub(crate) fn land(mut self, found: Option<i64>, result: T) -> Result<(), Self> {
        let mut table = self.watch.flights.lock();
        if let Some(flight) = table.keys.get_mut(&self.watch.key) {
            if !flight.floor.admits(found) {
                drop(table);
                return Err(self);
            }
            flight.load = None;
        }
        drop(table);
        // From here on, a load of this key is somebody else's.
        self.watch.loads = false;
        self.finish(result);
        Ok(())
    }

    /// Ends the load, whatever was heard.
    pub(crate) fn finish(self, result: T) {
        let Self { watch, sender } = self;
        drop(watch);
        // Every passenger may have left.
        let _ = sender.send(Some(result));
    }
}

/// Keeps the floor of a key.
pub(crate) struct Watch<T> {
    flights: Arc<Flights<T>>,
    key: Key,
    loads: bool,
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        if let Some(flight) = table.keys.get_mut(&self.key) {
            flight.watchers -= 1;
            if flight.watchers == 0 {
                table.keys.remove(&self.key);
            } else if self.loads {
                flight.load = None;
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
        self.flights
            .lock()
            .scan
            .as_ref()
            .is_some_and(|scan| scan.overflowed)
    }
}

impl<T> Drop for WatchScan<T> {
    fn drop(&mut self) {
        self.flights.lock().scan = None;
    }
}
