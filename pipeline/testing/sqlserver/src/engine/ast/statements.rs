//! Statements.

use super::{Arithmetic, Cte, Expr, From, Item, Name, Query, TypeName};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub items: Vec<Item>,
    /// A table or `@variable`, and columns.
    pub into: Option<(From, Vec<String>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InsertSource {
    Query(Box<Query>),
    Defaults,
    Execute(Box<Execute>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Insert {
    pub ctes: Vec<Cte>,
    pub top: Option<Expr>,
    pub target: From,
    pub columns: Vec<String>,
    pub output: Option<Output>,
    pub source: InsertSource,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Update {
    pub ctes: Vec<Cte>,
    pub top: Option<Expr>,
    pub target: From,
    pub sets: Vec<Assignment>,
    pub output: Option<Output>,
    pub from: Vec<From>,
    pub filter: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assignment {
    /// `@v = ...` when only a variable is set.
    pub variable: Option<String>,
    pub column: Option<String>,
    pub op: Option<Arithmetic>,
    pub expr: Expr,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delete {
    pub ctes: Vec<Cte>,
    pub top: Option<Expr>,
    pub target: From,
    pub output: Option<Output>,
    pub from: Vec<From>,
    pub filter: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Merge {
    pub ctes: Vec<Cte>,
    pub target: From,
    pub source: From,
    pub on: Expr,
    pub whens: Vec<MergeWhen>,
    pub output: Option<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeCase {
    Matched,
    NotMatchedByTarget,
    NotMatchedBySource,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MergeWhen {
    pub case: MergeCase,
    pub condition: Option<Expr>,
    pub action: MergeAction,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MergeAction {
    Update(Vec<Assignment>),
    Delete,
    Insert { columns: Vec<String>, values: Vec<Expr> },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Execute {
    /// The variable that takes the return status.
    pub status: Option<String>,
    pub what: Executed,
    pub args: Vec<Argument>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Executed {
    Procedure(Name),
    /// The name is in a variable.
    Variable(String),
    /// `EXEC (N'...')`
    Text(Expr),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Argument {
    pub name: Option<String>,
    pub value: Expr,
    pub output: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ColumnDef {
    pub name: String,
    pub sql_type: TypeName,
    /// Not said: NULL, but NOT NULL in a primary key.
    pub nullable: Option<bool>,
    pub identity: Option<(i64, i64)>,
    pub default: Option<(Option<String>, String)>,
    pub collation: Option<String>,
    pub computed: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConstraintDef {
    Key {
        name: Option<String>,
        primary: bool,
        clustered: Option<bool>,
        columns: Vec<(String, bool)>,
    },
    Foreign {
        name: Option<String>,
        columns: Vec<String>,
        table: Name,
        referenced: Vec<String>,
        cascade: bool,
    },
    Check {
        name: Option<String>,
        text: String,
    },
    Default {
        name: Option<String>,
        text: String,
        column: String,
    },
    /// An index inside CREATE TABLE.
    Index {
        name: String,
        unique: bool,
        columns: Vec<(String, bool)>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TableDef {
    pub columns: Vec<ColumnDef>,
    pub constraints: Vec<ConstraintDef>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AlterTable {
    Add(TableDef),
    DropColumns {
        names: Vec<String>,
        if_exists: bool,
    },
    DropConstraints {
        names: Vec<String>,
        if_exists: bool,
    },
    AlterColumn(ColumnDef),
    ChangeTracking(bool),
    Trigger {
        names: Vec<String>,
        enable: bool,
    },
    /// NOCHECK or CHECK of constraints: `ALL` when empty.
    Check {
        names: Vec<String>,
        enable: bool,
    },
    /// What has no meaning here: SET (LOCK_ESCALATION ...), REBUILD.
    Ignored,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParameterDef {
    pub name: String,
    pub sql_type: TypeName,
    pub default: Option<Expr>,
    pub output: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Insert,
    Update,
    Delete,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DatabaseOption {
    ChangeTracking { on: Option<bool>, retention: Option<(i64, u8)>, cleanup: Option<bool> },
    SnapshotIsolation(bool),
    ReadCommittedSnapshot(bool),
    RecursiveTriggers(bool),
    Ignored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropKind {
    Table,
    View,
    Procedure,
    Trigger,
    Function,
    Type,
    Schema,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IndexDef {
    pub name: String,
    pub table: Name,
    pub unique: bool,
    pub clustered: bool,
    pub columns: Vec<(String, bool)>,
    pub included: Vec<String>,
    pub filter: Option<String>,
    pub drop_existing: bool,
}

/// CREATE only, ALTER only, or either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Define {
    Create,
    Alter,
    CreateOrAlter,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statement {
    /// Unique within the engine: what is remembered of a statement is kept under it.
    pub id: u64,
    pub line: u32,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Block(Vec<Statement>),
    If {
        condition: Expr,
        then: Box<Statement>,
        otherwise: Option<Box<Statement>>,
    },
    While {
        condition: Expr,
        body: Box<Statement>,
    },
    Break,
    Continue,
    Return(Option<Expr>),
    Try {
        body: Vec<Statement>,
        handler: Vec<Statement>,
    },
    Throw(Option<(Expr, Expr, Expr)>),
    RaiseError {
        message: Expr,
        severity: Expr,
        state: Expr,
        args: Vec<Expr>,
    },
    Print(Expr),
    WaitFor(Expr),
    Declare(Vec<(String, TypeName, Option<Expr>)>),
    DeclareTable(String, TableDef),
    SetVariable {
        name: String,
        op: Option<Arithmetic>,
        expr: Expr,
    },
    SetOption(Vec<String>, String),
    SetIsolation(u8),
    SetLockTimeout(Expr),
    SetContext(Expr),
    Use(String),
    Begin {
        name: Option<String>,
    },
    Commit,
    Rollback {
        name: Option<String>,
    },
    Save(String),
    Select(Box<Query>),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    Merge(Box<Merge>),
    Truncate(Name),
    Execute(Box<Execute>),
    CreateTable {
        name: Name,
        table: TableDef,
    },
    AlterTable {
        name: Name,
        action: AlterTable,
    },
    CreateIndex(Box<IndexDef>),
    DropIndex {
        name: String,
        table: Name,
        if_exists: bool,
    },
    Drop {
        kind: DropKind,
        names: Vec<Name>,
        if_exists: bool,
    },
    CreateSchema(String),
    CreateView {
        define: Define,
        name: Name,
        columns: Vec<String>,
        text: String,
        query: Box<Query>,
    },
    CreateProcedure {
        define: Define,
        name: Name,
        parameters: Vec<ParameterDef>,
        text: String,
    },
    CreateTrigger {
        define: Define,
        name: Name,
        table: Name,
        events: Vec<Event>,
        instead: bool,
        text: String,
    },
    CreateType {
        name: Name,
        base: TypeName,
    },
    EnableTrigger {
        names: Vec<Name>,
        table: Name,
        enable: bool,
    },
    AlterDatabase {
        name: Option<String>,
        options: Vec<DatabaseOption>,
    },
    /// Understood and without effect here.
    Nothing,
}

/// A parsed batch, or the body of a procedure.
pub(crate) type Batch = Arc<Vec<Statement>>;
