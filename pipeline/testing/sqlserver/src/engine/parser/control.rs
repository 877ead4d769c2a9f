//! Statements, and those of control: blocks, IF, WHILE, TRY, variables, transactions, SET.

use super::super::ast::{Kind as Stmt, Statement};
use super::super::errors::{Result, fault, unsupported};
use super::super::lexer::Kind;
use super::Parser;
use super::query::assignment;
use std::sync::atomic::Ordering;

const STARTS: &[&str] = &[
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "WITH",
    "DECLARE",
    "SET",
    "IF",
    "WHILE",
    "BEGIN",
    "EXEC",
    "EXECUTE",
    "RETURN",
    "PRINT",
    "RAISERROR",
    "THROW",
    "COMMIT",
    "ROLLBACK",
    "SAVE",
    "CREATE",
    "ALTER",
    "DROP",
    "TRUNCATE",
    "USE",
    "BREAK",
    "CONTINUE",
    "WAITFOR",
    "ENABLE",
    "DISABLE",
    "GRANT",
    "DENY",
    "REVOKE",
    "CHECKPOINT",
    "DBCC",
    "END",
    "ELSE",
    "KILL",
    "BACKUP",
    "RESTORE",
    "OPEN",
    "CLOSE",
    "FETCH",
    "DEALLOCATE",
    "GOTO",
];

