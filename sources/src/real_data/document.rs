//! Revisions as documents, and the history of a series as JSON lines.
//!
//! A document has the members, order and spelling of the row that the embedded database would give: columns in
//! table order, `variance` (supply - demand) after `supply`, floats as the shortest text that reads back the same.
//! Bytes are written straight away; there is no tree in between.

use super::{QUARTERS, Revision, Series};
use smartpulse_pipeline::message::push_integer;
use std::io::{self, Write};

/// About what a document takes, in bytes: buffers start with room for it.
const DOCUMENT_BYTES: usize = 450;

/// What `updatedVia` says of rows that come from this data.
pub(crate) const UPDATED_VIA: &str = "player";

/// The time of a day's first quarter-hour.
const MIDNIGHT: &str = "T00:00:00.000Z";

impl Revision<'_> {
    /// Appends the forecast's document after this revision, as version `version`. `createdAt` is the day's first
    /// quarter-hour, `updatedAt` this one.
    pub fn write_document(&self, version: i64, out: &mut Vec<u8>) {
        // Nothing here needs escaping: ids, dates and statuses are letters, digits and dashes.
        push(out, &["{\"id\":\"", self.forecast_id, "\",\"companyId\":\"", &self.unit.company_id]);
        push(out, &["\",\"productionUnitId\":\"", &self.unit.id, "\",\"forecastDate\":\"", self.date, MIDNIGHT]);
        push(out, &["\",\"demand\":"]);
        push_float(out, self.demand);
        push(out, &[",\"supply\":"]);
        push_float(out, self.supply);
        push(out, &[",\"variance\":"]);
        push_float(out, self.supply - self.demand);
        push(out, &[",\"confidenceLevel\":"]);
        push_float(out, self.confidence);
        push(out, &[",\"status\":\"", self.status, "\",\"createdAt\":\"", self.date, MIDNIGHT]);
        push(out, &["\",\"updatedAt\":\"", self.date, "T"]);
        push_two_digits(out, self.quarter / 4);
        push(out, &[":"]);
        push_two_digits(out, self.quarter % 4 * 15);
        push(out, &[":00.000Z\",\"updatedBy\":null,\"updatedVia\":\"", UPDATED_VIA, "\",\"versionId\":"]);
        push_integer(out, version);
        push(out, &["}"]);
    }
}

/// Writes all revisions in time order as JSON lines, each the document of its version (the quarter-hour of the day,
/// from 1), and gives the number of lines. `progress` is told the lines so far after each day.
///
/// Memory: one day of lines, some 1.2 MB with 28 units. Nothing is flushed: that is up to the owner of `out`.
///
/// # Errors
/// Those of `out`.
pub fn write_history(series: &Series, mut out: impl Write, mut progress: impl FnMut(u64)) -> io::Result<u64> {
    let day = QUARTERS * series.units().len();
    let mut buffer = Vec::with_capacity(day * DOCUMENT_BYTES);
    let mut lines = 0;
    for start in (0..series.revision_count()).step_by(day) {
        buffer.clear();
        for revision in (start..start + day).filter_map(|at| series.revision(at)) {
            revision.write_document(revision.quarter as i64 + 1, &mut buffer);
            buffer.push(b'\n');
            lines += 1;
        }
        out.write_all(&buffer)?;
        progress(lines);
    }
    Ok(lines)
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn push_float(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).expect("writing a number to memory cannot fail");
}

fn push_two_digits(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::player::{created, revised};
    use smartpulse_clients::database::{Database, Write as RowWrite};
    use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};

    #[tokio::test]
    async fn documents_are_those_of_the_embedded_database() {
        let folder = tempfile::tempdir().unwrap();
        let database = SqliteDatabase::open("d", &SqliteConfig::default(), folder.path(), &Default::default()).unwrap();
        database.create_schema().await.unwrap();
        let week = Series::week();
        // A photovoltaic, a wind and a hydro unit, through the week's third day.
        for unit in [0, 12, 27] {
            for quarter in 0..QUARTERS {
                let revision = week.revision(((2 * QUARTERS) + quarter) * 28 + unit).unwrap();
                let key = revision.forecast_id.clone();
                let write = match quarter {
                    0 => RowWrite::Insert { members: created(&revision, revision.updated_at) },
                    _ => RowWrite::Update {
                        key: key.clone(),
                        expected_version: None,
                        members: revised(&revision, revision.updated_at),
                    },
                };
                database.write("Forecasts", vec![write]).await.unwrap();
                let rows = database.get("Forecasts", &[key]).await.unwrap();
                let mut document = Vec::new();
                revision.write_document(quarter as i64 + 1, &mut document);
                assert_eq!(String::from_utf8(document).unwrap(), std::str::from_utf8(&rows[0].document).unwrap());
            }
        }
    }

    #[test]
    fn a_history_has_a_line_per_revision_and_tells_its_progress() {
        let week = Series::week();
        let mut history = Vec::new();
        let mut told = Vec::new();
        assert_eq!(write_history(&week, &mut history, |lines| told.push(lines)).unwrap(), 18_816);
        assert_eq!(told, (1..=7).map(|day| day * 2_688).collect::<Vec<u64>>());
        let lines: Vec<&str> = std::str::from_utf8(&history).unwrap().lines().collect();
        assert_eq!(lines.len(), 18_816);
        for at in [0, 27, 28, 2_687, 2_688, 18_815] {
            let revision = week.revision(at).unwrap();
            let document: serde_json::Value = serde_json::from_str(lines[at]).unwrap();
            assert_eq!(document["id"], **revision.forecast_id);
            assert_eq!(document["versionId"], revision.quarter + 1);
            assert_eq!(document["updatedAt"], revision.updated_at.to_string());
            assert_eq!(document["forecastDate"], revision.forecast_date.to_string());
        }
    }

    #[test]
    fn a_full_disk_ends_a_history() {
        let mut room = [0; 10_000];
        let error = write_history(&Series::week(), room.as_mut_slice(), |_| panic!("a day was told of")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
