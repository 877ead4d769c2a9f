//! Documents, keys and parameters, without a server.

use super::params::{string, to_date_time};
use super::*;
use crate::catalogue::tests::{forecasts, orders};
use serde_json::json;
use tiberius::numeric::Numeric;
use tiberius::time::{Date, DateTime2, DateTimeOffset, SmallDateTime, Time};
use tiberius::{Column, ColumnType};

fn spelled(value: &ColumnData<'static>) -> Result<String, &'static str> {
    let mut json = Vec::new();
    write_value(&mut json, value)?;
    Ok(String::from_utf8(json).unwrap())
}

fn datetime2(text: &str) -> ColumnData<'static> {
    ColumnData::DateTime2(to_date_time(text))
}

/// A row as a statement gives it.
fn row(values: Vec<ColumnData<'static>>) -> Row {
    let mut builder = Row::builder();
    for value in values {
        builder = builder.column("c", ColumnType::Null, value);
    }
    let row = builder.build();
    let _: &[Column] = row.columns();
    row
}

fn forecast(demand: f64, supply: Option<f64>) -> Row {
    let id = |n: u128| ColumnData::Guid(Some(Uuid::from_u128(n)));
    let at = || datetime2("2016-01-01T00:00:00.000Z");
    row(vec![
        id(0xABC),
        id(1),
        id(2),
        at(),
        ColumnData::F64(Some(demand)),
        ColumnData::F64(supply),
        ColumnData::F64(Some(0.9)),
        string("a \"quoted\" \u{e9}\n".to_owned()),
        at(),
        at(),
        ColumnData::Guid(None),
        ColumnData::String(None),
        ColumnData::I64(Some(1)),
    ])
}

#[test]
fn a_row_is_spelled_as_the_embedded_database_spells_it() {
    let shape = forecasts().shape;
    let entity = shape.entity(&forecast(0.1 + 0.2, Some(1.5)), 0).unwrap();
    assert_eq!((&*entity.key, entity.version), ("00000000-0000-0000-0000-000000000abc", 1));
    let expected = "{\"id\":\"00000000-0000-0000-0000-000000000abc\",\
        \"companyId\":\"00000000-0000-0000-0000-000000000001\",\
        \"productionUnitId\":\"00000000-0000-0000-0000-000000000002\",\
        \"forecastDate\":\"2016-01-01T00:00:00.000Z\",\"demand\":0.30000000000000004,\"supply\":1.5,\"variance\":1.2,\
        \"confidenceLevel\":0.9,\"status\":\"a \\\"quoted\\\" é\\n\",\"createdAt\":\"2016-01-01T00:00:00.000Z\",\
        \"updatedAt\":\"2016-01-01T00:00:00.000Z\",\"updatedBy\":null,\"updatedVia\":null,\"versionId\":1}";
    assert_eq!(std::str::from_utf8(&entity.document).unwrap(), expected);
    let without = shape.document(&forecast(1.0, None), 0, Some(7)).unwrap();
    let without: Value = serde_json::from_slice(&without).unwrap();
    assert_eq!((&without["variance"], &without["versionId"]), (&Value::Null, &json!(7)));
}

#[test]
fn values_have_one_spelling() {
    let small = SmallDateTime::new(42_367, 90);
    let offset = DateTimeOffset::new(to_date_time("2016-01-01T00:00:00Z").unwrap(), 60);
    for (value, json) in [
        (ColumnData::F64(Some(5.0)), "5.0"),
        (ColumnData::F64(Some(f64::MIN_POSITIVE)), "2.2250738585072014e-308"),
        (ColumnData::F32(Some(0.1)), "0.1"),
        (ColumnData::I64(Some(i64::MAX)), "9223372036854775807"),
        (ColumnData::U8(Some(7)), "7"),
        (ColumnData::Bit(Some(true)), "true"),
        (ColumnData::I32(None), "null"),
        (ColumnData::Numeric(Some(Numeric::new_with_scale(1250, 2))), "12.50"),
        (ColumnData::Numeric(Some(Numeric::new_with_scale(-5, 3))), "-0.005"),
        // 38 digits, far beyond 96 bits.
        (
            ColumnData::Numeric(Some(Numeric::new_with_scale(99_999_999_999_999_999_999_999_999_999_999_999_999, 0))),
            "99999999999999999999999999999999999999",
        ),
        (ColumnData::Binary(Some(vec![0, 0xAB, 0x1F].into())), "\"0x00ab1f\""),
        (ColumnData::Date(Some(Date::new(0))), "\"0001-01-01\""),
        (ColumnData::Date(Some(Date::new(3_652_058))), "\"9999-12-31\""),
        (ColumnData::Time(Some(Time::new(863_999_999_999, 7))), "\"23:59:59.9999999\""),
        (ColumnData::Time(Some(Time::new(5, 0))), "\"00:00:05\""),
        (datetime2("2016-02-29T23:59:59.999+00:00"), "\"2016-02-29T23:59:59.999Z\""),
        (ColumnData::DateTimeOffset(Some(offset)), "\"2016-01-01T00:00:00.000Z\""),
        // 1/300 s: 0.333333 s and 23:59:59.997.
        (ColumnData::DateTime(Some(tiberius::time::DateTime::new(0, 100))), "\"1900-01-01T00:00:00.333Z\""),
        (ColumnData::DateTime(Some(tiberius::time::DateTime::new(-1, 25_919_999))), "\"1899-12-31T23:59:59.997Z\""),
        (ColumnData::SmallDateTime(Some(small)), "\"2015-12-31T01:30:00.000Z\""),
    ] {
        assert_eq!(spelled(&value).unwrap(), json, "{value:?}");
    }
}