impl Parser<'_> {
    /// Whether a statement begins here; semicolons before it are skipped.
    pub(super) fn next_statement_follows(&mut self) -> bool {
        while self.symbol(";") {}
        *self.peek() != Kind::End && !self.is_word("END")
    }

    /// Whether the word here begins a statement.
    pub(super) fn statement_word(&self) -> bool {
        matches!(self.peek(), Kind::Word(word) if STARTS.iter().any(|start| start.eq_ignore_ascii_case(word)))
    }

    pub(super) fn statement(&mut self) -> Result<Statement> {
        while self.symbol(";") {}
        let line = self.line();
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let first = self.at == 0;
        let kind = self.deeper(|parser| parser.statement_kind(first)).map_err(|fault| fault.at(line))?;
        while self.symbol(";") {}
        Ok(Statement { id, line, kind })
    }

    fn statements_until_end(&mut self) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        while self.next_statement_follows() {
            statements.push(self.statement()?);
        }
        self.expect_word("END")?;
        Ok(statements)
    }

    // One arm for each word that a statement begins with.
    fn statement_kind(&mut self, first: bool) -> Result<Stmt> {
        let Kind::Word(word) = self.peek() else {
            // A name in brackets at the start of a batch is a procedure to call.
            if first && self.is_identifier() {
                return Ok(Stmt::Execute(Box::new(self.execute()?)));
            }
            if self.is_symbol("(") {
                return Ok(Stmt::Select(Box::new(self.query()?)));
            }
            return Err(self.syntax());
        };
        let word = word.to_ascii_uppercase();
        if word == "SELECT" {
            return Ok(Stmt::Select(Box::new(self.query()?)));
        }
        if word == "WITH" {
            self.advance();
            let ctes = self.ctes()?;
            return match () {
                () if self.word("INSERT") => self.insert(ctes),
                () if self.word("UPDATE") => self.update(ctes),
                () if self.word("DELETE") => self.delete(ctes),
                () if self.word("MERGE") => self.merge(ctes),
                () => Ok(Stmt::Select(Box::new(self.query_with(ctes)?))),
            };
        }
        let start = self.at;
        self.advance();
        match word.as_str() {
            "INSERT" => self.insert(Vec::new()),
            "UPDATE" => {
                if self.is_word("STATISTICS") {
                    self.advance();
                    self.name()?;
                    return Ok(Stmt::Nothing);
                }
                self.update(Vec::new())
            }
            "DELETE" => self.delete(Vec::new()),
            "MERGE" => self.merge(Vec::new()),
            "TRUNCATE" => {
                self.expect_word("TABLE")?;
                Ok(Stmt::Truncate(self.name()?))
            }
            "EXEC" | "EXECUTE" => Ok(Stmt::Execute(Box::new(self.execute()?))),
            "DECLARE" => self.declare(),
            "SET" => self.set(),
            "IF" => {
                let condition = self.condition()?;
                let then = Box::new(self.statement()?);
                let otherwise = if self.word("ELSE") { Some(Box::new(self.statement()?)) } else { None };
                Ok(Stmt::If { condition, then, otherwise })
            }
            "WHILE" => Ok(Stmt::While { condition: self.condition()?, body: Box::new(self.statement()?) }),
            "BREAK" => Ok(Stmt::Break),
            "CONTINUE" => Ok(Stmt::Continue),
            "RETURN" => {
                let value = matches!(self.peek(), Kind::Integer(_) | Kind::Variable(_) | Kind::Symbol("-" | "("))
                    || (matches!(self.peek(), Kind::Word(_)) && self.is_identifier() && !self.statement_word());
                Ok(Stmt::Return(if value { Some(self.expr()?) } else { None }))
            }
            "BEGIN" => self.begin(),
            "COMMIT" => {
                if !self.word("WORK") && (self.word("TRAN") || self.word("TRANSACTION")) {
                    self.transaction_name()?;
                }
                Ok(Stmt::Commit)
            }
            "ROLLBACK" => {
                let mut name = None;
                if !self.word("WORK") && (self.word("TRAN") || self.word("TRANSACTION")) {
                    name = self.transaction_name()?;
                }
                Ok(Stmt::Rollback { name })
            }
            "SAVE" => {
                if !self.word("TRAN") {
                    self.expect_word("TRANSACTION")?;
                }
                match self.transaction_name()? {
                    Some(name) => Ok(Stmt::Save(name)),
                    None => Err(self.syntax()),
                }
            }
            "THROW" => {
                if self.is_symbol(";") || *self.peek() == Kind::End || self.statement_word() {
                    return Ok(Stmt::Throw(None));
                }
                let number = self.expr()?;
                self.expect_symbol(",")?;
                let message = self.expr()?;
                self.expect_symbol(",")?;
                let state = self.expr()?;
                Ok(Stmt::Throw(Some((number, message, state))))
            }
            "RAISERROR" => {
                self.expect_symbol("(")?;
                let message = self.expr()?;
                self.expect_symbol(",")?;
                let severity = self.expr()?;
                self.expect_symbol(",")?;
                let state = self.expr()?;
                let mut args = Vec::new();
                while self.symbol(",") {
                    args.push(self.expr()?);
                }
                self.expect_symbol(")")?;
                if self.word("WITH") {
                    self.name_list()?;
                }
                Ok(Stmt::RaiseError { message, severity, state, args })
            }
            "PRINT" => Ok(Stmt::Print(self.expr()?)),
            "WAITFOR" => {
                self.expect_word("DELAY")?;
                Ok(Stmt::WaitFor(self.expr()?))
            }
            "USE" => Ok(Stmt::Use(self.identifier()?)),
            "CREATE" => self.create(),
            "ALTER" => self.alter(),
            "DROP" => self.drop(),
            "ENABLE" | "DISABLE" => self.enable_trigger(word == "ENABLE"),
            "GRANT" | "DENY" | "REVOKE" => {
                while !self.is_symbol(";") && *self.peek() != Kind::End {
                    self.advance();
                }
                Ok(Stmt::Nothing)
            }
            "CHECKPOINT" => Ok(Stmt::Nothing),
            "DBCC" | "KILL" | "BACKUP" | "RESTORE" | "OPEN" | "CLOSE" | "FETCH" | "DEALLOCATE" | "GOTO" => {
                Err(unsupported(format!("the statement {word}")))
            }
            _ if first => {
                self.at = start;
                Ok(Stmt::Execute(Box::new(self.execute()?)))
            }
            _ => {
                self.at = start;
                Err(self.syntax())
            }
        }
    }

    fn transaction_name(&mut self) -> Result<Option<String>> {
        if self.is_variable() {
            return self.variable().map(Some);
        }
        if self.is_identifier() && !self.statement_word() {
            return self.identifier().map(Some);
        }
        Ok(None)
    }

    fn begin(&mut self) -> Result<Stmt> {
        if self.word("TRAN") || self.word("TRANSACTION") {
            let name = self.transaction_name()?;
            return Ok(Stmt::Begin { name });
        }
        if self.is_word("TRY") {
            self.advance();
            let body = self.statements_until_end()?;
            self.expect_word("TRY")?;
            while self.symbol(";") {}
            self.expect_word("BEGIN")?;
            self.expect_word("CATCH")?;
            let handler = self.statements_until_end()?;
            self.expect_word("CATCH")?;
            return Ok(Stmt::Try { body, handler });
        }
        let line = self.line();
        let body = self.statements_until_end()?;
        if body.is_empty() {
            return Err(self.syntax().at(line));
        }
        Ok(Stmt::Block(body))
    }

    fn declare(&mut self) -> Result<Stmt> {
        let mut list = Vec::new();
        loop {
            let name = self.variable()?;
            self.word("AS");
            if self.word("TABLE") {
                let table = self.table_def()?;
                return Ok(Stmt::DeclareTable(name, table));
            }
            if self.is_word("CURSOR") {
                return Err(unsupported("cursors").at(self.line()));
            }
            let sql_type = self.type_name()?;
            let value = if self.symbol("=") { Some(self.expr()?) } else { None };
            list.push((name, sql_type, value));
            if !self.symbol(",") {
                return Ok(Stmt::Declare(list));
            }
        }
    }

    fn set(&mut self) -> Result<Stmt> {
        if self.is_variable() {
            let name = self.variable()?;
            let Kind::Symbol(symbol) = self.peek() else { return Err(self.syntax()) };
            let Some(op) = assignment(symbol) else { return Err(self.syntax()) };
            self.advance();
            return Ok(Stmt::SetVariable { name, op, expr: self.expr()? });
        }
        if self.word("TRANSACTION") {
            self.expect_word("ISOLATION")?;
            self.expect_word("LEVEL")?;
            let level = match () {
                () if self.words(&["READ", "UNCOMMITTED"]) => 1,
                () if self.words(&["READ", "COMMITTED"]) => 2,
                () if self.words(&["REPEATABLE", "READ"]) => 3,
                () if self.word("SERIALIZABLE") => 4,
                () if self.word("SNAPSHOT") => 5,
                () => return Err(self.syntax()),
            };
            return Ok(Stmt::SetIsolation(level));
        }
        if self.word("LOCK_TIMEOUT") {
            return Ok(Stmt::SetLockTimeout(self.expr()?));
        }
        if self.word("CONTEXT_INFO") {
            return Ok(Stmt::SetContext(self.expr()?));
        }
        if self.word("IDENTITY_INSERT") {
            let table = self.name()?;
            let on = self.on_off()?;
            return Ok(Stmt::SetOption(vec![format!("IDENTITY_INSERT {table}")], on));
        }
        if self.word("STATISTICS") {
            self.name_list()?;
            self.on_off()?;
            return Ok(Stmt::Nothing);
        }
        let mut names = Vec::new();
        loop {
            let name = match self.peek() {
                Kind::Word(word) => word.to_ascii_uppercase(),
                _ => return Err(self.syntax()),
            };
            const KNOWN: &[&str] = &[
                "NOCOUNT",
                "XACT_ABORT",
                "QUOTED_IDENTIFIER",
                "ANSI_NULLS",
                "ANSI_WARNINGS",
                "ANSI_PADDING",
                "ANSI_NULL_DFLT_ON",
                "ANSI_NULL_DFLT_OFF",
                "ANSI_DEFAULTS",
                "ARITHABORT",
                "ARITHIGNORE",
                "CONCAT_NULL_YIELDS_NULL",
                "CURSOR_CLOSE_ON_COMMIT",
                "IMPLICIT_TRANSACTIONS",
                "NUMERIC_ROUNDABORT",
                "TEXTSIZE",
                "LANGUAGE",
                "DATEFORMAT",
                "DATEFIRST",
                "ROWCOUNT",
                "DEADLOCK_PRIORITY",
                "FMTONLY",
                "NOEXEC",
                "PARSEONLY",
                "FORCEPLAN",
                "REMOTE_PROC_TRANSACTIONS",
                "SHOWPLAN_ALL",
                "SHOWPLAN_TEXT",
                "SHOWPLAN_XML",
            ];
            if !KNOWN.contains(&name.as_str()) {
                return Err(fault(195, 15, format!("'{name}' is not a recognized SET option.")).at(self.line()));
            }
            self.advance();
            names.push(name);
            if !self.symbol(",") {
                break;
            }
        }
        let value = match self.peek().clone() {
            Kind::Word(word) => word.to_ascii_uppercase(),
            Kind::Integer(digits) => digits,
            Kind::Text { text, .. } => text,
            Kind::Variable(name) => name,
            Kind::Symbol("-") => {
                self.advance();
                "-".to_owned()
            }
            _ => return Err(self.syntax()),
        };
        self.advance();
        Ok(Stmt::SetOption(names, value))
    }

    pub(super) fn on_off(&mut self) -> Result<String> {
        if self.word("ON") {
            Ok("ON".to_owned())
        } else {
            self.expect_word("OFF")?;
            Ok("OFF".to_owned())
        }
    }
}
