//! EXECUTE: procedures of the user, of the system, and text.

use super::super::ast::{Argument, Execute, Executed, Expr, Name, ParameterDef};
use super::super::catalog::{DATABASE, Module, ModuleKind, same};
use super::super::errors::{Reach, Result, fault};
use super::super::{parser, repr};
use super::{EngineSession, Flow, Frame, Out};
use crate::session::{Output, Parameter as Passed};
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use std::sync::Arc;

/// An argument with its value.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub name: Option<String>,
    pub sql_type: SqlType,
    /// None stands for DEFAULT.
    pub cell: Option<Cell>,
    pub output: bool,
    /// The variable that takes an output back.
    pub variable: Option<String>,
}

/// What a procedure left.
pub(super) struct Ran {
    pub flow: Flow,
    pub status: i64,
    /// Output parameters by place of the arguments.
    pub outputs: Vec<(usize, SqlType, Cell)>,
}

const NESTING_MAX: usize = 32;

impl EngineSession {
    pub(super) fn execute_procedure(&mut self, execute: &Execute, out: &mut Out<'_>) -> Result<Flow> {
        self.refresh();
        let name = match &execute.what {
            Executed::Text(text) => {
                let Cell::Text(text) = self.evaluate(text, SqlType::NVarChar(None))? else { return Ok(Flow::Next) };
                return self.run_text(&text, Frame::default(), out).map(|(flow, _)| flow);
            }
            Executed::Procedure(name) => name.clone(),
            Executed::Variable(variable) => {
                let text = self.evaluate(&Expr::Variable(variable.clone()), SqlType::NVarChar(None))?;
                match text {
                    Cell::Text(text) => parser::parse_name(&text).ok_or_else(|| missing(&text))?,
                    _ => return Err(missing("")),
                }
            }
        };
        let given = execute.args.iter().map(|argument| self.given(argument)).collect::<Result<Vec<_>>>()?;
        let ran = self.run_procedure(&name, &given, out)?;
        for (place, from, cell) in ran.outputs {
            let Some(variable) = &given[place].variable else { continue };
            let Some(to) = self.frame().types.get(variable).copied() else { continue };
            let value = super::convert(repr::decode((&cell).into(), from), from, to, 0, super::Excess::Cut)?;
            self.frame_mut().values.insert(variable.clone(), repr::encode(value));
        }
        if let Some(status) = &execute.status {
            self.frame_mut().values.insert(status.clone(), Cell::Integer(ran.status));
        }
        Ok(ran.flow)
    }

    fn given(&mut self, argument: &Argument) -> Result<Given> {
        let variable = match &argument.value {
            Expr::Variable(name) if argument.output => Some(name.clone()),
            _ => None,
        };
        let base = Given {
            name: argument.name.clone(),
            sql_type: SqlType::Int,
            cell: None,
            output: argument.output,
            variable,
        };
        if argument.value == Expr::Default {
            return Ok(base);
        }
        self.refresh();
        let ((sql, sql_type), to) = self.bind(|binder| {
            let bound = binder.value(&argument.value)?;
            Ok((format!("SELECT {}", bound.sql), bound.sql_type))
        })?;
        let cell = self.one_row(&sql, &to)?.and_then(|cells| cells.into_iter().next()).unwrap_or(Cell::Null);
        Ok(Given { sql_type, cell: Some(cell), ..base })
    }

    /// A call by the wire.
    pub(super) fn call_passed(&mut self, procedure: &str, parameters: &[Passed], out: &mut Out<'_>) -> Result<Flow> {
        self.refresh();
        let name = parser::parse_name(procedure).ok_or_else(|| missing(procedure))?;
        let given: Vec<Given> = parameters
            .iter()
            .map(|parameter| Given {
                name: (!parameter.name.is_empty()).then(|| parameter.name.to_lowercase()),
                sql_type: parameter.sql_type,
                cell: Some(repr::encode(parameter.value.clone())),
                output: parameter.output,
                variable: None,
            })
            .collect();
        let ran = match self.run_procedure(&name, &given, out) {
            Ok(ran) => ran,
            Err(fault) if fault.reach == Reach::Cancelled => return Err(fault),
            Err(fault) => {
                self.tell(&fault, out)?;
                out.put(Output::ReturnStatus(-6))?;
                return Ok(Flow::Abort);
            }
        };
        out.put(Output::ReturnStatus(i32::try_from(ran.status).unwrap_or(0)))?;
        for (place, sql_type, cell) in ran.outputs {
            let value = repr::decode((&cell).into(), sql_type);
            out.put(Output::ReturnValue { name: parameters[place].name.clone(), sql_type, value })?;
        }
        Ok(ran.flow)
    }

