//! T-SQL as a tree.

mod statements;

pub(crate) use statements::*;

use crate::value::SqlType;

/// A name of up to four parts, the object last.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name(pub Vec<String>);

impl Name {
    pub(crate) fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// The part before the last, when it is given and not empty.
    pub(crate) fn schema(&self) -> Option<&str> {
        self.0.len().checked_sub(2).map(|at| self.0[at].as_str()).filter(|part| !part.is_empty())
    }

    pub(crate) fn database(&self) -> Option<&str> {
        self.0.len().checked_sub(3).map(|at| self.0[at].as_str()).filter(|part| !part.is_empty())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0.join("."))
    }
}

/// A type as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TypeName {
    Known(SqlType),
    /// `rowversion`, `timestamp`: `binary(8)` that counts.
    Named(Name),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Null,
    Default,
    Integer(String),
    Number(String),
    Float(f64),
    Text {
        text: String,
        national: bool,
    },
    Bytes(Vec<u8>),
    /// With its signs, lower case.
    Variable(String),
    Column(Name),
    Negate(Box<Expr>),
    BitNot(Box<Expr>),
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    Compare(&'static str, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>, bool),
    Between {
        value: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        not: bool,
    },
    In {
        value: Box<Expr>,
        list: Vec<Expr>,
        not: bool,
    },
    InQuery {
        value: Box<Expr>,
        query: Box<Query>,
        not: bool,
    },
    Like {
        value: Box<Expr>,
        pattern: Box<Expr>,
        escape: Option<Box<Expr>>,
        not: bool,
    },
    Exists(Box<Query>),
    Quantified {
        op: &'static str,
        value: Box<Expr>,
        all: bool,
        query: Box<Query>,
    },
    Case {
        operand: Option<Box<Expr>>,
        whens: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Cast {
        value: Box<Expr>,
        to: TypeName,
        style: Option<Box<Expr>>,
        attempt: bool,
    },
    Call {
        name: Name,
        args: Vec<Expr>,
        star: bool,
        distinct: bool,
        within: Vec<Order>,
        over: Option<Window>,
    },
    /// `UPDATE(column)` in a trigger.
    Updated(String),
    Query(Box<Query>),
    Collate(Box<Expr>, String),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    pub partition: Vec<Expr>,
    pub order: Vec<Order>,
    /// `ROWS ...` as written, which SQLite reads alike.
    pub frame: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub expr: Expr,
    pub descending: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub ctes: Vec<Cte>,
    pub body: SetExpr,
    pub order: Vec<Order>,
    pub offset: Option<Expr>,
    pub fetch: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cte {
    pub name: String,
    pub columns: Vec<String>,
    pub query: Query,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SetExpr {
    Select(Box<Select>),
    Operation { op: &'static str, left: Box<SetExpr>, right: Box<SetExpr> },
    Nested(Box<Query>),
    Values(Vec<Vec<Expr>>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Select {
    pub distinct: bool,
    pub top: Option<Expr>,
    pub items: Vec<Item>,
    pub into: Option<Name>,
    pub from: Vec<From>,
    pub filter: Option<Expr>,
    pub group: Vec<Expr>,
    pub having: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Star,
    QualifiedStar(Name),
    Expr { expr: Expr, alias: Option<String> },
    Assign { variable: String, op: Option<Arithmetic>, expr: Expr },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    Cross,
    CrossApply,
    OuterApply,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum From {
    Table {
        name: Name,
        alias: Option<String>,
        hints: Vec<String>,
    },
    /// `@t`
    Variable {
        name: String,
        alias: Option<String>,
    },
    Derived {
        query: Box<Query>,
        alias: String,
        columns: Vec<String>,
    },
    Function {
        name: Name,
        args: Vec<Expr>,
        alias: Option<String>,
        columns: Vec<String>,
    },
    Changes {
        table: Name,
        since: Expr,
        alias: Option<String>,
        columns: Vec<String>,
    },
    Version {
        table: Name,
        keys: Vec<String>,
        values: Vec<Expr>,
        alias: Option<String>,
        columns: Vec<String>,
    },
    Join {
        kind: JoinKind,
        left: Box<From>,
        right: Box<From>,
        on: Option<Expr>,
    },
}
