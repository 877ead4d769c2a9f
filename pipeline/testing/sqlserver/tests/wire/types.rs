//! Every type, as a column, as a parameter and in a bulk load.

use crate::session::{every_type, moment, table, time};
use crate::{connect, start};
use smartpulse_stand_in::server::Options;
use smartpulse_stand_in::value::Value;
use tiberius::numeric::{BigDecimal, Numeric};
use tiberius::{ColumnData, ColumnType, FromSql, IntoSql, Row, TokenRow, Uuid};

fn get<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> T {
    row.try_get(name).unwrap().unwrap_or_else(|| panic!("{name} is null"))
}

fn check(row: &Row) {
    assert!(get::<bool>(row, "bit"));
    assert_eq!(get::<u8>(row, "tinyint"), 200);
    assert_eq!(get::<i16>(row, "smallint"), -300);
    assert_eq!(get::<i32>(row, "int"), -70_000);
    assert_eq!(get::<i64>(row, "bigint"), 1 << 40);
    assert_eq!(get::<f32>(row, "real"), 0.25);
    assert_eq!(get::<f64>(row, "float"), -0.1);
    assert_eq!(get::<BigDecimal>(row, "decimal").to_string(), "-12345678901234567890123456.7890");
    assert_eq!(get::<Numeric>(row, "small"), Numeric::new_with_scale(12_345, 2));
    assert_eq!(get::<f64>(row, "money"), -5_000_000.000_1);
    assert_eq!(get::<Uuid>(row, "guid"), Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
    assert_eq!(get::<chrono::NaiveDate>(row, "date"), moment().date());
    assert_eq!(get::<chrono::NaiveTime>(row, "time"), time());
    let millis = get::<chrono::NaiveDateTime>(row, "datetime").format("%F %T%.3f").to_string();
    assert_eq!(millis, "2025-11-21 13:14:15.123");
    assert_eq!(get::<chrono::NaiveDateTime>(row, "smalldatetime").to_string(), "2025-11-21 13:14:00");
    assert_eq!(get::<chrono::NaiveDateTime>(row, "datetime2"), moment());
    assert_eq!(get::<chrono::NaiveDateTime>(row, "datetime2_3").to_string(), "2025-11-21 13:14:15.123");
    let offset = get::<chrono::DateTime<chrono::FixedOffset>>(row, "datetimeoffset");
    assert_eq!(offset.to_rfc3339(), "2025-11-21T14:44:15.123456+01:30");
    assert_eq!(get::<&str>(row, "char"), "ab   ");
    assert_eq!(get::<&str>(row, "varchar"), "Grüße €");
    assert_eq!(get::<&str>(row, "varchar_max"), "ü".repeat(10_000));
    assert_eq!(get::<&str>(row, "nchar"), "日本  ");
    assert_eq!(get::<&str>(row, "nvarchar"), "日本 🎉");
    assert_eq!(get::<&str>(row, "nvarchar_max"), "日本".repeat(15_000));
    assert_eq!(get::<&str>(row, "empty"), "");
    assert_eq!(get::<&[u8]>(row, "binary"), (0..10).collect::<Vec<u8>>());
    assert_eq!(get::<&[u8]>(row, "varbinary"), [0, 255]);
    assert_eq!(get::<&[u8]>(row, "varbinary_max"), [7; 60_000]);
}

#[tokio::test]
async fn every_type_arrives_whether_it_may_be_null_or_not() {
    let (server, _) = start(Options::default());
    let mut client = connect(&server).await;
    let rows = client.simple_query("types").await.unwrap().into_first_result().await.unwrap();
    check(&rows[0]);
    let kinds: Vec<ColumnType> = rows[0].columns().iter().map(tiberius::Column::column_type).collect();
    assert_eq!(kinds[..5], [ColumnType::Bit, ColumnType::Int1, ColumnType::Int2, ColumnType::Int4, ColumnType::Int8]);

    let rows = client.simple_query("nulls").await.unwrap().into_first_result().await.unwrap();
    check(&rows[0]);
    assert_eq!(rows.len(), 2);
    for (_, data) in rows[1].cells() {
        let text = format!("{data:?}");
        assert!(text.ends_with("(None)"), "{text}");
    }
}

#[tokio::test]
async fn every_parameter_comes_back_as_it_was_sent() {
    let (server, _) = start(Options::default());
    let mut client = connect(&server).await;
    let offset = moment().and_local_timezone(chrono::FixedOffset::west_opt(5 * 3600).unwrap()).unwrap();
    let guid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    let (long, bytes) = ("ß日".repeat(9000), vec![1_u8; 20_000]);
    let null: Option<&str> = None;
    let parameters: [&dyn tiberius::ToSql; 19] = [
        &true,
        &200_u8,
        &-3_i16,
        &-4_i32,
        &i64::MAX,
        &0.5_f32,
        &-0.1_f64,
        &Numeric::new_with_scale(-12_345, 3),
        &guid,
        &moment().date(),
        &time(),
        &moment(),
        &offset,
        &"日本 'x'",
        &long,
        &"",
        &&[0_u8, 255][..],
        &bytes,
        &null,
    ];
    let stream = client.query("echo", &parameters).await.unwrap();
    let row = stream.into_row().await.unwrap().unwrap();
    assert_eq!(row.columns()[0].name(), "P1");
    assert!(get::<bool>(&row, "P1"));
    assert_eq!(get::<u8>(&row, "P2"), 200);
    assert_eq!(get::<i16>(&row, "P3"), -3);
    assert_eq!(get::<i32>(&row, "P4"), -4);
    assert_eq!(get::<i64>(&row, "P5"), i64::MAX);
    assert_eq!(get::<f32>(&row, "P6"), 0.5);
    assert_eq!(get::<f64>(&row, "P7"), -0.1);
    assert_eq!(get::<Numeric>(&row, "P8"), Numeric::new_with_scale(-12_345, 3));
    assert_eq!(get::<Uuid>(&row, "P9"), guid);
    assert_eq!(get::<chrono::NaiveDate>(&row, "P10"), moment().date());
    assert_eq!(get::<chrono::NaiveTime>(&row, "P11"), time());
    assert_eq!(get::<chrono::NaiveDateTime>(&row, "P12"), moment());
    assert_eq!(get::<chrono::DateTime<chrono::FixedOffset>>(&row, "P13"), offset);
    assert_eq!(get::<&str>(&row, "P14"), "日本 'x'");
    assert_eq!(get::<&str>(&row, "P15"), long);
    assert_eq!(get::<&str>(&row, "P16"), "");
    assert_eq!(get::<&[u8]>(&row, "P17"), [0, 255]);
    assert_eq!(get::<&[u8]>(&row, "P18"), bytes);
    assert_eq!(row.try_get::<&str, _>("P19").unwrap(), None);
}

#[tokio::test]
async fn a_bulk_load_brings_every_type_and_null() {
    let (server, seen) = start(Options::default());
    let mut client = connect(&server).await;
    let mut load = client.bulk_insert("[dbo].[loaded]").await.unwrap();
    for n in 0..40_i32 {
        load.send(row(n)).await.unwrap();
    }
    assert_eq!(load.finalize().await.unwrap().total(), 40);
    assert!(seen.log.lock().unwrap().iter().any(|text| text.starts_with("INSERT BULK [dbo].[loaded] ([bit]")));

    let loaded = std::mem::take(&mut *seen.loaded.lock().unwrap());
    assert_eq!(loaded.len(), 40);
    for (place, column) in table().iter().enumerate() {
        let mut expected = every_type().into_iter().find(|(name, ..)| *name == column.name).unwrap().2;
        if column.name == "datetime" {
            // This client cuts down to the tick below, where the server would round.
            expected = Value::DateTime(moment().date().and_hms_milli_opt(13, 14, 15, 120).unwrap());
        }
        assert_eq!(loaded[1][place], expected, "{}", column.name);
        let nullable = if column.nullable { Value::Null } else { expected };
        assert_eq!(loaded[0][place], nullable, "{}", column.name);
    }
    // The connection is as good as before.
    assert_eq!(client.execute("update 3", &[]).await.unwrap().total(), 3);
}

/// A row of a bulk load; the first has NULL wherever it may.
pub fn row(number: i32) -> TokenRow<'static> {
    let mut row = TokenRow::new();
    let all = every_type();
    for column in table().iter() {
        let value = &all.iter().find(|(name, ..)| *name == column.name).unwrap().2;
        let data = data(&column.name, value);
        row.push(if number == 0 && column.nullable { null(&data) } else { data });
    }
    row
}

