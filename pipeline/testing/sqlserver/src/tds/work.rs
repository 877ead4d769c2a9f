//! What a request asks for, and the doing of it, on the engine's thread.

use super::bulk;
use super::declarations::{self, Declared};
use super::packet::{Message, kind};
use super::read::{Cursor, Malformed, Read, from_utf16};
use super::response::{Outcome, Response, Style};
use super::rpc::{self, Call, Target};
use super::tokens::command;
use crate::faults::Failure;
use crate::session::{self, Column, Output, Parameter, Session};
use crate::value::{SqlType, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The name of the output parameter that a handle comes back in.
const HANDLE: &str = "@handle";
/// The most statements that a connection may have remembered.
const PREPARED_MAX: usize = 1000;

/// What a request asks for.
#[derive(Debug)]
pub enum Work {
    /// A batch.
    Batch(String),
    /// The announcement of a bulk load.
    AnnounceBulk(String),
    /// The rows of a bulk load.
    Bulk(Arc<[Column]>, Vec<u8>),
    /// Calls.
    Calls(Vec<Call>),
    /// A transaction begins.
    Begin(u8),
    /// It is committed, and perhaps another begins.
    Commit(Option<u8>),
    /// It is rolled back, and perhaps another begins.
    RollBack(Option<u8>),
    /// What is no request: the error that is answered, and how.
    Wrong(Malformed, Style),
}

/// What a handle stands for.
#[derive(Debug, Clone)]
enum Prepared {
    Statement { declarations: String, text: String },
    Procedure(String),
}

/// What a connection keeps from request to request, beside its session.
#[derive(Debug, Default)]
pub struct Kept {
    prepared: HashMap<i64, Prepared>,
    handles: i64,
    /// What is known of a bulk load that was announced: its columns and its announcement.
    pub bulk: Option<(Arc<[Column]>, String)>,
}

impl Work {
    /// Reads a request.
    pub fn read(message: &Message, kept: &mut Kept) -> Self {
        let bulk = kept.bulk.take();
        let work = match message.kind {
            kind::BATCH => batch(&message.body),
            kind::RPC => rpc::read(&message.body).map(Work::Calls),
            kind::TRANSACTION => transaction(&message.body),
            kind::BULK => match bulk {
                Some((columns, _)) => Ok(Work::Bulk(columns, message.body.clone())),
                None => Err(Malformed::new("A bulk load came without INSERT BULK before it.")),
            },
            other => Err(Malformed::new(format!("A message of kind {other} has no place here."))),
        };
        let style = if message.kind == kind::RPC { Style::Call } else { Style::Batch };
        work.unwrap_or_else(|malformed| Work::Wrong(malformed, style))
    }

    /// The text that faults are matched with.
    pub fn text(&self, kept: &Kept) -> String {
        match self {
            Work::Batch(text) | Work::AnnounceBulk(text) => text.clone(),
            Work::Bulk(..) | Work::Wrong(..) => String::new(),
            Work::Begin(_) => "BEGIN TRANSACTION".to_owned(),
            Work::Commit(_) => "COMMIT TRANSACTION".to_owned(),
            Work::RollBack(_) => "ROLLBACK TRANSACTION".to_owned(),
            Work::Calls(calls) => calls.iter().map(|call| kept.text(call)).collect::<Vec<_>>().join("\n"),
        }
    }

    fn style(&self) -> Style {
        match self {
            Work::Calls(_) => Style::Call,
            Work::Wrong(_, style) => *style,
            _ => Style::Batch,
        }
    }

    /// Fails instead of doing it.
    pub fn fail(&self, failure: &Failure, session: &mut dyn Session, response: &mut Response<'_>) {
        response.begin(self.style(), Vec::new());
        if failure.rolls_back {
            // Whether there was a transaction is not asked: what the engine says of that is kept from the client.
            session.rollback(&mut |piece| match piece {
                Output::RolledBack(_) => response.take(piece),
                _ => true,
            });
        }
        response.message(&failure.message());
        response.finish(false);
    }

    /// Does it; false when the connection must end.
    pub fn run(
        self,
        session: &mut dyn Session,
        kept: &mut Kept,
        cancelled: &AtomicBool,
        response: &mut Response<'_>,
    ) -> bool {
        response.begin(self.style(), Vec::new());
        let stays = match self {
            Work::Batch(text) => session.batch(&text, &[], cancelled, &mut |piece| response.take(piece)),
            Work::AnnounceBulk(text) => {
                match session.bulk_columns(&text) {
                    Ok(columns) => kept.bulk = Some((columns, text)),
                    Err(message) => response.message(&message),
                }
                true
            }
            Work::Bulk(columns, body) => {
                match bulk::read(&body, &columns) {
                    Ok(rows) => match session.bulk_insert(rows) {
                        Ok(rows) => drop(response.take(Output::Done { rows: Some(rows) })),
                        Err(message) => response.message(&message),
                    },
                    Err(malformed) => response.message(&error(&malformed)),
                }
                true
            }
            Work::Calls(calls) => return run_calls(calls, session, kept, cancelled, response),
            Work::Begin(isolation) => {
                let stays = session.begin(isolation, &mut |piece| response.take(piece));
                response.finish_transaction(command::BEGIN);
                return stays;
            }
            Work::Commit(next) => {
                let stays = session.commit(&mut |piece| response.take(piece)) && begin(next, session, response);
                response.finish_transaction(command::COMMIT);
                return stays;
            }
            Work::RollBack(next) => {
                let stays = session.rollback(&mut |piece| response.take(piece)) && begin(next, session, response);
                response.finish_transaction(command::ROLLBACK);
                return stays;
            }
            Work::Wrong(malformed, _) => {
                response.message(&error(&malformed));
                // After what cannot be read nobody knows where the next request begins.
                malformed.number != 4002
            }
        };
        response.finish(false);
        stays
    }
}

fn begin(isolation: Option<u8>, session: &mut dyn Session, response: &mut Response<'_>) -> bool {
    isolation.is_none_or(|isolation| session.begin(isolation, &mut |piece| response.take(piece)))
}

fn batch(body: &[u8]) -> Read<Work> {
    let mut from = Cursor::new(body);
    from.skip_headers()?;
    let text = from_utf16(from.rest());
    let mut words = text.split_whitespace();
    let bulk = ["insert", "bulk"].iter().all(|word| words.next().is_some_and(|next| next.eq_ignore_ascii_case(word)));
    Ok(if bulk { Work::AnnounceBulk(text) } else { Work::Batch(text) })
}

fn transaction(body: &[u8]) -> Read<Work> {
    let mut from = Cursor::new(body);
    from.skip_headers()?;
    match from.u16()? {
        5 => Ok(Work::Begin(from.u8()?)),
        request @ (7 | 8) => {
            let name = from.short_text()?;
            let next = if from.u8()? & 1 == 1 { Some(from.u8()?) } else { None };
            Ok(match request {
                7 => Work::Commit(next),
                _ if name.is_empty() => Work::RollBack(next),
                _ => Work::Batch(format!("ROLLBACK TRANSACTION [{}]", name.replace(']', "]]"))),
            })
        }
        9 => Ok(Work::Batch(format!("SAVE TRANSACTION [{}]", from.short_text()?.replace(']', "]]")))),
        other => {
            let text = format!("The stand-in has no distributed transactions (request {other}).");
            Err(Malformed { text, number: 8501 })
        }
    }
}

fn run_calls(
    calls: Vec<Call>,
    session: &mut dyn Session,
    kept: &mut Kept,
    cancelled: &AtomicBool,
    response: &mut Response<'_>,
) -> bool {
    let last = calls.len().saturating_sub(1);
    for (number, call) in calls.into_iter().enumerate() {
        let mut names: Vec<_> = call.parameters.iter().map(|given| (given.name.clone(), given.output)).collect();
        if let (Target::Prepare | Target::PrepareAndExecute | Target::PrepareAndCall, Some(first)) =
            (&call.target, names.first_mut())
        {
            // The first place is that of the handle, whatever the client calls it, and not one of the procedure's own.
            HANDLE.clone_into(&mut first.0);
        }
        response.begin(Style::Call, names);
        let stays = match kept.run(call, session, cancelled, response) {
            Ok(stays) => stays,
            Err(malformed) => {
                response.message(&error(&malformed));
                true
            }
        };
        response.finish(number < last);
        if !stays {
            return false;
        }
    }
    true
}

impl Kept {
    fn text(&self, call: &Call) -> String {
        let parameter = |place: usize| match call.parameters.get(place).map(|parameter| &parameter.value) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        };
        match &call.target {
            Target::ExecuteSql => parameter(0),
            Target::Prepare | Target::PrepareAndExecute => parameter(2),
            Target::PrepareAndCall => parameter(1),
            Target::Execute => match call.parameters.first().map(|parameter| &parameter.value) {
                Some(Value::Int(handle)) => match self.prepared.get(handle) {
                    Some(Prepared::Statement { text, .. } | Prepared::Procedure(text)) => text.clone(),
                    None => String::new(),
                },
                _ => String::new(),
            },
            Target::Unprepare => "sp_unprepare".to_owned(),
            Target::Procedure(name) => name.clone(),
        }
    }

    fn run(
        &mut self,
        mut call: Call,
        session: &mut dyn Session,
        cancelled: &AtomicBool,
        response: &mut Response<'_>,
    ) -> Read<bool> {
        let mut handle = None;
        let prepared = match call.target.clone() {
            Target::Procedure(name) => Prepared::Procedure(name),
            Target::ExecuteSql => {
                let text = call.take_text("@statement")?;
                let declarations = if call.parameters.is_empty() { String::new() } else { call.take_text("@params")? };
                Prepared::Statement { declarations, text }
            }
            Target::Prepare | Target::PrepareAndExecute => {
                call.take_handle()?;
                let declarations = call.take_text("@params")?;
                let text = call.take_text("@stmt")?;
                declarations::read(&declarations)?;
                let prepared = Prepared::Statement { declarations, text };
                handle = Some(self.remember(prepared.clone())?);
                prepared
            }
            Target::PrepareAndCall => {
                call.take_handle()?;
                let prepared = Prepared::Procedure(call.take_text("@rpccall")?);
                handle = Some(self.remember(prepared.clone())?);
                prepared
            }
            Target::Execute => {
                let handle = call.take_handle()?;
                self.prepared.get(&handle).cloned().ok_or_else(|| no_statement(handle))?
            }
            Target::Unprepare => {
                let handle = call.take_handle()?;
                return self.prepared.remove(&handle).map(|_| true).ok_or_else(|| no_statement(handle));
            }
        };
        let stays = match prepared {
            _ if call.target == Target::Prepare => true,
            Prepared::Procedure(name) => {
                session.call(&name, &call.parameters, cancelled, &mut |piece| response.take(piece))
            }
            Prepared::Statement { declarations, text } => {
                let parameters = bind(&declarations::read(&declarations)?, call.parameters)?;
                session.batch(&text, &parameters, cancelled, &mut |piece| response.take(piece))
            }
        };
        if let Some(handle) = handle {
            response.value(HANDLE, SqlType::Int, &Value::Int(handle));
        }
        Ok(stays)
    }

    fn remember(&mut self, prepared: Prepared) -> Read<i64> {
        if self.prepared.len() >= PREPARED_MAX {
            let text = format!("The stand-in remembers {PREPARED_MAX} statements of a connection. Call sp_unprepare.");
            return Err(Malformed { text, number: 701 });
        }
        self.handles += 1;
        self.prepared.insert(self.handles, prepared);
        Ok(self.handles)
    }

    /// A session like new remembers nothing.
    pub fn reset(&mut self) {
        self.prepared.clear();
        self.bulk = None;
    }
}

