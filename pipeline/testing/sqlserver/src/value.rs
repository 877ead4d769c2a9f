//! SQL Server's types, and values of them.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use uuid::Uuid;

/// A type, as result columns, parameters and the catalogue have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `bit`
    Bit,
    /// `tinyint`
    TinyInt,
    /// `smallint`
    SmallInt,
    /// `int`
    Int,
    /// `bigint`
    BigInt,
    /// `real`
    Real,
    /// `float`
    Float,
    /// `decimal(precision, scale)`, `numeric`
    Decimal(u8, u8),
    /// `money`
    Money,
    /// `uniqueidentifier`
    UniqueIdentifier,
    /// `date`
    Date,
    /// `time(scale)`
    Time(u8),
    /// `datetime`
    DateTime,
    /// `smalldatetime`
    SmallDateTime,
    /// `datetime2(scale)`
    DateTime2(u8),
    /// `datetimeoffset(scale)`
    DateTimeOffset(u8),
    /// `char(bytes)`
    Char(u16),
    /// `varchar(bytes)`; none for `max`
    VarChar(Option<u16>),
    /// `nchar(characters)`
    NChar(u16),
    /// `nvarchar(characters)`; none for `max`; `sysname` is `nvarchar(128)`
    NVarChar(Option<u16>),
    /// `binary(bytes)`
    Binary(u16),
    /// `varbinary(bytes)`; none for `max`
    VarBinary(Option<u16>),
}

/// A value. Which type it has is said beside it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL of any type.
    Null,
    /// `bit`
    Bit(bool),
    /// Any integer type.
    Int(i64),
    /// `float`, `real`
    Float(f64),
    /// `decimal`, `money`: the unscaled number and its scale.
    Decimal(i128, u8),
    /// Any character type.
    Text(String),
    /// Any binary type.
    Bytes(Vec<u8>),
    /// `uniqueidentifier`
    Guid(Uuid),
    /// `date`
    Date(NaiveDate),
    /// `time`
    Time(NaiveTime),
    /// `datetime2`, `datetime`, `smalldatetime`
    DateTime(NaiveDateTime),
    /// `datetimeoffset`: UTC, and the offset in minutes.
    DateTimeOffset(NaiveDateTime, i16),
}
