//! From a CSV file, packed or not, to a series.
//!
//! The header is `time_utc`, `<unit>.supply` for each unit, then `<unit>.demand` in the same order. Rows are
//! consecutive quarter-hours of whole days. Anything else is an error that names the line: a series with holes
//! would give revisions that never happened.
//!
//! One exception: the published clock is put forward an hour in spring and back in autumn (2016-03-27 and
//! 2016-10-30), although its times are read as UTC. A day has 96 quarter-hours all the same: the hour that is left
//! out carries the last reading on, and of the hour that comes twice the first readings count.

use super::{DAY_MS, Day, QUARTER_MS, QUARTERS, Reading, Series, UNITS_MAX, Unit, id_of};
use csv::ByteRecord;
use flate2::read::MultiGzDecoder;
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::{Error, Result};
use std::io::{Cursor, Read};

/// The most days of a series: three years, which take some 130 MB of memory.
const DAYS_MAX: usize = 1_100;

/// How far the published clock is put forward in spring and back in autumn.
const CLOCK_CHANGE_MS: i64 = 4 * QUARTER_MS;

/// How a gzip file begins (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How much of an unexpected text an error shows, in characters.
const EXCERPT_CHARS: usize = 40;

impl Series {
    /// A series from a CSV file; one packed with gzip is recognised by its first bytes.
    ///
    /// # Errors
    /// Rejected, with the line, when the file cannot be read or is not such a series.
    pub fn read(mut input: impl Read) -> Result<Self> {
        let mut start = Vec::with_capacity(GZIP_MAGIC.len());
        input
            .by_ref()
            .take(GZIP_MAGIC.len() as u64)
            .read_to_end(&mut start)
            .map_err(|error| at(1, "cannot be read").because(error))?;
        let packed = start == GZIP_MAGIC;
        let input = Cursor::new(start).chain(input);
        if packed { read_csv(MultiGzDecoder::new(input)) } else { read_csv(input) }
    }
}

fn read_csv(input: impl Read) -> Result<Series> {
    // Lengths are checked here, so that the complaint reads like the others.
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
    let mut record = ByteRecord::new();
    if !next(&mut reader, &mut record)? {
        return Err(at(1, "the file is empty, but the header is due"));
    }
    let columns = record.len();
    let mut series = Series { units: units(&record)?, days: Vec::new(), readings: Vec::new() };
    let mut row = Vec::with_capacity(series.units.len());
    let mut clock: Option<Clock> = None;
    let mut line = 1;
    while next(&mut reader, &mut record)? {
        line = record.position().map_or(line + 1, csv::Position::line);
        if record.len() != columns {
            return Err(at(line, format!("{} columns, but the header has {columns}", record.len())));
        }
        let time = time(line, &record[0])?;
        let now = clock.get_or_insert(Clock { row: time, due: time, changed_ms: 0 });
        let first_due = now.due;
        let counts = now.step(line, time)?;
        // Of a row that is left out, the last reading goes on.
        for missing in (first_due.as_millis()..now.due.as_millis() - QUARTER_MS).step_by(QUARTER_MS as usize) {
            series.push(line, Timestamp::from_millis(missing), &row)?;
        }
        if counts {
            read_row(line, &record, &series.units, &mut row)?;
            series.push(line, time, &row)?;
        }
    }
    match clock {
        None => Err(at(line + 1, "the file ends, but the first quarter-hour is due")),
        Some(Clock { due, .. }) if due.as_millis() % DAY_MS != 0 => {
            Err(at(line + 1, format!("the file ends within a day, but the quarter-hour {due} is due")))
        }
        Some(_) => Ok(series),
    }
}

/// The published clock: what the next row should say.
struct Clock {
    /// The next row's time by the clock.
    row: Timestamp,
    /// The first quarter-hour without a reading; later than `row` only in the hour that comes twice.
    due: Timestamp,
    /// The last change of the clock. The next one goes the other way: two alike are missing or repeated rows.
    changed_ms: i64,
}

impl Clock {
    /// Takes a row's time, and tells whether its reading counts.
    fn step(&mut self, line: u64, time: Timestamp) -> Result<bool> {
        let (found, row, due) = (time.as_millis(), self.row.as_millis(), self.due.as_millis());
        if found != row {
            let change = found - row;
            if row != due || change.abs() != CLOCK_CHANGE_MS || change == self.changed_ms {
                return Err(at(line, format!("time_utc is {time}, but the quarter-hour {} is due", self.row)));
            }
            self.changed_ms = change;
        }
        self.row = Timestamp::from_millis(found + QUARTER_MS);
        self.due = self.due.max(self.row);
        Ok(found >= due)
    }
}

