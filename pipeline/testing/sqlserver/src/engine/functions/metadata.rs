//! Functions that look into the catalogue.

use super::super::catalog::{DATABASE, DATABASES, same};
use super::super::errors::fault;
use super::super::parser;
use super::super::sysviews;
use super::{FnState, Shared, add, blob, integer, lock, strict, string};
use rusqlite::Connection;
use rusqlite::functions::Context;
use rusqlite::types::{Value as Cell, ValueRef};

fn text(value: Option<impl Into<String>>) -> Cell {
    value.map_or(Cell::Null, |text| Cell::Text(text.into()))
}

fn number(value: Option<i64>) -> Cell {
    value.map_or(Cell::Null, Cell::Integer)
}

fn flag(value: bool) -> Cell {
    Cell::Integer(i64::from(value))
}

/// The number of an object by its name, as OBJECT_ID gives it.
pub(crate) fn object_id(state: &FnState, name: &str, kind: &str) -> Option<i64> {
    let name = parser::parse_name(name)?;
    if name.last().starts_with('#') {
        return state.temporary.get(&name.last().to_lowercase()).map(|table| table.id);
    }
    let database = name.database().unwrap_or(&state.database);
    let schema = name.schema().unwrap_or("dbo");
    if same(database, DATABASE)
        && let Some((id, found)) = state.catalog.object_id(schema, name.last())
    {
        return (kind.is_empty() || same(kind.trim(), found)).then_some(id);
    }
    sysviews::find(database, schema, name.last()).map(|view| view.object_id)
}