fn no_statement(handle: i64) -> Malformed {
    Malformed { text: format!("Could not find prepared statement with handle {handle}."), number: 8179 }
}

/// Brings the values given together with the parameters declared: by name, or by place where there is no name.
fn bind(declared: &[Declared], given: Vec<Parameter>) -> Read<Vec<Parameter>> {
    if given.len() > declared.len() {
        let text = "Procedure or function has too many arguments specified.".to_owned();
        return Err(Malformed { text, number: 8144 });
    }
    let mut given: Vec<Option<Parameter>> = given.into_iter().map(Some).collect();
    let mut bound = Vec::with_capacity(declared.len());
    for (place, declared) in declared.iter().enumerate() {
        let is =
            |given: &Option<Parameter>| given.as_ref().is_some_and(|it| it.name.eq_ignore_ascii_case(&declared.name));
        let by_name = given.iter().position(is);
        let by_place = || given.get(place).and_then(|it| it.as_ref()).filter(|it| it.name.is_empty()).map(|_| place);
        let found = by_name.or_else(by_place).and_then(|place| given[place].take());
        let Some(parameter) = found else {
            let text =
                format!("The parameterized query expects the parameter '{}', which was not supplied.", declared.name);
            return Err(Malformed { text, number: 8178 });
        };
        let output = parameter.output && declared.output;
        bound.push(Parameter { name: declared.name.clone(), sql_type: declared.sql_type, output, ..parameter });
    }
    Ok(bound)
}

fn error(malformed: &Malformed) -> session::Message {
    session::Message {
        number: malformed.number,
        state: 1,
        class: if malformed.number == 4002 { 20 } else { 16 },
        text: malformed.text.clone(),
        procedure: String::new(),
        line: 1,
    }
}

/// What comes back from the engine's thread.
pub struct Finished {
    /// The session.
    pub session: Box<dyn Session>,
    /// What is kept.
    pub kept: Kept,
    /// How the answer went.
    pub outcome: Outcome,
    /// Whether the connection stays.
    pub stays: bool,
}
