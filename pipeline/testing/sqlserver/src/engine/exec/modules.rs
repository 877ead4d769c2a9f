//! Views, procedures, triggers, schemas, types.

use super::super::ast::{Define, DropKind, Event, Kind, Name};
use super::super::catalog::{Module, ModuleKind, UserType, same};
use super::super::errors::{Result, fault, unsupported};
use super::super::{clock, types};
use super::EngineSession;
use std::sync::Arc;

/// What a view, a procedure or a trigger is to be.
struct NewModule<'a> {
    kind: ModuleKind,
    text: &'a str,
    /// Columns of a view, parameters of a procedure.
    header: &'a str,
    /// Of a trigger: its table, and on which of INSERT, UPDATE and DELETE it fires.
    table: i64,
    events: [bool; 3],
    line: u32,
}

impl<'a> NewModule<'a> {
    fn of(kind: ModuleKind, text: &'a str, line: u32) -> Self {
        Self { kind, text, header: "", table: 0, events: [false; 3], line }
    }
}

impl EngineSession {
    pub(super) fn define_rest(&mut self, kind: &Kind, line: u32) -> Result<()> {
        match kind {
            Kind::CreateIndex(definition) => self.create_index(definition),
            Kind::DropIndex { name, table, if_exists } => self.drop_index(name, table, *if_exists),
            Kind::CreateSchema(name) => {
                if self.catalog.schema(name).is_some() {
                    return Err(fault(2714, 16, format!("There is already an object named '{name}' in the database.")));
                }
                self.change_catalog(|catalog| {
                    let id = catalog.schemas.iter().map(|(id, _)| *id).max().unwrap_or(4) + 1;
                    catalog.schemas.push((id, name.clone()));
                    Ok(())
                })
            }
            Kind::CreateType { name, base } => {
                let schema = self.schema_of(name)?;
                let (base, _) = self.bind(|binder| binder.resolve_type(base))?;
                self.change_catalog(|catalog| {
                    catalog.types.push(UserType { schema, name: name.last().to_owned(), base });
                    Ok(())
                })
            }
            Kind::CreateView { define, name, columns, text, query } => {
                // Names are looked up now, as SQL Server does for a view.
                self.bind(|binder| binder.query(query))?;
                let header = columns.join("\u{1f}");
                self.module(*define, name, &NewModule { header: &header, ..NewModule::of(ModuleKind::View, text, 0) })
            }
            Kind::CreateProcedure { define, name, parameters, text } => {
                let mut header = Vec::new();
                for parameter in parameters {
                    let (sql_type, _) = self.bind(|binder| binder.resolve_type(&parameter.sql_type))?;
                    header.push((parameter, sql_type));
                }
                let header = header
                    .iter()
                    .map(|(parameter, sql_type)| {
                        let default = parameter.default.as_ref().map(constant).unwrap_or_default();
                        let output = if parameter.output { " OUTPUT" } else { "" };
                        format!("{} {}{default}{output}", parameter.name, types::declared(*sql_type))
                    })
                    .collect::<Vec<_>>()
                    .join(", ");
                self.module(
                    *define,
                    name,
                    &NewModule { header: &header, ..NewModule::of(ModuleKind::Procedure, text, line) },
                )
            }
            Kind::CreateTrigger { define, name, table, events, instead, text } => {
                if *instead {
                    return Err(unsupported("INSTEAD OF triggers"));
                }
                let (table, _) = self.bind(|binder| binder.table(table)).map_err(|_| {
                    fault(8197, 16, format!("The object '{table}' does not exist or is invalid for this operation."))
                })?;
                let events = [Event::Insert, Event::Update, Event::Delete].map(|event| events.contains(&event));
                let name = if name.0.len() > 1 {
                    name.clone()
                } else {
                    Name(vec![table.schema.clone(), name.last().to_owned()])
                };
                let new = NewModule { table: table.id, events, ..NewModule::of(ModuleKind::Trigger, text, line) };
                self.module(*define, &name, &new)
            }
            Kind::Drop { kind, names, if_exists } => {
                names.iter().try_for_each(|name| self.drop_module(*kind, name, *if_exists))
            }
            Kind::EnableTrigger { names, table, enable } => {
                let (table, _) = self.bind(|binder| binder.table(table))?;
                self.change_catalog(|catalog| {
                    for module in catalog.modules.values_mut().filter(|module| module.table == table.id) {
                        if names.is_empty() || names.iter().any(|name| same(name.last(), &module.name)) {
                            Arc::make_mut(module).disabled = !enable;
                        }
                    }
                    Ok(())
                })
            }
            _ => Err(unsupported("this statement")),
        }
    }

