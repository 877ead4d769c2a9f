//! From a CSV file, packed or not, to a series.
//!
//! The header is `time_utc`, `<unit>.supply` for each unit, then `<unit>.demand` in the same order. Rows are
//! consecutive quarter-hours of whole days. Anything else is an error that names the line: a series with holes
//! would give revisions that never happened.

use super::{DAY_MS, Day, QUARTER_MS, QUARTERS, Reading, Series, UNITS_MAX, Unit, id_of};
use csv::ByteRecord;
use flate2::read::MultiGzDecoder;
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::{Error, Result};
use std::io::{Cursor, Read};

/// The most days of a series: three years, which take some 130 MB of memory.
const DAYS_MAX: usize = 1_100;

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
    let units = units(&record)?;
    let mut series = Series { units, days: Vec::new(), readings: Vec::new() };
    let columns = record.len();
    let mut due: Option<Timestamp> = None;
    let mut line = 1;
    while next(&mut reader, &mut record)? {
        line = record.position().map_or(line + 1, csv::Position::line);
        if record.len() != columns {
            return Err(at(line, format!("{} columns, but the header has {columns}", record.len())));
        }
        let time = time(line, &record[0], due)?;
        if series.readings.len() == series.days.len() * QUARTERS * series.units.len() {
            series.begin_day(line, time)?;
        }
        for (place, unit) in series.units.iter().enumerate() {
            let supply = number(line, &record[1 + place], unit, "supply")?;
            let demand = number(line, &record[1 + series.units.len() + place], unit, "demand")?;
            series.readings.push(Reading { demand, supply });
        }
        due = Some(Timestamp::from_millis(time.as_millis() + QUARTER_MS));
    }
    match due {
        None => Err(at(line + 1, "the file ends, but the first quarter-hour is due")),
        Some(due) if due.as_millis() % DAY_MS != 0 => {
            Err(at(line + 1, format!("the file ends within a day, but the quarter-hour {due} is due")))
        }
        Some(_) => Ok(series),
    }
}

impl Series {
    fn begin_day(&mut self, line: u64, start: Timestamp) -> Result<()> {
        if self.days.len() == DAYS_MAX {
            return Err(at(line, format!("more than {DAYS_MAX} days")));
        }
        let date: String = start.to_string().chars().take_while(|letter| *letter != 'T').collect();
        let forecasts = self.units.iter().map(|unit| id_of(&format!("{}/{date}", unit.name))).collect();
        self.days.push(Day { date, start, forecasts });
        Ok(())
    }
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

/// The row's time: the one that is due, or of the first row a midnight.
fn time(line: u64, cell: &[u8], due: Option<Timestamp>) -> Result<Timestamp> {
    let text = String::from_utf8_lossy(cell);
    let parsed = text.parse::<Timestamp>();
    let time =
        parsed.map_err(|error| at(line, format!("time_utc is {}, not RFC 3339", shown(&text))).because(error))?;
    match due {
        Some(due) if due != time => Err(at(line, format!("time_utc is {time}, but the quarter-hour {due} is due"))),
        None if time.as_millis() % DAY_MS != 0 => {
            Err(at(line, format!("time_utc is {time}, but the first row is due at midnight UTC")))
        }
        _ => Ok(time),
    }
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
