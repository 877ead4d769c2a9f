//! CREATE, ALTER, DROP.

use super::super::ast::{
    AlterTable, ColumnDef, ConstraintDef, DatabaseOption, Define, DropKind, Event, IndexDef, Kind as Stmt, Name,
    ParameterDef, TableDef,
};
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

    pub(super) fn create(&mut self, start: usize) -> Result<Stmt> {
        let define = if self.words(&["OR", "ALTER"]) { Define::CreateOrAlter } else { Define::Create };
        if self.word("TABLE") {
            let name = self.name()?;
            return Ok(Stmt::CreateTable { name, table: self.table_def()? });
        }
        if self.word("VIEW") {
            return self.view(define, start);
        }
        if self.word("PROCEDURE") || self.word("PROC") {
            return self.procedure(define, start);
        }
        if self.word("TRIGGER") {
            return self.trigger(define, start);
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

    fn view(&mut self, define: Define, start: usize) -> Result<Stmt> {
        let name = self.name()?;
        let columns = self.optional_columns()?;
        if self.word("WITH") {
            self.name_list()?;
        }
        self.expect_word("AS")?;
        let from = self.at;
        let query = Box::new(self.query()?);
        let text = self.text_between(from, self.at);
        let _ = start;
        if self.words(&["WITH", "CHECK", "OPTION"]) {}
        Ok(Stmt::CreateView { define, name, columns, text, query })
    }

    fn optional_columns(&mut self) -> Result<Vec<String>> {
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

    fn procedure(&mut self, define: Define, start: usize) -> Result<Stmt> {
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
        let _ = start;
        let text = self.rest_as_text(body);
        Ok(Stmt::CreateProcedure { define, name, parameters, text })
    }

    fn trigger(&mut self, define: Define, start: usize) -> Result<Stmt> {
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
        if self.words(&["NOT", "FOR", "REPLICATION"]) {}
        self.expect_word("AS")?;
        let body = self.at;
        self.check_body()?;
        self.at = body;
        let _ = start;
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

    /// `(a, b DESC)`: names, and whether they descend.
    fn key_columns(&mut self) -> Result<Vec<(String, bool)>> {
        self.expect_symbol("(")?;
        let mut columns = Vec::new();
        loop {
            let name = self.identifier()?;
            let descending = self.word("DESC");
            if !descending {
                self.word("ASC");
            }
            columns.push((name, descending));
            if !self.symbol(",") {
                break;
            }
        }
        self.expect_symbol(")")?;
        Ok(columns)
    }

    /// `(columns and constraints)`
    pub(super) fn table_def(&mut self) -> Result<TableDef> {
        self.expect_symbol("(")?;
        let mut table = TableDef { columns: Vec::new(), constraints: Vec::new() };
        loop {
            if self.is_symbol(")") && !table.columns.is_empty() {
                break;
            }
            self.table_element(&mut table)?;
            if !self.symbol(",") {
                break;
            }
        }
        self.expect_symbol(")")?;
        if self.is_word("WITH") && self.is_symbol_at(1, "(") {
            self.advance();
            self.parentheses()?;
        }
        while self.is_word("ON") || self.is_word("TEXTIMAGE_ON") {
            self.advance();
            self.identifier()?;
        }
        Ok(table)
    }

    fn table_element(&mut self, table: &mut TableDef) -> Result<()> {
        let name = if self.word("CONSTRAINT") { Some(self.identifier()?) } else { None };
        if self.word("PRIMARY") {
            self.expect_word("KEY")?;
            let clustered = self.clustered();
            let columns = self.key_columns()?;
            self.index_options()?;
            table.constraints.push(ConstraintDef::Key { name, primary: true, clustered, columns });
        } else if self.word("UNIQUE") {
            let clustered = self.clustered();
            let columns = self.key_columns()?;
            self.index_options()?;
            table.constraints.push(ConstraintDef::Key { name, primary: false, clustered, columns });
        } else if self.word("FOREIGN") {
            self.expect_word("KEY")?;
            let columns = self.optional_columns()?;
            let constraint = self.references(name, columns)?;
            table.constraints.push(constraint);
        } else if self.word("CHECK") {
            let text = self.check_text()?;
            table.constraints.push(ConstraintDef::Check { name, text });
        } else if self.word("DEFAULT") {
            let text = self.default_text()?;
            self.expect_word("FOR")?;
            let column = self.identifier()?;
            table.constraints.push(ConstraintDef::Default { name, text, column });
        } else if name.is_none() && self.word("INDEX") {
            let name = self.identifier()?;
            let unique = self.word("UNIQUE");
            self.clustered();
            let columns = self.key_columns()?;
            table.constraints.push(ConstraintDef::Index { name, unique, columns });
        } else if name.is_none() {
            self.column_def(table)?;
        } else {
            return Err(self.syntax());
        }
        Ok(())
    }

    fn clustered(&mut self) -> Option<bool> {
        if self.word("CLUSTERED") { Some(true) } else { self.word("NONCLUSTERED").then_some(false) }
    }

    fn index_options(&mut self) -> Result<()> {
        if self.is_word("WITH") && self.is_symbol_at(1, "(") {
            self.advance();
            self.parentheses()?;
        }
        if self.word("ON") {
            self.identifier()?;
        }
        Ok(())
    }

    fn check_text(&mut self) -> Result<String> {
        self.words(&["NOT", "FOR", "REPLICATION"]);
        self.expect_symbol("(")?;
        let from = self.at;
        self.condition()?;
        let text = self.text_between(from, self.at);
        self.expect_symbol(")")?;
        Ok(text)
    }

    fn default_text(&mut self) -> Result<String> {
        let from = self.at;
        self.expr()?;
        Ok(self.text_between(from, self.at))
    }

    fn references(&mut self, name: Option<String>, columns: Vec<String>) -> Result<ConstraintDef> {
        self.expect_word("REFERENCES")?;
        let table = self.name()?;
        let referenced = self.optional_columns()?;
        let mut cascade = false;
        while self.word("ON") {
            let delete = self.word("DELETE");
            if !delete {
                self.expect_word("UPDATE")?;
            }
            if self.word("CASCADE") {
                if !delete {
                    return Err(unsupported("ON UPDATE CASCADE"));
                }
                cascade = true;
            } else if self.words(&["NO", "ACTION"]) {
            } else {
                return Err(unsupported("ON DELETE or ON UPDATE SET NULL and SET DEFAULT"));
            }
        }
        Ok(ConstraintDef::Foreign { name, columns, table, referenced, cascade })
    }

    fn column_def(&mut self, table: &mut TableDef) -> Result<()> {
        let name = self.identifier()?;
        if self.word("AS") {
            return Err(unsupported("computed columns").at(self.line()));
        }
        let sql_type = self.type_name()?;
        let mut column = ColumnDef {
            name,
            sql_type,
            nullable: None,
            identity: None,
            default: None,
            collation: None,
            computed: None,
        };
        loop {
            let constraint = if self.word("CONSTRAINT") { Some(self.identifier()?) } else { None };
            let key = |column: &ColumnDef| vec![(column.name.clone(), false)];
            if self.word("NOT") {
                self.expect_word("NULL")?;
                column.nullable = Some(false);
            } else if self.word("NULL") {
                column.nullable = Some(true);
            } else if self.word("IDENTITY") {
                column.identity = Some((1, 1));
                if self.symbol("(") {
                    let seed = self.integer()?;
                    self.expect_symbol(",")?;
                    column.identity = Some((seed, self.integer()?));
                    self.expect_symbol(")")?;
                }
            } else if self.word("DEFAULT") {
                column.default = Some((constraint, self.default_text()?));
            } else if self.word("PRIMARY") {
                self.expect_word("KEY")?;
                let clustered = self.clustered();
                self.index_options()?;
                let columns = key(&column);
                table.constraints.push(ConstraintDef::Key { name: constraint, primary: true, clustered, columns });
            } else if self.word("UNIQUE") {
                let clustered = self.clustered();
                self.index_options()?;
                let columns = key(&column);
                table.constraints.push(ConstraintDef::Key { name: constraint, primary: false, clustered, columns });
            } else if self.word("CHECK") {
                let text = self.check_text()?;
                table.constraints.push(ConstraintDef::Check { name: constraint, text });
            } else if self.is_word("REFERENCES") || self.is_word("FOREIGN") {
                if self.word("FOREIGN") {
                    self.expect_word("KEY")?;
                }
                let columns = vec![column.name.clone()];
                let reference = self.references(constraint, columns)?;
                table.constraints.push(reference);
            } else if self.word("COLLATE") {
                column.collation = Some(self.identifier()?);
            } else if self.word("ROWGUIDCOL") || self.word("SPARSE") {
            } else if constraint.is_some() {
                return Err(self.syntax());
            } else {
                break;
            }
        }
        table.columns.push(column);
        Ok(())
    }

    pub(super) fn alter(&mut self, start: usize) -> Result<Stmt> {
        if self.word("TABLE") {
            return self.alter_table();
        }
        if self.word("PROCEDURE") || self.word("PROC") {
            return self.procedure(Define::Alter, start);
        }
        if self.word("TRIGGER") {
            return self.trigger(Define::Alter, start);
        }
        if self.word("VIEW") {
            return self.view(Define::Alter, start);
        }
        if self.word("DATABASE") {
            return self.alter_database();
        }
        if self.word("INDEX") || self.word("AUTHORIZATION") || self.word("ROLE") {
            while !self.is_symbol(";") && *self.peek() != Kind::End {
                self.advance();
            }
            return Ok(Stmt::Nothing);
        }
        Err(self.syntax())
    }

    fn alter_table(&mut self) -> Result<Stmt> {
        let name = self.name()?;
        let checked = self.is_word("WITH") && (self.is_word_at(1, "CHECK") || self.is_word_at(1, "NOCHECK"));
        if checked {
            self.at += 2;
        }
        let action = if self.word("ADD") {
            let mut table = TableDef { columns: Vec::new(), constraints: Vec::new() };
            loop {
                self.table_element(&mut table)?;
                if !self.symbol(",") {
                    break;
                }
            }
            AlterTable::Add(table)
        } else if self.word("DROP") {
            if self.word("CONSTRAINT") {
                let if_exists = self.words(&["IF", "EXISTS"]);
                AlterTable::DropConstraints { names: self.name_list()?, if_exists }
            } else {
                self.expect_word("COLUMN")?;
                let if_exists = self.words(&["IF", "EXISTS"]);
                AlterTable::DropColumns { names: self.name_list()?, if_exists }
            }
        } else if self.words(&["ALTER", "COLUMN"]) {
            let mut table = TableDef { columns: Vec::new(), constraints: Vec::new() };
            self.column_def(&mut table)?;
            match table.columns.pop() {
                Some(column) if table.constraints.is_empty() => AlterTable::AlterColumn(column),
                _ => return Err(self.syntax()),
            }
        } else if self.is_word("ENABLE") || self.is_word("DISABLE") {
            let enable = self.is_word("ENABLE");
            self.advance();
            if self.word("CHANGE_TRACKING") {
                if self.word("WITH") {
                    self.expect_symbol("(")?;
                    self.expect_word("TRACK_COLUMNS_UPDATED")?;
                    self.expect_symbol("=")?;
                    self.on_off()?;
                    self.expect_symbol(")")?;
                }
                AlterTable::ChangeTracking(enable)
            } else {
                self.expect_word("TRIGGER")?;
                let names = if self.word("ALL") { Vec::new() } else { self.name_list()? };
                AlterTable::Trigger { names, enable }
            }
        } else if self.is_word("CHECK") || self.is_word("NOCHECK") {
            let enable = self.is_word("CHECK");
            self.advance();
            self.expect_word("CONSTRAINT")?;
            let names = if self.word("ALL") { Vec::new() } else { self.name_list()? };
            AlterTable::Check { names, enable }
        } else if self.word("SET") {
            self.parentheses()?;
            AlterTable::Ignored
        } else if self.word("REBUILD") {
            AlterTable::Ignored
        } else {
            return Err(self.syntax());
        };
        Ok(Stmt::AlterTable { name, action })
    }

    fn alter_database(&mut self) -> Result<Stmt> {
        let name = if self.word("CURRENT") { None } else { Some(self.identifier()?) };
        self.expect_word("SET")?;
        let mut options = Vec::new();
        loop {
            let Kind::Word(option) = self.peek() else { return Err(self.syntax()) };
            let option = option.to_ascii_uppercase();
            self.advance();
            options.push(match option.as_str() {
                "CHANGE_TRACKING" => self.change_tracking_option()?,
                "ALLOW_SNAPSHOT_ISOLATION" => DatabaseOption::SnapshotIsolation(self.on_off()? == "ON"),
                "READ_COMMITTED_SNAPSHOT" => DatabaseOption::ReadCommittedSnapshot(self.on_off()? == "ON"),
                "RECURSIVE_TRIGGERS" => DatabaseOption::RecursiveTriggers(self.on_off()? == "ON"),
                _ => {
                    self.symbol("=");
                    self.advance();
                    DatabaseOption::Ignored
                }
            });
            if !self.symbol(",") {
                break;
            }
        }
        if self.word("WITH") {
            if !self.words(&["NO_WAIT"]) {
                self.expect_word("ROLLBACK")?;
                if !self.word("IMMEDIATE") {
                    self.expect_word("AFTER")?;
                    self.integer()?;
                    self.word("SECONDS");
                }
            }
        }
        Ok(Stmt::AlterDatabase { name, options })
    }

    fn change_tracking_option(&mut self) -> Result<DatabaseOption> {
        let mut on = None;
        if self.symbol("=") {
            on = Some(self.on_off()? == "ON");
        }
        let (mut retention, mut cleanup) = (None, None);
        if self.symbol("(") {
            loop {
                if self.word("CHANGE_RETENTION") {
                    self.expect_symbol("=")?;
                    let count = self.integer()?;
                    let units = match () {
                        () if self.word("MINUTES") => 1,
                        () if self.word("HOURS") => 2,
                        () if self.word("DAYS") => 3,
                        () => return Err(self.syntax()),
                    };
                    retention = Some((count, units));
                } else {
                    self.expect_word("AUTO_CLEANUP")?;
                    self.expect_symbol("=")?;
                    cleanup = Some(self.on_off()? == "ON");
                }
                if !self.symbol(",") {
                    break;
                }
            }
            self.expect_symbol(")")?;
        }
        Ok(DatabaseOption::ChangeTracking { on, retention, cleanup })
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
