//! CREATE, ALTER, DROP.

use super::super::ast::{Define, DropKind, Event, IndexDef, Kind as Stmt, Name, ParameterDef};
use super::super::errors::{Result, unsupported};
use super::super::lexer::Kind;
use super::Parser;

impl Parser<'_> {
    /// The text from the start of the statement to the end of the batch: what the catalogue keeps of a module.
    fn rest_as_text(&mut self, from: usize) -> String {
        let end = self.tokens.len() - 1;
        self.at = end;
        self.text_between(from, end)
    }

    /// Parses the body of a module, so that its errors are those of the CREATE, and takes it.
    fn check_body(&mut self) -> Result<()> {
        while self.next_statement_follows() {
            self.statement()?;
        }
        if *self.peek() == Kind::End { Ok(()) } else { Err(self.syntax()) }
    }

    pub(super) fn create(&mut self) -> Result<Stmt> {
        let define = if self.words(&["OR", "ALTER"]) { Define::CreateOrAlter } else { Define::Create };
        if self.word("TABLE") {
            let name = self.name()?;
            return Ok(Stmt::CreateTable { name, table: self.table_def()? });
        }
        if self.word("VIEW") {
            return self.view(define);
        }
        if self.word("PROCEDURE") || self.word("PROC") {
            return self.procedure(define);
        }
        if self.word("TRIGGER") {
            return self.trigger(define);
        }
        if self.word("SCHEMA") {
            let name = self.identifier()?;
            if self.word("AUTHORIZATION") {
                self.identifier()?;
            }
            return Ok(Stmt::CreateSchema(name));
        }
        if self.word("TYPE") {
            let name = self.name()?;
            self.expect_word("FROM")?;
            let base = self.type_name()?;
            if self.word("NOT") {
                self.expect_word("NULL")?;
            } else {
                self.word("NULL");
            }
            return Ok(Stmt::CreateType { name, base });
        }
        let unique = self.word("UNIQUE");
        let clustered = self.word("CLUSTERED");
        if !clustered {
            self.word("NONCLUSTERED");
        }
        if self.word("INDEX") {
            return self.index(unique, clustered);
        }
        for (word, what) in
            [("FUNCTION", "user-defined functions"), ("DATABASE", "CREATE DATABASE"), ("LOGIN", "CREATE LOGIN")]
        {
            if self.is_word(word) {
                return Err(unsupported(what));
            }
        }
        Err(self.syntax())
    }

    pub(super) fn view(&mut self, define: Define) -> Result<Stmt> {
        let name = self.name()?;
        let columns = self.optional_columns()?;
        if self.word("WITH") {
            self.name_list()?;
        }
        self.expect_word("AS")?;
        let from = self.at;
        let query = Box::new(self.query()?);
        let text = self.text_between(from, self.at);
        self.words(&["WITH", "CHECK", "OPTION"]);
        Ok(Stmt::CreateView { define, name, columns, text, query })
    }

    pub(super) fn optional_columns(&mut self) -> Result<Vec<String>> {
        if !self.symbol("(") {
            return Ok(Vec::new());
        }
        let names = self.name_list()?;
        self.expect_symbol(")")?;
        Ok(names)
    }

    pub(super) fn parameter_list(&mut self) -> Result<Vec<ParameterDef>> {
        let mut parameters = Vec::new();
        while self.is_variable() {
            let name = self.variable()?;
            self.word("AS");
            let sql_type = self.type_name()?;
            if self.word("NOT") {
                self.expect_word("NULL")?;
            } else {
                self.word("NULL");
            }
            let default = if self.symbol("=") { Some(self.expr()?) } else { None };
            let output = self.word("OUTPUT") || self.word("OUT");
            self.word("READONLY");
            parameters.push(ParameterDef { name, sql_type, default, output });
            if !self.symbol(",") {
                break;
            }
        }
        Ok(parameters)
    }

    pub(super) fn procedure(&mut self, define: Define) -> Result<Stmt> {
        let name = self.name()?;
        let parenthesis = self.symbol("(");
        let parameters = self.parameter_list()?;
        if parenthesis {
            self.expect_symbol(")")?;
        }
        if self.word("WITH") {
            while !self.is_word("AS") && *self.peek() != Kind::End {
                self.advance();
            }
        }
        self.expect_word("AS")?;
        let body = self.at;
        self.check_body()?;
        self.at = body;
        let text = self.rest_as_text(body);
        Ok(Stmt::CreateProcedure { define, name, parameters, text })
    }

    pub(super) fn trigger(&mut self, define: Define) -> Result<Stmt> {
        let name = self.name()?;
        self.expect_word("ON")?;
        if self.is_word("DATABASE") || self.is_words_all_server() {
            return Err(unsupported("DDL and logon triggers"));
        }
        let table = self.name()?;
        if self.word("WITH") {
            self.name_list()?;
        }
        let instead = self.words(&["INSTEAD", "OF"]);
        if !instead && !self.word("AFTER") {
            self.expect_word("FOR")?;
        }
        let mut events = Vec::new();
        loop {
            events.push(if self.word("INSERT") {
                Event::Insert
            } else if self.word("UPDATE") {
                Event::Update
            } else {
                self.expect_word("DELETE")?;
                Event::Delete
            });
            if !self.symbol(",") {
                break;
            }
        }
        self.words(&["NOT", "FOR", "REPLICATION"]);
        self.expect_word("AS")?;
        let body = self.at;
        self.check_body()?;
        self.at = body;
        let text = self.rest_as_text(body);
        Ok(Stmt::CreateTrigger { define, name, table, events, instead, text })
    }

    fn is_words_all_server(&self) -> bool {
        self.is_word("ALL") && self.is_word_at(1, "SERVER")
    }

    fn index(&mut self, unique: bool, clustered: bool) -> Result<Stmt> {
        let name = self.identifier()?;
        self.expect_word("ON")?;
        let table = self.name()?;
        let columns = self.key_columns()?;
        let included = if self.word("INCLUDE") { self.optional_columns()? } else { Vec::new() };
        let mut filter = None;
        if self.word("WHERE") {
            let from = self.at;
            self.condition()?;
            filter = Some(self.text_between(from, self.at));
        }
        let mut drop_existing = false;
        if self.is_word("WITH") && self.is_symbol_at(1, "(") {
            self.advance();
            let from = self.at;
            self.parentheses()?;
            let options = self.text_between(from, self.at).to_ascii_uppercase().replace(' ', "");
            drop_existing = options.contains("DROP_EXISTING=ON");
        }
        if self.word("ON") {
            self.identifier()?;
        }
        Ok(Stmt::CreateIndex(Box::new(IndexDef {
            name,
            table,
            unique,
            clustered,
            columns,
            included,
            filter,
            drop_existing,
        })))
    }

    pub(super) fn drop(&mut self) -> Result<Stmt> {
        if self.word("INDEX") {
            let if_exists = self.words(&["IF", "EXISTS"]);
            let name = self.identifier()?;
            self.expect_word("ON")?;
            let table = self.name()?;
            return Ok(Stmt::DropIndex { name, table, if_exists });
        }
        let kind = match () {
            () if self.word("TABLE") => DropKind::Table,
            () if self.word("VIEW") => DropKind::View,
            () if self.word("PROCEDURE") || self.word("PROC") => DropKind::Procedure,
            () if self.word("TRIGGER") => DropKind::Trigger,
            () if self.word("FUNCTION") => DropKind::Function,
            () if self.word("TYPE") => DropKind::Type,
            () if self.word("SCHEMA") => DropKind::Schema,
            () => return Err(self.syntax()),
        };
        let if_exists = self.words(&["IF", "EXISTS"]);
        let mut names = vec![self.name()?];
        while self.symbol(",") {
            names.push(self.name()?);
        }
        Ok(Stmt::Drop { kind, names, if_exists })
    }

    pub(super) fn enable_trigger(&mut self, enable: bool) -> Result<Stmt> {
        self.expect_word("TRIGGER")?;
        let mut names: Vec<Name> = Vec::new();
        if !self.word("ALL") {
            names.push(self.name()?);
            while self.symbol(",") {
                names.push(self.name()?);
            }
        }
        self.expect_word("ON")?;
        let table = self.name()?;
        Ok(Stmt::EnableTrigger { names, table, enable })
    }
}
