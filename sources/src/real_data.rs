//! Real production data as revisions of forecasts: the input of the player, the demo and the benches.
//!
//! A series holds supply and demand of up to 28 production units for whole days of 96 quarter-hours. Each unit has
//! one forecast per day, and each quarter-hour revises it once: a day is 96 versions of a key. Time order means: by
//! quarter-hour, and within it by unit in the order of the header. Times are UTC; supply and demand are per unit of
//! installed capacity, as published.
//!
//! All ids are functions of names (UUIDv5, [`NAMESPACE`]): unit `"PV1"`, forecast `"PV1/2016-06-06"`, company
//! `"company-1"`, provider `"provider-photovoltaic"`. Where the data comes from and under which licence it is: the
//! README beside it in `data/`.

mod document;
mod read;

pub(crate) use document::UPDATED_VIA;
pub use document::write_history;

use smartpulse_pipeline::message::NAMESPACE;
use smartpulse_pipeline::{Key, Timestamp};
use uuid::Uuid;

/// Quarter-hours of a day: revisions of a forecast.
pub const QUARTERS: usize = 96;

/// A quarter-hour, in milliseconds.
const QUARTER_MS: i64 = 15 * 60 * 1000;

/// A day, in milliseconds.
const DAY_MS: i64 = QUARTER_MS * QUARTERS as i64;

/// Companies that share the units, seven each in the order of the header.
const COMPANIES: usize = 4;
const UNITS_PER_COMPANY: usize = 7;

/// The most units that a series may have: those that find a company.
const UNITS_MAX: usize = COMPANIES * UNITS_PER_COMPANY;

/// How sure a forecast is of its day at the first quarter-hour and at the last.
const CONFIDENCE: (f64, f64) = (0.5, 0.99);

/// What units' names begin with, their kind, and the capacity in MW that such a unit is given. The data set has
/// values per unit of capacity only, so that the capacities are our choice of usual sizes.
const KINDS: &[(&str, &str, f64)] =
    &[("PV", "photovoltaic", 10.0), ("WP", "wind", 25.0), ("BM", "biomass", 5.0), ("Hydro", "hydro", 15.0)];

/// The week that comes with the crate, Monday 2016-06-06 to Sunday 2016-06-12.
const WEEK: &[u8] = include_bytes!("../data/week-2016-06.csv.gz");

/// A production unit. Ids are as documents spell them: lower-case UUID text.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// Its name, such as `PV1`.
    pub name: String,
    /// Its id.
    pub id: Key,
    /// The company that it belongs to.
    pub company_id: Key,
    /// Who provides its data: one per kind.
    pub provider_id: Key,
    /// `photovoltaic`, `wind`, `biomass` or `hydro`.
    pub kind: &'static str,
    /// Its installed capacity, in MW.
    pub capacity_mw: f64,
}

impl Unit {
    /// The unit of that name at a place in the header; none when the name is of no known kind.
    fn new(name: &str, place: usize) -> Option<Self> {
        let (_, kind, capacity_mw) = *KINDS.iter().find(|(prefix, _, _)| name.starts_with(prefix))?;
        Some(Self {
            name: name.to_owned(),
            id: id_of(name),
            company_id: id_of(&format!("company-{}", place / UNITS_PER_COMPANY + 1)),
            provider_id: id_of(&format!("provider-{kind}")),
            kind,
            capacity_mw,
        })
    }
}

/// The id of what has this name.
fn id_of(name: &str) -> Key {
    Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string().into()
}

/// What one quarter-hour says of one forecast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Revision<'a> {
    /// The forecast.
    pub forecast_id: &'a Key,
    /// Whose forecast it is.
    pub unit: &'a Unit,
    /// The unit's place in the header, from 0.
    pub unit_index: usize,
    /// The day, such as `2016-06-06`.
    pub date: &'a str,
    /// The quarter-hour of the day, 0 to 95.
    pub quarter: usize,
    /// Demand, per unit of capacity.
    pub demand: f64,
    /// Supply, per unit of capacity.
    pub supply: f64,
    /// How sure the forecast is: 0.5 rising linearly to 0.99 over the day, four decimals.
    pub confidence: f64,
    /// `Active`; the day's last one `Completed`.
    pub status: &'static str,
    /// The day's first quarter-hour.
    pub forecast_date: Timestamp,
    /// The quarter-hour.
    pub updated_at: Timestamp,
}