    pub(super) fn run_procedure(&mut self, name: &Name, given: &[Given], out: &mut Out<'_>) -> Result<Ran> {
        let schema = name.schema();
        let here = name.database().is_none_or(|database| same(database, DATABASE));
        let module = self.catalog.module(schema.unwrap_or("dbo"), name.last()).cloned();
        if let Some(module) = module.filter(|module| here && module.kind == ModuleKind::Procedure) {
            return self.run_module(&module, given, out);
        }
        let lower = name.last().to_lowercase();
        if schema.is_none_or(|schema| same(schema, "sys") || same(schema, "dbo")) {
            if lower == "sp_executesql" {
                return self.execute_sql(given, out);
            }
            if let Some(ran) = self.run_system(&lower, given, out)? {
                return Ok(ran);
            }
        }
        Err(missing(&name.to_string()))
    }

    fn run_module(&mut self, module: &Arc<Module>, given: &[Given], out: &mut Out<'_>) -> Result<Ran> {
        let parameters = parser::parse_parameters(&module.header, &self.core.ids)?;
        let mut frame =
            Frame { module: module.name.clone(), module_id: module.id, line: module.line, ..Frame::default() };
        let shown = format!("{}.{}", module.schema, module.name);
        let places = self.pass(&parameters, given, &shown, &mut frame)?;
        let batch = self.parse(&module.text)?;
        self.enter(frame)?;
        let options = self.options.clone();
        let depth = self.frames.len();
        let result = self.run(&batch, out);
        while self.frames.len() > depth {
            self.pop_frame();
        }
        // SET in a procedure ends with it.
        let identity_insert = self.options.identity_insert;
        self.options = super::Options { identity_insert, ..options };
        let frame = self.pop_frame();
        let (flow, status) = match result? {
            Flow::Return(status) => (Flow::Next, status),
            Flow::Abort => (Flow::Abort, -6),
            _ => (Flow::Next, 0),
        };
        Ok(Ran { flow, status, outputs: outputs(&parameters, &places, given, &frame) })
    }