/// Registers a function with the session's state.
fn known(
    connection: &Connection,
    state: &Shared,
    name: &str,
    function: impl Fn(&FnState, &Context<'_>) -> Cell + Send + 'static,
) -> rusqlite::Result<()> {
    let state = Shared::clone(state);
    add(connection, name, move |context| Ok(function(&lock(&state), context)))
}

fn null(context: &Context<'_>, at: usize) -> bool {
    at >= context.len() || context.get_raw(at) == ValueRef::Null
}

// One registration for each function.
pub(super) fn register(connection: &Connection, state: &Shared) -> rusqlite::Result<()> {
    known(connection, state, "object_id", |state, context| {
        number(object_id(state, string(context, 0), string(context, 1)))
    })?;
    known(connection, state, "object_name", |state, context| {
        text(state.catalog.object_name(integer(context, 0)).map(|(_, name)| name))
    })?;
    known(connection, state, "object_schema_name", |state, context| {
        text(state.catalog.object_name(integer(context, 0)).map(|(schema, _)| schema))
    })?;
    known(connection, state, "object_definition", |state, context| {
        text(state.catalog.modules.get(&integer(context, 0)).map(|module| module.text.as_str()))
    })?;
    known(connection, state, "schema_name", |state, context| {
        if context.is_empty() {
            return Cell::Text("dbo".to_owned());
        }
        let id = integer(context, 0);
        text(state.catalog.schemas.iter().find(|(known, _)| *known == id).map(|(_, name)| name.as_str()))
    })?;
    known(connection, state, "schema_id", |state, context| {
        number(state.catalog.schema(if context.is_empty() { "dbo" } else { string(context, 0) }).map(|(id, _)| id))
    })?;
    known(connection, state, "db_id", |state, context| {
        let name = if context.is_empty() { state.database.as_str() } else { string(context, 0) };
        number(DATABASES.iter().find(|(known, _)| same(known, name)).map(|(_, id)| *id))
    })?;
    known(connection, state, "db_name", |state, context| {
        if context.is_empty() {
            return Cell::Text(state.database.clone());
        }
        text(DATABASES.iter().find(|(_, id)| *id == integer(context, 0)).map(|(name, _)| *name))
    })?;
    known(connection, state, "type_name", |_, context| text(sysviews::type_name(integer(context, 0))))?;
    known(connection, state, "type_id", |_, context| number(sysviews::type_id(string(context, 0))))?;
    known(connection, state, "col_name", |state, context| {
        let table = state.catalog.tables.get(&integer(context, 0));
        text(table.and_then(|table| table.column_by_id(integer(context, 1))).map(|column| column.name.as_str()))
    })?;
    known(connection, state, "col_length", |state, context| {
        let table = object_id(state, string(context, 0), "").and_then(|id| state.catalog.tables.get(&id));
        number(
            table
                .and_then(|table| table.column(string(context, 1)))
                .map(|column| sysviews::max_length(column.sql_type)),
        )
    })?;
    known(connection, state, "columnproperty", |state, context| {
        let table = state.catalog.tables.get(&integer(context, 0));
        let Some(column) = table.and_then(|table| table.column(string(context, 1))) else { return Cell::Null };
        match string(context, 2).to_lowercase().as_str() {
            "allowsnull" => flag(column.nullable),
            "isidentity" => flag(column.identity.is_some()),
            "columnid" => Cell::Integer(column.id),
            "iscomputed" => flag(false),
            "precision" => Cell::Integer(sysviews::precision(column.sql_type)),
            "scale" => Cell::Integer(sysviews::scale(column.sql_type)),
            "charmaxlen" => Cell::Integer(sysviews::characters(column.sql_type)),
            _ => Cell::Null,
        }
    })?;
    known(connection, state, "objectproperty", |state, context| {
        let id = integer(context, 0);
        let table = state.catalog.tables.get(&id);
        let module = state.catalog.modules.get(&id);
        if table.is_none() && module.is_none() {
            return Cell::Null;
        }
        use super::super::catalog::ModuleKind;
        let is = |kind: ModuleKind| flag(module.is_some_and(|module| module.kind == kind));
        match string(context, 1).to_lowercase().as_str() {
            "istable" | "isusertable" => flag(table.is_some()),
            "isview" => is(ModuleKind::View),
            "isprocedure" => is(ModuleKind::Procedure),
            "istrigger" => is(ModuleKind::Trigger),
            "execistriggerdisabled" => flag(module.is_some_and(|module| module.disabled)),
            "ismsshipped" => flag(table.is_some_and(|table| table.shipped)),
            "tablehasprimarykey" => flag(table.is_some_and(|table| table.primary_key().is_some())),
            "tablehasidentity" => flag(table.is_some_and(|table| table.identity().is_some())),
            _ => Cell::Null,
        }
    })?;
    known(connection, state, "serverproperty", |_, context| {
        text(match string(context, 0).to_lowercase().as_str() {
            "productversion" => Some(sysviews::PRODUCT_VERSION),
            "productmajorversion" => Some("14"),
            "productlevel" => Some("RTM"),
            "edition" => Some("Developer Edition (64-bit)"),
            "engineedition" => Some("3"),
            "servername" | "machinename" => Some("STAND-IN"),
            "collation" => Some(sysviews::COLLATION),
            "isintegratedsecurityonly" | "isclustered" | "ishadrenabled" => Some("0"),
            _ => None,
        })
    })?;
    known(connection, state, "databasepropertyex", |state, context| {
        if !DATABASES.iter().any(|(name, _)| same(name, string(context, 0))) {
            return Cell::Null;
        }
        text(match string(context, 1).to_lowercase().as_str() {
            "status" => Some("ONLINE"),
            "updateability" => Some("READ_WRITE"),
            "recovery" => Some("FULL"),
            "collation" => Some(sysviews::COLLATION),
            "isrecursivetriggersenabled" => Some(if state.catalog.options.recursive_triggers { "1" } else { "0" }),
            _ => None,
        })
    })?;
    known(connection, state, "has_perms_by_name", |state, context| {
        let permission = string(context, 2).to_uppercase();
        let securable = string(context, 0);
        if permission.is_empty() {
            return Cell::Null;
        }
        let class = string(context, 1).to_uppercase();
        if class == "OBJECT" && !securable.is_empty() && object_id(state, securable, "").is_none() {
            return Cell::Null;
        }
        flag(!state.denies(&permission, securable))
    })?;
    known(connection, state, "has_dbaccess", |_, context| {
        if DATABASES.iter().any(|(name, _)| same(name, string(context, 0))) { Cell::Integer(1) } else { Cell::Null }
    })?;
    known(connection, state, "is_member", |state, context| {
        let role = string(context, 0).to_lowercase();
        const ROLES: &[&str] = &[
            "db_owner",
            "sysadmin",
            "public",
            "db_datareader",
            "db_datawriter",
            "db_ddladmin",
            "serveradmin",
            "securityadmin",
            "dbcreator",
            "db_securityadmin",
            "db_accessadmin",
            "db_backupoperator",
        ];
        if ROLES.contains(&role.as_str()) { flag(!state.denies(&role.to_uppercase(), "")) } else { Cell::Null }
    })?;
    known(connection, state, "suser_sname", |state, _| Cell::Text(state.login.clone()))?;
    known(connection, state, "user_name", |_, _| Cell::Text("dbo".to_owned()))?;
    known(connection, state, "host_name", |_, _| Cell::Text("STAND-IN-CLIENT".to_owned()))?;
    known(connection, state, "app_name", |_, _| Cell::Text("client".to_owned()))?;
    known(connection, state, "may_view_ct", |state, context| {
        let name = state.catalog.object_name(integer(context, 0)).map(|(schema, name)| format!("{schema}.{name}"));
        flag(!state.denies("VIEW CHANGE TRACKING", name.as_deref().unwrap_or_default()))
    })?;
    known(connection, state, "may_read_cdc", |state, context| flag(!state.denies("SELECT CDC", string(context, 0))))?;
    known(connection, state, "ctnet", |state, context| flag(state.net_update && integer(context, 0) == 1))?;
    known(connection, state, "cdc_ordinal", |state, context| {
        let found = state.catalog.tables.values().find_map(|table| {
            let instance = table.instances.iter().find(|instance| same(&instance.name, string(context, 0)))?;
            let change_table = state.catalog.tables.get(&instance.table)?;
            // Captured columns stand between the first five and the last.
            change_table.columns[5..].iter().position(|column| same(&column.name, string(context, 1)))
        });
        number(found.map(|at| i64::try_from(at + 1).unwrap_or(0)))
    })?;
    add(connection, "cdc_bit", |context| {
        if null(context, 0) || null(context, 1) {
            return Ok(Cell::Null);
        }
        Ok(flag(bit_is_set(integer(context, 0), blob(context, 1))))
    })?;
    add(connection, "cdc_range", |context| {
        let refused = (0..4).any(|at| null(context, at))
            || blob(context, 0) < blob(context, 2)
            || blob(context, 1) > blob(context, 3)
            || blob(context, 0) > blob(context, 1);
        if refused {
            return Err(fault(
                313,
                16,
                "An insufficient number of arguments were supplied for the procedure or function cdc.fn_cdc_get_all_changes_ ... .",
            )
            .state(3)
            .into());
        }
        Ok(Cell::Integer(1))
    })?;
    strict(connection, "lsn_increment", |context| Ok(Cell::Blob(step(blob(context, 0), true))))?;
    strict(connection, "lsn_decrement", |context| Ok(Cell::Blob(step(blob(context, 0), false))))
}

/// The next or the previous LSN, as a number of ten bytes.
fn step(lsn: &[u8], up: bool) -> Vec<u8> {
    let mut bytes = lsn.to_vec();
    for byte in bytes.iter_mut().rev() {
        let (next, carry) = if up { byte.overflowing_add(1) } else { byte.overflowing_sub(1) };
        *byte = next;
        if !carry {
            break;
        }
    }
    bytes
}

/// Column 1 is the lowest bit of the last byte.
pub(crate) fn bit_is_set(position: i64, mask: &[u8]) -> bool {
    let Some(at) = usize::try_from(position - 1).ok() else { return false };
    let Some(byte) = mask.len().checked_sub(at / 8 + 1).map(|byte| mask[byte]) else { return false };
    byte & (1 << (at % 8)) != 0
}

impl FnState {
    /// Whether a permission was taken away, everywhere or on this object.
    pub(crate) fn denies(&self, permission: &str, object: &str) -> bool {
        let object = object.replace(['[', ']'], "").to_uppercase();
        self.denied.contains(permission)
            || (!object.is_empty() && self.denied.contains(&format!("{permission} ON {object}")))
    }
}