/// Supply and demand of units over whole days.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    units: Vec<Unit>,
    days: Vec<Day>,
    /// By day, quarter-hour and unit.
    readings: Vec<Reading>,
}

#[derive(Debug, Clone, PartialEq)]
struct Day {
    date: String,
    start: Timestamp,
    /// The forecasts' ids by unit.
    forecasts: Vec<Key>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    demand: f64,
    supply: f64,
}

impl Series {
    /// The week that comes with the crate: 28 units, 7 days, 18,816 revisions.
    ///
    /// # Panics
    /// When the crate was built with a damaged file; a test reads it.
    #[must_use]
    pub fn week() -> Self {
        Self::read(WEEK).expect("the week of data was checked when the crate was tested")
    }

    /// The units, in the order of the header.
    #[must_use]
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// How many days there are.
    #[must_use]
    pub fn days(&self) -> usize {
        self.days.len()
    }

    /// How many revisions there are: units x days x 96.
    #[must_use]
    pub fn revision_count(&self) -> usize {
        self.readings.len()
    }

    /// The revision at a place in time order, from 0.
    #[must_use]
    pub fn revision(&self, at: usize) -> Option<Revision<'_>> {
        let reading = self.readings.get(at)?;
        let (slot, unit_index) = (at / self.units.len(), at % self.units.len());
        let (day, quarter) = (&self.days[slot / QUARTERS], slot % QUARTERS);
        Some(Revision {
            forecast_id: &day.forecasts[unit_index],
            unit: &self.units[unit_index],
            unit_index,
            date: &day.date,
            quarter,
            demand: reading.demand,
            supply: reading.supply,
            confidence: confidence(quarter),
            status: if quarter + 1 == QUARTERS { "Completed" } else { "Active" },
            forecast_date: day.start,
            updated_at: Timestamp::from_millis(day.start.as_millis() + quarter as i64 * QUARTER_MS),
        })
    }

    /// All revisions, in time order.
    pub fn revisions(&self) -> impl Iterator<Item = Revision<'_>> {
        (0..self.revision_count()).filter_map(|at| self.revision(at))
    }

    /// The first revision of every forecast, in time order.
    pub fn first_revisions(&self) -> impl Iterator<Item = Revision<'_>> {
        let units = self.units.len();
        (0..self.days.len())
            .flat_map(move |day| (0..units).filter_map(move |unit| self.revision(day * QUARTERS * units + unit)))
    }
}