impl Series {
    /// Appends the readings of all units at a quarter-hour.
    fn push(&mut self, line: u64, time: Timestamp, row: &[Reading]) -> Result<()> {
        if self.readings.len() == self.days.len() * QUARTERS * self.units.len() {
            if self.days.len() == DAYS_MAX {
                return Err(at(line, format!("more than {DAYS_MAX} days")));
            }
            if time.as_millis() % DAY_MS != 0 {
                return Err(at(line, format!("time_utc is {time}, but the first row is due at midnight UTC")));
            }
            let date: String = time.to_string().chars().take_while(|letter| *letter != 'T').collect();
            let forecasts = self.units.iter().map(|unit| id_of(&format!("{}/{date}", unit.name))).collect();
            self.days.push(Day { date, start: time, forecasts });
        }
        self.readings.extend_from_slice(row);
        Ok(())
    }
}

fn read_row(line: u64, record: &ByteRecord, units: &[Unit], row: &mut Vec<Reading>) -> Result<()> {
    row.clear();
    for (place, unit) in units.iter().enumerate() {
        let supply = number(line, &record[1 + place], unit, "supply")?;
        let demand = number(line, &record[1 + units.len() + place], unit, "demand")?;
        row.push(Reading { demand, supply });
    }
    Ok(())
}

fn next(reader: &mut csv::Reader<impl Read>, record: &mut ByteRecord) -> Result<bool> {
    match reader.read_byte_record(record) {
        Ok(found) => Ok(found),
        Err(error) => Err(at(reader.position().line(), "cannot be read").because(error)),
    }
}

/// The units that the header names.
fn units(header: &ByteRecord) -> Result<Vec<Unit>> {
    let names: Vec<String> = header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let (time, columns) = names.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    if time != "time_utc" {
        return Err(at(1, format!("column 1 is {}, but `time_utc` is due", shown(time))));
    }
    let count = columns.len() / 2;
    if count == 0 || columns.len() % 2 != 0 || count > UNITS_MAX {
        let found = columns.len();
        return Err(at(
            1,
            format!("{found} columns after the time, but two for each of 1 to {UNITS_MAX} units are due"),
        ));
    }
    let (supplies, demands) = columns.split_at(count);
    let mut units: Vec<Unit> = Vec::with_capacity(count);
    for (place, (supply, demand)) in supplies.iter().zip(demands).enumerate() {
        let column = place + 2;
        let name = supply.strip_suffix(".supply").unwrap_or_default();
        let unit = Unit::new(name, place).ok_or_else(|| {
            let known = "PV, WP, BM or Hydro";
            at(
                1,
                format!(
                    "column {column} is {}, but the supply of a unit is due ({known}, as `PV1.supply`)",
                    shown(supply)
                ),
            )
        })?;
        if demand.strip_suffix(".demand") != Some(name) {
            return Err(at(1, format!("column {} is {}, but `{name}.demand` is due", column + count, shown(demand))));
        }
        if units.iter().any(|other| other.name == name) {
            return Err(at(1, format!("column {column} names the unit `{name}` again")));
        }
        units.push(unit);
    }
    Ok(units)
}

fn time(line: u64, cell: &[u8]) -> Result<Timestamp> {
    let text = String::from_utf8_lossy(cell);
    text.parse().map_err(|error: chrono::ParseError| {
        at(line, format!("time_utc is {}, not RFC 3339", shown(&text))).because(error)
    })
}

fn number(line: u64, cell: &[u8], unit: &Unit, what: &str) -> Result<f64> {
    let text = String::from_utf8_lossy(cell);
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| at(line, format!("{}.{what} is {}, not a finite number", unit.name, shown(&text))))
}

/// An error in a line of the file, from 1.
fn at(line: u64, message: impl AsRef<str>) -> Error {
    Error::rejected(format!("line {line}: {}", message.as_ref()))
}