#[test]
fn what_has_no_spelling_is_told_of_and_no_panic() {
    for value in [
        ColumnData::F64(Some(f64::NAN)),
        ColumnData::Date(Some(Date::new((1 << 24) - 1))),
        ColumnData::Time(Some(Time::new(u64::MAX, 7))),
        ColumnData::Time(Some(Time::new(1, 200))),
        ColumnData::DateTime(Some(tiberius::time::DateTime::new(i32::MAX, u32::MAX))),
        ColumnData::DateTime2(Some(DateTime2::new(Date::new(16_777_215), Time::new(u64::MAX, 0)))),
    ] {
        // A date beyond 9999 has a spelling in chrono; what counts is that nothing breaks.
        let _ = spelled(&value);
    }
    assert!(spelled(&ColumnData::F64(Some(f64::INFINITY))).is_err());
    let entity = forecasts().shape.entity(&forecast(f64::INFINITY, None), 0).unwrap();
    assert!(entity.document.is_empty());
    let why = entity.unreadable.unwrap();
    assert!(why.contains("Demand of Forecasts 00000000-0000-0000-0000-000000000abc"), "{why}");
    assert!(forecasts().shape.entity(&row(vec![ColumnData::I32(Some(1))]), 0).is_err());
}

#[test]
fn keys_are_read_as_they_are_spelled() {
    let (forecasts, orders) = (forecasts(), orders());
    let id = ColumnData::Guid(Some(Uuid::from_u128(0xABC)));
    let key = spell_key(&[&id]).unwrap();
    assert_eq!(forecasts.key_params(&key), Some(vec![Param(id)]));
    assert_eq!(forecasts.key_params(&key.to_uppercase()), forecasts.key_params(&key));
    for bad in ["", "x", "[1]", "00000000-0000-0000-0000"] {
        assert_eq!(forecasts.key_params(bad), None, "{bad}");
    }
    for text in ["north", "a|b", "quote\" ] [ ,", "", "12"] {
        let values = [string(text.to_owned()), ColumnData::I32(Some(-7))];
        let key = spell_key(&values.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(key.as_bytes(), serde_json::to_vec(&json!([text, -7])).unwrap());
        assert_eq!(orders.key_params(&key), Some(vec![Param::text(text), Param::bigint(-7)]));
    }
    for bad in ["north", "[\"north\"]", "[\"north\",\"7\"]", "[\"north\",7,8]"] {
        assert_eq!(orders.key_params(bad), None, "{bad}");
    }
    let long = "x".repeat(21);
    assert_eq!(orders.key_params(&format!("[\"{long}\",7]")), None, "the column has room for 20");
    let number = [&ColumnInfo::new("Id", "int", 4, 10, 0)].map(Clone::clone);
    assert_eq!(parse_key(&[&number[0]], "42"), Some(vec![Param::bigint(42)]));
    assert_eq!(&*spell_key(&[&ColumnData::I32(Some(42))]).unwrap(), "42");
    assert_eq!(spell_key(&[&ColumnData::Guid(None)]), None);
}

#[test]
fn json_becomes_parameters_with_exact_types() {
    let column = |type_name: &str| ColumnInfo::new("c", type_name, -1, 19, 4);
    for (type_name, json, expected) in [
        ("float", json!(5), Some(ColumnData::F64(Some(5.0)))),
        ("float", json!("5"), None),
        ("int", json!(5), Some(ColumnData::I64(Some(5)))),
        ("int", json!(5.5), None),
        ("bigint", json!(null), Some(ColumnData::I64(None))),
        ("bit", json!(true), Some(ColumnData::Bit(Some(true)))),
        ("bit", json!(1), None),
        ("uniqueidentifier", json!("not one"), None),
        ("nvarchar", json!("x"), Some(string("x".into()))),
        ("nvarchar", json!(1), None),
        ("decimal", json!(12.5), Some(string("12.5".into()))),
        ("decimal", json!(1e-7), Some(string("0.0000001".into()))),
        ("decimal", json!(1e300), None),
        ("date", json!("2016-02-29"), Some(string("2016-02-29".into()))),
        ("date", json!("2016-02-30"), None),
        ("time", json!("23:59:59.5"), Some(string("23:59:59.500".into()))),
        ("varbinary", json!("0x00ab"), Some(ColumnData::Binary(Some(vec![0, 0xAB].into())))),
        ("varbinary", json!("0x0"), None),
        ("varbinary", json!("00"), None),
        ("datetime2", json!("2016-01-01T01:00:00+01:00"), Some(datetime2("2016-01-01T00:00:00Z"))),
        ("datetime2", json!("0000-01-01T00:00:00Z"), None),
        ("datetime2", json!("yesterday"), None),
        ("hierarchyid", json!("/1/"), None),
    ] {
        let found = to_param(&column(type_name), &json).map(|param| param.0);
        assert_eq!(found, expected, "{type_name} {json}");
    }
}
