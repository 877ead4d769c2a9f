//! Values that a statement is bound to when it runs.

use super::super::bind::Parameter;
use super::super::convert::{Excess, convert};
use super::super::{repr, sysviews};
use super::EngineSession;
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;

pub(super) fn decimal(number: Option<i64>) -> Cell {
    number.map_or(Cell::Null, |number| Cell::Blob(repr::decimal_to_bytes(i128::from(number)).to_vec()))
}

impl EngineSession {
    pub(super) fn value_of(&self, parameter: &Parameter, sql_type: SqlType) -> Cell {
        let name = match parameter {
            Parameter::Variable(name) => return self.frame().values.get(name).cloned().unwrap_or(Cell::Null),
            Parameter::System(name) => *name,
        };
        let number = |number: i64| Cell::Integer(number);
        let local = || self.now + i64::from(self.core.offset_minutes()) * 60 * repr::TICKS_PER_SECOND;
        let datetime = |ticks: i64| {
            let value = Value::DateTime(repr::from_ticks(ticks));
            convert(value, SqlType::DateTime2(7), SqlType::DateTime, 0, Excess::Cut).map_or(Cell::Null, repr::encode)
        };
        let caught = self.caught.last();
        match name {
            "ROWCOUNT" => number(self.rowcount),
            "TRANCOUNT" => number(i64::from(self.transaction.count)),
            "ERROR" => number(i64::from(self.error)),
            "IDENTITY" => decimal(self.identity),
            "SCOPE_IDENTITY" => decimal(self.frame().scope_identity),
            "SPID" => number(self.id),
            "VERSION" => Cell::Text(sysviews::version()),
            "SERVERNAME" => Cell::Text("STAND-IN".to_owned()),
            "SERVICENAME" => Cell::Text("MSSQLSERVER".to_owned()),
            "LOCK_TIMEOUT" => number(self.options.lock_timeout),
            "NESTLEVEL" => number(i64::try_from(self.frames.len() - 1).unwrap_or(0)),
            "PROCID" => number(self.frame().module_id),
            "DATEFIRST" => number(7),
            "MAX_PRECISION" => number(38),
            "MICROSOFTVERSION" => number(0x0e00_0bb8),
            "TEXTSIZE" => number(2_147_483_647),
            "LANGUAGE" => Cell::Text("us_english".to_owned()),
            "OPTIONS" => number(5496 | (i64::from(self.options.nocount) << 9)),
            "DBTS" => Cell::Blob(vec![0; 8]),
            "GETDATE" => datetime(local()),
            "GETUTCDATE" => datetime(self.now),
            "SYSDATETIME" => number(local()),
            "SYSUTCDATETIME" => number(self.now),
            "SYSDATETIMEOFFSET" => {
                let offset = i16::try_from(self.core.offset_minutes()).unwrap_or(0);
                repr::encode(Value::DateTimeOffset(repr::from_ticks(self.now), offset))
            }
            "XACT_STATE" => number(match (self.transaction.count, self.transaction.doomed) {
                (0, _) => 0,
                (_, true) => -1,
                _ => 1,
            }),
            "TRIGGER_NESTLEVEL" => number(i64::try_from(self.triggers_running.len()).unwrap_or(0)),
            "TRIGGERS_RUNNING" => Cell::Text(format!("{:?}", self.triggers_running)),
            "TRANSACTION_ID" => number(i64::try_from(self.transaction.id).unwrap_or(0)),
            "CONTEXT_INFO" => self.options.context.clone(),
            "LOGIN" => Cell::Text(self.login.clone()),
            "USER" => Cell::Text("dbo".to_owned()),
            "ERROR_NUMBER" => caught.map_or(Cell::Null, |fault| number(i64::from(fault.number))),
            "ERROR_SEVERITY" => caught.map_or(Cell::Null, |fault| number(i64::from(fault.class))),
            "ERROR_STATE" => caught.map_or(Cell::Null, |fault| number(i64::from(fault.state))),
            "ERROR_LINE" => caught.map_or(Cell::Null, |fault| number(i64::from(fault.line))),
            "ERROR_MESSAGE" => caught.map_or(Cell::Null, |fault| Cell::Text(fault.text.clone())),
            "ERROR_PROCEDURE" => match caught {
                Some(fault) if !fault.procedure.is_empty() => Cell::Text(fault.procedure.clone()),
                _ => Cell::Null,
            },
            _ => {
                let _ = sql_type;
                Cell::Null
            }
        }
    }
}