fn shown(text: &str) -> String {
    let start: String = text.chars().take(EXCERPT_CHARS).collect();
    if start.len() < text.len() { format!("{start:?}..") } else { format!("{start:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    const HEADER: &str = "time_utc,PV1.supply,WP1.supply,PV1.demand,WP1.demand\n";

    fn rows(count: i64) -> String {
        let start: Timestamp = "2016-02-28T00:00:00Z".parse().unwrap();
        (0..count)
            .map(|row| {
                let time = Timestamp::from_millis(start.as_millis() + row * QUARTER_MS);
                format!("{time},{row},0.25,1.5,-2e-1\n")
            })
            .collect()
    }

    #[test]
    fn a_packed_file_and_a_plain_one_give_the_same_series() {
        let plain = format!("{HEADER}{}", rows(192));
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(plain.as_bytes()).unwrap();
        let packed = packer.finish().unwrap();
        let series = Series::read(plain.as_bytes()).unwrap();
        assert_eq!(Series::read(packed.as_slice()).unwrap(), series);
        assert_eq!((series.units().len(), series.days(), series.revision_count()), (2, 2, 384));
        // By day, quarter-hour and unit: the second day's first quarter-hour is row 96.
        let revision = series.revision(2 * 96).unwrap();
        assert_eq!((revision.date, revision.supply, revision.demand), ("2016-02-29", 96.0, 1.5));
        let revision = series.revision(2 * 96 + 1).unwrap();
        assert_eq!((revision.unit.name.as_str(), revision.supply, revision.demand), ("WP1", 0.25, -0.2));
    }

    #[test]
    fn a_day_has_96_quarter_hours_even_when_the_published_clock_is_changed() {
        let all = rows(96 * 2);
        let lines: Vec<&str> = all.lines().collect();
        let supplies = |lines: &[&str]| -> Vec<f64> {
            let series = Series::read(format!("{HEADER}{}\n", lines.join("\n")).as_bytes()).unwrap();
            assert_eq!((series.days(), series.revision_count()), (2, 2 * 2 * 96));
            series.revisions().filter(|revision| revision.unit_index == 0).map(|revision| revision.supply).collect()
        };
        let mut expected: Vec<f64> = (0..192).map(f64::from).collect();
        // Spring: 02:00 to 02:45 are left out.
        expected[8..12].fill(7.0);
        assert_eq!(supplies(&[&lines[..8], &lines[12..]].concat()), expected);
        // Autumn: they come twice, the second time with other readings.
        let second: Vec<String> =
            lines[8..12].iter().map(|line| line.replace(",0.25", ",9").replacen(',', ",99", 1)).collect();
        let second: Vec<&str> = second.iter().map(String::as_str).collect();
        let autumn = [&lines[..12], &second, &lines[12..]].concat();
        assert_eq!(supplies(&autumn), (0..192).map(f64::from).collect::<Vec<f64>>());
    }

    #[test]
    fn errors_name_the_line() {
        let check = |text: &str, expected: &str| {
            let error = Series::read(text.as_bytes()).expect_err(expected);
            assert!(error.chain().starts_with(expected), "{} is not {expected}", error.chain());
        };
        let day = rows(96);
        check("", "line 1: the file is empty");
        check("time,PV1.supply,PV1.demand\n", "line 1: column 1 is \"time\", but `time_utc` is due");
        check("time_utc\n", "line 1: 0 columns after the time");
        check("time_utc,PV1.supply\n", "line 1: 1 columns after the time, but two for each of 1 to 28 units are due");
        check("time_utc,X1.supply,X1.demand\n", "line 1: column 2 is \"X1.supply\", but the supply of a unit is due");
        check("time_utc,PV1.supply,PV2.demand\n", "line 1: column 3 is \"PV2.demand\", but `PV1.demand` is due");
        check("time_utc,PV1.supply,PV1.supply,PV1.demand,PV1.demand\n", "line 1: column 3 names the unit `PV1` again");
        check(HEADER, "line 2: the file ends, but the first quarter-hour is due");
        check(&format!("{HEADER}noon,0,0,0,0\n"), "line 2: time_utc is \"noon\", not RFC 3339");
        check(
            &format!("{HEADER}2016-01-01T00:15:00Z,0,0,0,0\n"),
            "line 2: time_utc is 2016-01-01T00:15:00.000Z, but the first row is due at midnight UTC",
        );
        check(&format!("{HEADER}{}2016-02-28T00:30:00Z,0,0,0\n", rows(2)), "line 4: 4 columns, but the header has 5");
        check(
            &format!("{HEADER}{}2016-02-28T00:45:00Z,0,0,0,0\n", rows(2)),
            "line 4: time_utc is 2016-02-28T00:45:00.000Z, but the quarter-hour 2016-02-28T00:30:00.000Z is due",
        );
        // The hour that comes twice, a third time.
        let hour: String = rows(12).lines().skip(8).map(|line| format!("{line}\n")).collect();
        check(
            &format!("{HEADER}{}{hour}{hour}", rows(12)),
            "line 18: time_utc is 2016-02-28T02:00:00.000Z, but the quarter-hour 2016-02-28T03:00:00.000Z is due",
        );
        check(
            &format!("{HEADER}{}2016-02-28T00:30:00Z,0,0,0,\n", rows(2)),
            "line 4: WP1.demand is \"\", not a finite number",
        );
        check(
            &format!("{HEADER}{}2016-02-28T00:30:00Z,0,inf,0,0\n", rows(2)),
            "line 4: WP1.supply is \"inf\", not a finite number",
        );
        check(
            &format!("{HEADER}{day}2016-02-29T00:00:00Z,0,0,0,0\n"),
            "line 99: the file ends within a day, but the quarter-hour 2016-02-29T00:15:00.000Z is due",
        );
        let mut cut = GZIP_MAGIC.to_vec();
        cut.extend_from_slice(&[8, 0, 0]);
        let error = Series::read(cut.as_slice()).unwrap_err();
        assert!(error.chain().starts_with("line 1: cannot be read: "), "{}", error.chain());
    }
}