    fn module(&mut self, define: Define, name: &Name, new: &NewModule<'_>) -> Result<()> {
        let schema = self.schema_of(name)?;
        let existing = self.catalog.object_id(&schema, name.last());
        let old = existing.and_then(|(id, _)| self.catalog.modules.get(&id)).cloned();
        match (define, existing) {
            (Define::Create, Some(_)) => {
                return Err(fault(
                    2714,
                    16,
                    format!("There is already an object named '{}' in the database.", name.last()),
                )
                .state(3));
            }
            (Define::Alter, None) => {
                return Err(fault(208, 16, format!("Invalid object name '{name}'.")).state(6));
            }
            (_, Some(_)) if old.as_ref().is_none_or(|old| old.kind != new.kind) => {
                return Err(fault(
                    2010,
                    16,
                    format!("Cannot perform alter on '{name}' because it is an incompatible object type."),
                ));
            }
            _ => {}
        }
        let now = clock::local_ticks(self.core.offset_minutes());
        self.change_catalog(|catalog| {
            let id = old.as_ref().map_or_else(|| catalog.new_id(), |old| old.id);
            let module = Module {
                id,
                schema,
                name: name.last().to_owned(),
                kind: new.kind,
                text: new.text.to_owned(),
                header: new.header.to_owned(),
                table: new.table,
                events: new.events,
                disabled: old.as_ref().is_some_and(|old| old.disabled),
                created: old.as_ref().map_or(now, |old| old.created),
                modified: now,
                line: new.line,
            };
            catalog.modules.insert(id, Arc::new(module));
            Ok(())
        })
    }

    fn drop_module(&mut self, kind: DropKind, name: &Name, if_exists: bool) -> Result<()> {
        let (word, wanted) = match kind {
            DropKind::View => ("view", Some(ModuleKind::View)),
            DropKind::Procedure => ("procedure", Some(ModuleKind::Procedure)),
            DropKind::Trigger => ("trigger", Some(ModuleKind::Trigger)),
            DropKind::Function => ("function", None),
            DropKind::Type => ("type", None),
            DropKind::Schema => ("schema", None),
            DropKind::Table => ("table", None),
        };
        let missing = || {
            fault(
                3701,
                11,
                format!("Cannot drop the {word} '{name}', because it does not exist or you do not have permission."),
            )
            .state(5)
        };
        match kind {
            DropKind::Type => {
                let known = self.catalog.types.iter().any(|known| same(&known.name, name.last()));
                if !known && !if_exists {
                    return Err(missing());
                }
                return self.change_catalog(|catalog| {
                    catalog.types.retain(|known| !same(&known.name, name.last()));
                    Ok(())
                });
            }
            DropKind::Schema => {
                let Some((_, schema)) = self.catalog.schema(name.last()) else {
                    return if if_exists { Ok(()) } else { Err(missing()) };
                };
                let schema = schema.to_owned();
                if self.catalog.tables.values().any(|table| table.schema == schema)
                    || self.catalog.modules.values().any(|module| module.schema == schema)
                {
                    return Err(fault(
                        3729,
                        16,
                        format!("Cannot drop schema '{schema}' because it is being referenced by another object."),
                    ));
                }
                return self.change_catalog(|catalog| {
                    catalog.schemas.retain(|(_, known)| *known != schema);
                    Ok(())
                });
            }
            _ => {}
        }
        let found = self
            .catalog
            .module(name.schema().unwrap_or("dbo"), name.last())
            .filter(|module| Some(module.kind) == wanted)
            .map(|module| module.id);
        match found {
            Some(id) => self.change_catalog(|catalog| {
                catalog.modules.remove(&id);
                Ok(())
            }),
            None if if_exists => Ok(()),
            None => Err(missing()),
        }
    }
}

/// The default of a parameter, as text again. Only constants can stand there.
fn constant(expr: &super::super::ast::Expr) -> String {
    use super::super::ast::Expr;
    let text = match expr {
        Expr::Integer(digits) | Expr::Number(digits) => digits.clone(),
        Expr::Float(number) => format!("{number:e}"),
        Expr::Text { text, national } => format!("{}'{}'", if *national { "N" } else { "" }, text.replace('\'', "''")),
        Expr::Bytes(bytes) => format!("0x{}", super::super::convert::hex(bytes)),
        Expr::Negate(inner) => return constant(inner).replacen("= ", "= -", 1),
        _ => "NULL".to_owned(),
    };
    format!(" = {text}")
}