    fn enter(&mut self, frame: Frame) -> Result<()> {
        if self.frames.len() > NESTING_MAX {
            return Err(fault(
                217,
                16,
                "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).",
            )
            .reaching(Reach::Transaction));
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Puts arguments into the parameters of a frame; for each parameter the argument that it took.
    fn pass(
        &mut self,
        parameters: &[ParameterDef],
        given: &[Given],
        shown: &str,
        frame: &mut Frame,
    ) -> Result<Vec<Option<usize>>> {
        let mut places = vec![None; parameters.len()];
        for (at, argument) in given.iter().enumerate() {
            let place = match &argument.name {
                Some(name) => parameters.iter().position(|parameter| parameter.name == *name).ok_or_else(|| {
                    fault(8145, 16, format!("{name} is not a parameter for procedure {shown}.")).state(2)
                })?,
                None if at < parameters.len() => at,
                None => {
                    return Err(fault(
                        8144,
                        16,
                        format!("Procedure or function {shown} has too many arguments specified."),
                    )
                    .state(2));
                }
            };
            places[place] = Some(at);
        }
        for (parameter, place) in parameters.iter().zip(&places) {
            let (to, _) = self.bind(|binder| binder.resolve_type(&parameter.sql_type))?;
            let passed = place.and_then(|at| given[at].cell.clone().map(|cell| (cell, given[at].sql_type)));
            let cell = match (passed, &parameter.default) {
                (Some((cell, from)), _) => {
                    let value = super::convert(repr::decode((&cell).into(), from), from, to, 0, super::Excess::Cut);
                    repr::encode(value.map_err(|error| match error.number {
                        // A conversion of an argument is error 8114 whatever the type.
                        245 => fault(
                            8114,
                            16,
                            format!(
                                "Error converting data type {} to {}.",
                                super::super::types::name(from),
                                super::super::types::name(to)
                            ),
                        ),
                        _ => error,
                    })?)
                }
                (None, Some(default)) => self.evaluate(default, to)?,
                (None, None) => {
                    return Err(fault(
                        201,
                        16,
                        format!(
                            "Procedure or function '{shown}' expects parameter '{}', which was not supplied.",
                            parameter.name
                        ),
                    )
                    .state(4));
                }
            };
            frame.types.insert(parameter.name.clone(), to);
            frame.values.insert(parameter.name.clone(), cell);
        }
        Ok(places)
    }

    /// Runs text in a frame of its own. What it SETs ends with it.
    pub(super) fn run_text(&mut self, text: &str, frame: Frame, out: &mut Out<'_>) -> Result<(Flow, Frame)> {
        let batch = self.parse(text)?;
        self.enter(frame)?;
        let options = self.options.clone();
        let depth = self.frames.len();
        let result = self.run(&batch, out);
        while self.frames.len() > depth {
            self.pop_frame();
        }
        self.options = options;
        let frame = self.pop_frame();
        Ok(match result? {
            Flow::Abort => (Flow::Abort, frame),
            _ => (Flow::Next, frame),
        })
    }

    fn execute_sql(&mut self, given: &[Given], out: &mut Out<'_>) -> Result<Ran> {
        let text = |at: usize, names: &[&str]| {
            let argument = given.iter().find(|given| given.name.as_deref().is_some_and(|name| names.contains(&name)));
            let argument = argument.or_else(|| given.get(at).filter(|given| given.name.is_none()));
            match argument.and_then(|given| given.cell.clone()) {
                Some(Cell::Text(text)) => Some(text),
                _ => None,
            }
        };
        let Some(statement) = text(0, &["@stmt", "@statement"]) else {
            return Err(fault(
                201,
                16,
                "Procedure or function 'sp_executesql' expects parameter '@statement', which was not supplied.",
            ));
        };
        let declared = text(1, &["@params", "@parameters"]).unwrap_or_default();
        let parameters = parser::parse_parameters(&declared, &self.core.ids)?;
        let mut rest: Vec<Given> = given.iter().skip(2).cloned().collect();
        rest.retain(|given| !matches!(given.name.as_deref(), Some("@stmt" | "@statement" | "@params" | "@parameters")));
        let mut frame = Frame::default();
        let places = self.pass(&parameters, &rest, "sp_executesql", &mut frame)?;
        let (flow, frame) = self.run_text(&statement, frame, out)?;
        let skipped = given.len() - rest.len();
        let outputs = outputs(&parameters, &places, &rest, &frame)
            .into_iter()
            .map(|(at, sql_type, cell)| (at + skipped, sql_type, cell))
            .collect();
        Ok(Ran { flow, status: 0, outputs })
    }
}

fn outputs(
    parameters: &[ParameterDef],
    places: &[Option<usize>],
    given: &[Given],
    frame: &Frame,
) -> Vec<(usize, SqlType, Cell)> {
    let mut outputs = Vec::new();
    for (parameter, place) in parameters.iter().zip(places) {
        let Some(at) = *place else { continue };
        if parameter.output && given[at].output {
            let sql_type = frame.types.get(&parameter.name).copied().unwrap_or(SqlType::Int);
            let cell = frame.values.get(&parameter.name).cloned().unwrap_or(Cell::Null);
            outputs.push((at, sql_type, cell));
        }
    }
    outputs
}

fn missing(name: &str) -> Box<super::Fault> {
    fault(2812, 16, format!("Could not find stored procedure '{name}'.")).state(62)
}

impl Given {
    pub(super) fn text(&self) -> Option<String> {
        match repr::decode(self.cell.as_ref()?.into(), self.sql_type) {
            Value::Text(text) => Some(text),
            Value::Null => None,
            value => match super::convert(value, self.sql_type, SqlType::NVarChar(None), 0, super::Excess::Cut) {
                Ok(Value::Text(text)) => Some(text),
                _ => None,
            },
        }
    }

    pub(super) fn number(&self) -> Option<i64> {
        let value = repr::decode(self.cell.as_ref()?.into(), self.sql_type);
        match super::convert(value, self.sql_type, SqlType::BigInt, 0, super::Excess::Cut) {
            Ok(Value::Int(number)) => Some(number),
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        match self.cell.as_ref()? {
            Cell::Blob(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }
}