fn null(data: &ColumnData<'_>) -> ColumnData<'static> {
    match data {
        ColumnData::Bit(_) => ColumnData::Bit(None),
        ColumnData::U8(_) => ColumnData::U8(None),
        ColumnData::I32(_) => ColumnData::I32(None),
        ColumnData::F32(_) => ColumnData::F32(None),
        ColumnData::I16(_) => ColumnData::I16(None),
        ColumnData::I64(_) => ColumnData::I64(None),
        ColumnData::F64(_) => ColumnData::F64(None),
        ColumnData::Guid(_) => ColumnData::Guid(None),
        ColumnData::Date(_) => ColumnData::Date(None),
        ColumnData::Time(_) => ColumnData::Time(None),
        ColumnData::DateTime(_) => ColumnData::DateTime(None),
        ColumnData::DateTime2(_) => ColumnData::DateTime2(None),
        ColumnData::DateTimeOffset(_) => ColumnData::DateTimeOffset(None),
        ColumnData::Numeric(_) => ColumnData::Numeric(None),
        ColumnData::String(_) => ColumnData::String(None),
        ColumnData::Binary(_) => ColumnData::Binary(None),
        other => panic!("no null for {other:?}"),
    }
}

fn data(name: &str, value: &Value) -> ColumnData<'static> {
    match (name, value.clone()) {
        (_, Value::Bit(bit)) => bit.into_sql(),
        ("tinyint", Value::Int(number)) => (number as u8).into_sql(),
        ("smallint", Value::Int(number)) => (number as i16).into_sql(),
        ("int", Value::Int(number)) => (number as i32).into_sql(),
        (_, Value::Int(number)) => number.into_sql(),
        ("real", Value::Float(number)) => (number as f32).into_sql(),
        (_, Value::Float(number)) => number.into_sql(),
        ("money", Value::Decimal(number, _)) => (number as f64 / 10_000.0).into_sql(),
        (_, Value::Decimal(number, scale)) => ColumnData::Numeric(Some(Numeric::new_with_scale(number, scale))),
        (_, Value::Guid(guid)) => guid.into_sql(),
        (_, Value::Date(date)) => date.into_sql(),
        (_, Value::Time(time)) => time.into_sql(),
        (_, Value::DateTime(moment)) => moment.into_sql(),
        (_, Value::DateTimeOffset(utc, minutes)) => {
            let zone = chrono::FixedOffset::east_opt(i32::from(minutes) * 60).unwrap();
            chrono::TimeZone::from_utc_datetime(&zone, &utc).into_sql()
        }
        (_, Value::Text(text)) => text.into_sql(),
        (_, Value::Bytes(bytes)) => bytes.into_sql(),
        (_, Value::Null) => ColumnData::String(None),
    }
}
