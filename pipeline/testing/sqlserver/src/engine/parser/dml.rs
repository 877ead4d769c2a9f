//! INSERT, UPDATE, DELETE, MERGE, TRUNCATE, EXECUTE.

use super::super::ast::{
    Argument, Assignment, Cte, Delete, Execute, Executed, Expr, From, Insert, InsertSource, Kind as Stmt, Merge,
    MergeAction, MergeCase, MergeWhen, Output, Update,
};
use super::super::errors::Result;
use super::super::lexer::Kind;
use super::Parser;
use super::query::assignment;

impl Parser<'_> {
    /// What is written to: a table, with hints, or a table variable.
    fn target(&mut self) -> Result<From> {
        if self.is_variable() {
            return Ok(From::Variable { name: self.variable()?, alias: None });
        }
        let name = self.name()?;
        // `INSERT INTO t (a)` is a list of columns, never of hints.
        let hints = if self.is_word("WITH") { self.hints()? } else { Vec::new() };
        Ok(From::Table { name, alias: None, hints })
    }

    fn column_list(&mut self) -> Result<Vec<String>> {
        if !self.symbol("(") {
            return Ok(Vec::new());
        }
        let names = self.name_list()?;
        self.expect_symbol(")")?;
        Ok(names)
    }

    fn output(&mut self) -> Result<Option<Output>> {
        if !self.word("OUTPUT") {
            return Ok(None);
        }
        let items = self.items()?;
        let into = if self.word("INTO") {
            let target = self.target()?;
            Some((target, self.column_list()?))
        } else {
            None
        };
        Ok(Some(Output { items, into }))
    }

    pub(super) fn insert(&mut self, ctes: Vec<Cte>) -> Result<Stmt> {
        let top = self.top()?;
        self.word("INTO");
        let target = self.target()?;
        let columns = self.column_list()?;
        let output = self.output()?;
        let source = if self.words(&["DEFAULT", "VALUES"]) {
            InsertSource::Defaults
        } else if self.is_word("EXEC") || self.is_word("EXECUTE") {
            self.advance();
            InsertSource::Execute(Box::new(self.execute()?))
        } else {
            InsertSource::Query(Box::new(self.query()?))
        };
        Ok(Stmt::Insert(Box::new(Insert { ctes, top, target, columns, output, source })))
    }

    fn assignments(&mut self) -> Result<Vec<Assignment>> {
        let mut sets = Vec::new();
        loop {
            let variable = if self.is_variable() { Some(self.variable()?) } else { None };
            let mut column = None;
            if variable.is_none() {
                // The column, perhaps behind the name of its table.
                column = Some(self.name()?.last().to_owned());
            } else if self.is_symbol("=") && !matches!(self.peek_at(1), Kind::Variable(_)) && self.is_symbol_at(2, "=")
            {
                // `@v = column = expression`
                self.advance();
                column = Some(self.identifier()?);
            }
            let Kind::Symbol(symbol) = self.peek() else { return Err(self.syntax()) };
            let Some(op) = assignment(symbol) else { return Err(self.syntax()) };
            self.advance();
            sets.push(Assignment { variable, column, op, expr: self.expr()? });
            if !self.symbol(",") {
                return Ok(sets);
            }
        }
    }

    pub(super) fn update(&mut self, ctes: Vec<Cte>) -> Result<Stmt> {
        let top = self.top()?;
        let target = self.target()?;
        self.expect_word("SET")?;
        let sets = self.assignments()?;
        let output = self.output()?;
        let from = if self.word("FROM") { self.sources()? } else { Vec::new() };
        let filter = if self.word("WHERE") { Some(self.condition()?) } else { None };
        self.option_clause()?;
        Ok(Stmt::Update(Box::new(Update { ctes, top, target, sets, output, from, filter })))
    }

    fn option_clause(&mut self) -> Result<()> {
        if self.is_word("OPTION") && self.is_symbol_at(1, "(") {
            self.advance();
            self.parentheses()?;
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, ctes: Vec<Cte>) -> Result<Stmt> {
        let top = self.top()?;
        self.word("FROM");
        let target = self.target()?;
        let output = self.output()?;
        let from = if self.word("FROM") { self.sources()? } else { Vec::new() };
        let filter = if self.word("WHERE") { Some(self.condition()?) } else { None };
        self.option_clause()?;
        Ok(Stmt::Delete(Box::new(Delete { ctes, top, target, output, from, filter })))
    }

    pub(super) fn merge(&mut self, ctes: Vec<Cte>) -> Result<Stmt> {
        self.word("INTO");
        let mut target = self.target()?;
        let found = self.alias()?;
        if let From::Table { alias, .. } | From::Variable { alias, .. } = &mut target {
            *alias = found;
        }
        self.expect_word("USING")?;
        let source = self.source()?;
        self.expect_word("ON")?;
        let on = self.condition()?;
        let mut whens = Vec::new();
        while self.word("WHEN") {
            let not = self.word("NOT");
            self.expect_word("MATCHED")?;
            let mut case = if not { MergeCase::NotMatchedByTarget } else { MergeCase::Matched };
            if not && self.word("BY") {
                if self.word("SOURCE") {
                    case = MergeCase::NotMatchedBySource;
                } else {
                    self.expect_word("TARGET")?;
                }
            }
            let condition = if self.word("AND") { Some(self.condition()?) } else { None };
            self.expect_word("THEN")?;
            let action = if self.word("DELETE") {
                MergeAction::Delete
            } else if self.word("INSERT") {
                let columns = self.column_list()?;
                self.expect_word("VALUES")?;
                self.expect_symbol("(")?;
                let values = self.expr_list()?;
                self.expect_symbol(")")?;
                MergeAction::Insert { columns, values }
            } else {
                self.expect_word("UPDATE")?;
                self.expect_word("SET")?;
                MergeAction::Update(self.assignments()?)
            };
            whens.push(MergeWhen { case, condition, action });
        }
        let output = self.output()?;
        self.option_clause()?;
        if !self.is_symbol(";") {
            return Err(super::super::errors::fault(
                10713,
                15,
                "A MERGE statement must be terminated by a semi-colon (;).",
            )
            .at(self.line()));
        }
        Ok(Stmt::Merge(Box::new(Merge { ctes, target, source, on, whens, output })))
    }

    /// Behind EXEC.
    pub(super) fn execute(&mut self) -> Result<Execute> {
        if self.symbol("(") {
            let text = self.expr()?;
            self.expect_symbol(")")?;
            return Ok(Execute { status: None, what: Executed::Text(text), args: Vec::new() });
        }
        let mut status = None;
        if self.is_variable() && self.is_symbol_at(1, "=") {
            status = Some(self.variable()?);
            self.advance();
        }
        let what =
            if self.is_variable() { Executed::Variable(self.variable()?) } else { Executed::Procedure(self.name()?) };
        let mut args = Vec::new();
        if self.argument_follows() {
            loop {
                let name = if self.is_variable() && self.is_symbol_at(1, "=") {
                    let name = self.variable()?;
                    self.advance();
                    Some(name)
                } else {
                    None
                };
                let value = self.argument_value()?;
                let output = self.word("OUTPUT") || self.word("OUT");
                args.push(Argument { name, value, output });
                if !self.symbol(",") {
                    break;
                }
            }
        }
        self.words(&["WITH", "RECOMPILE"]);
        Ok(Execute { status, what, args })
    }

    fn argument_follows(&self) -> bool {
        match self.peek() {
            Kind::Variable(_)
            | Kind::Text { .. }
            | Kind::Integer(_)
            | Kind::Number(_)
            | Kind::Float(_)
            | Kind::Bytes(_) => true,
            Kind::Symbol(symbol) => *symbol == "-",
            Kind::Word(word) => {
                word.eq_ignore_ascii_case("NULL")
                    || word.eq_ignore_ascii_case("DEFAULT")
                    || (self.is_identifier() && !self.statement_word())
            }
            Kind::Quoted(_) => true,
            Kind::End => false,
        }
    }

    /// A constant, a variable, NULL, DEFAULT, or a bare word that stands for its text. No expression: SQL Server takes
    /// none here.
    fn argument_value(&mut self) -> Result<Expr> {
        if self.symbol("-") {
            return Ok(Expr::Negate(Box::new(self.argument_value()?)));
        }
        if self.is_identifier() {
            return Ok(Expr::Text { text: self.identifier()?, national: true });
        }
        let value = match self.peek().clone() {
            Kind::Variable(name) => Expr::Variable(name.to_lowercase()),
            Kind::Text { text, national } => Expr::Text { text, national },
            Kind::Integer(digits) => Expr::Integer(digits),
            Kind::Number(digits) => Expr::Number(digits),
            Kind::Float(digits) => Expr::Float(digits.parse().unwrap_or_default()),
            Kind::Bytes(bytes) => Expr::Bytes(bytes),
            Kind::Word(word) if word.eq_ignore_ascii_case("NULL") => Expr::Null,
            Kind::Word(word) if word.eq_ignore_ascii_case("DEFAULT") => Expr::Default,
            _ => return Err(self.syntax()),
        };
        self.advance();
        Ok(value)
    }
}