/// The confidence at a quarter-hour, rounded to four decimals.
fn confidence(quarter: usize) -> f64 {
    let (first, last) = CONFIDENCE;
    let exact = first + (last - first) * quarter as f64 / (QUARTERS - 1) as f64;
    (exact * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    // Forecast, unit, company, provider.
    const GOLDEN_PV1: [&str; 4] = [
        "f4c92f6d-dfff-5ccf-88ac-857f2b17c335",
        "f203381a-a3ee-5318-864d-59264db4ccc2",
        "87328e6c-5245-5d45-9358-a8e0bbe600e2",
        "b0ca587c-ad7f-578d-b390-1ea7d7d27be1",
    ];
    const GOLDEN_HYDRO3: [&str; 4] = [
        "227f59dd-906f-5dbd-8542-72364d951a73",
        "1556027d-9d05-5fb0-a595-01f6984f4468",
        "03035ad3-6fb0-55cb-b923-321d0c559e92",
        "8761a6d1-a3ab-5e3c-b2eb-8122bf93fe1c",
    ];

    #[test]
    fn the_week_has_a_revision_per_unit_and_quarter_hour_in_time_order() {
        let week = Series::week();
        assert_eq!((week.units().len(), week.days(), week.revision_count()), (28, 7, 18_816));
        let revisions: Vec<Revision<'_>> = week.revisions().collect();
        assert_eq!(revisions.len(), 18_816);
        assert!(revisions.is_sorted_by_key(|revision| (revision.updated_at, revision.unit_index)));
        let ids: std::collections::BTreeSet<&Key> = revisions.iter().map(|revision| revision.forecast_id).collect();
        assert_eq!(ids.len(), 196);
        let first: Vec<Revision<'_>> = week.first_revisions().collect();
        let expected: Vec<Revision<'_>> = revisions.iter().filter(|revision| revision.quarter == 0).copied().collect();
        assert_eq!(first, expected);
        assert_eq!(week.revision(18_816), None);
    }

    #[test]
    fn the_values_are_those_of_the_file() {
        let week = Series::week();
        // 2016-06-06T12:00:00Z, PV1: the row's first supply and first demand.
        let noon = week.revision(48 * 28).unwrap();
        assert_eq!((noon.unit.name.as_str(), noon.supply), ("PV1", 0.1666));
        assert_eq!(noon.updated_at.to_string(), "2016-06-06T12:00:00.000Z");
        let first = week.revision(27).unwrap();
        assert_eq!((first.unit.name.as_str(), first.supply, first.demand), ("Hydro3", 0.0349, 0.18));
        let last = week.revision(18_815).unwrap();
        assert_eq!((last.date, last.quarter), ("2016-06-12", 95));
        assert_eq!(last.forecast_date.to_string(), "2016-06-12T00:00:00.000Z");
        assert_eq!(last.updated_at.to_string(), "2016-06-12T23:45:00.000Z");
    }

    #[test]
    fn ids_are_what_they_always_were() {
        let week = Series::week();
        let check = |at: usize, unit: &str, ids: [&str; 4]| {
            let revision = week.revision(at).unwrap();
            let Unit { name, id, company_id, provider_id, .. } = revision.unit;
            assert_eq!(name, unit);
            assert_eq!([&**revision.forecast_id, id, company_id, provider_id], ids);
        };
        check(0, "PV1", GOLDEN_PV1);
        check(27, "Hydro3", GOLDEN_HYDRO3);
    }

    #[test]
    fn units_belong_to_four_companies_and_a_provider_per_kind() {
        let week = Series::week();
        let distinct = |id: fn(&Unit) -> &Key| {
            let mut ids: Vec<&Key> = week.units().iter().map(id).collect();
            ids.dedup();
            ids.len()
        };
        // In header order each company's and each kind's units stand together, so that duplicates are neighbours.
        assert_eq!((distinct(|unit| &unit.company_id), distinct(|unit| &unit.provider_id)), (4, 4));
        assert_eq!(week.units()[6].company_id, week.units()[0].company_id);
        assert_ne!(week.units()[7].company_id, week.units()[6].company_id);
        let kinds = [("PV8", "photovoltaic"), ("WP12", "wind"), ("BM1", "biomass"), ("Hydro2", "hydro")];
        for (name, kind) in kinds {
            assert_eq!(week.units().iter().find(|unit| unit.name == name).unwrap().kind, kind);
        }
    }

    #[test]
    fn confidence_rises_through_the_day_and_its_last_revision_completes_it() {
        let week = Series::week();
        for (quarter, expected, status) in
            [(0, 0.5, "Active"), (1, 0.5052, "Active"), (94, 0.9848, "Active"), (95, 0.99, "Completed")]
        {
            let revision = week.revision(quarter * 28).unwrap();
            assert_eq!((revision.quarter, revision.confidence, revision.status), (quarter, expected, status));
        }
        assert!((1..QUARTERS).all(|quarter| confidence(quarter - 1) < confidence(quarter)));
    }
}
