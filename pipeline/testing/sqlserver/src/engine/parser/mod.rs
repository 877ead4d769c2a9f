//! A parser of T-SQL: of what the product sends and what people type, and of nothing that SQL Server would refuse.
//!
//! It is written by hand because T-SQL ends no statement with a semicolon, and because the words that decide here
//! (OUTPUT, hints, CHANGETABLE, THROW, CHANGE_TRACKING) are the ones that general parsers lack. The tests hold the
//! product's statements against `sqlparser`'s T-SQL dialect as a second opinion.

mod alter;
mod control;
mod ddl;
mod dml;
mod expr;
mod from;
mod query;
mod tables;
mod words;

use super::ast::{Batch, Name, TypeName};
use super::errors::{Fault, Result, fault, syntax};
use super::lexer::{Kind, Token, tokens};
use super::types;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use words::{NOT_ALIASES, reserved};

pub(crate) struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    at: usize,
    ids: &'t AtomicU64,
    depth: u32,
}

/// Parses a batch.
pub(crate) fn parse(text: &str, ids: &AtomicU64) -> Result<Batch> {
    let mut parser = Parser::new(text, ids)?;
    let mut statements = Vec::new();
    while parser.next_statement_follows() {
        statements.push(parser.statement()?);
    }
    if *parser.peek() != Kind::End {
        return Err(parser.syntax());
    }
    Ok(Arc::new(statements))
}

/// Parses an expression alone: a default or a check, as the catalogue keeps it.
pub(crate) fn parse_expr(text: &str, ids: &AtomicU64) -> Result<super::ast::Expr> {
    let mut parser = Parser::new(text, ids)?;
    parser.condition()
}

/// Parses a query alone: a view.
pub(crate) fn parse_query(text: &str, ids: &AtomicU64) -> Result<super::ast::Query> {
    let mut parser = Parser::new(text, ids)?;
    parser.query()
}

/// Parses a name of one to four parts.
pub(crate) fn parse_name(text: &str) -> Option<Name> {
    let ids = AtomicU64::new(0);
    let mut parser = Parser::new(text, &ids).ok()?;
    let name = parser.name().ok()?;
    (*parser.peek() == Kind::End).then_some(name)
}

/// Parses a list of parameters, as `sp_executesql` declares them.
pub(crate) fn parse_parameters(text: &str, ids: &AtomicU64) -> Result<Vec<super::ast::ParameterDef>> {
    let mut parser = Parser::new(text, ids)?;
    parser.parameter_list()
}

/// The table and columns of `INSERT BULK`, and its options in upper case.
pub(crate) type InsertBulk = (Name, Vec<(String, TypeName)>, Vec<String>);

/// Parses `INSERT BULK`, which is no statement of a batch.
pub(crate) fn parse_insert_bulk(text: &str) -> Result<InsertBulk> {
    let ids = AtomicU64::new(0);
    let mut parser = Parser::new(text, &ids)?;
    parser.expect_word("INSERT")?;
    parser.expect_word("BULK")?;
    let table = parser.name()?;
    let mut columns = Vec::new();
    if parser.symbol("(") {
        loop {
            let name = parser.identifier()?;
            let sql_type = parser.type_name()?;
            if parser.word("COLLATE") {
                parser.identifier()?;
            }
            if parser.word("NOT") {
                parser.expect_word("NULL")?;
            } else {
                parser.word("NULL");
            }
            columns.push((name, sql_type));
            if !parser.symbol(",") {
                break;
            }
        }
        parser.expect_symbol(")")?;
    }
    let mut options = Vec::new();
    if parser.word("WITH") {
        while *parser.peek() != Kind::End {
            if let Kind::Word(word) = parser.peek() {
                options.push(word.to_ascii_uppercase());
            }
            parser.at += 1;
        }
    }
    Ok((table, columns, options))
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, ids: &'t AtomicU64) -> Result<Self> {
        Ok(Self { text, tokens: tokens(text)?, at: 0, ids, depth: 0 })
    }

    fn peek(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    fn peek_at(&self, ahead: usize) -> &Kind {
        &self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].kind
    }

    fn line(&self) -> u32 {
        self.tokens[self.at].line
    }

    fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    /// The error that SQL Server gives for the token here: 156 for a keyword, 102 for anything else.
    fn syntax(&self) -> Box<Fault> {
        let token = &self.tokens[self.at];
        let near = match &token.kind {
            Kind::End => match self.at.checked_sub(1).map(|at| &self.tokens[at]) {
                Some(last) => &self.text[last.start..last.end],
                None => "",
            },
            Kind::Text { text, .. } | Kind::Quoted(text) => text,
            _ => &self.text[token.start..token.end],
        };
        match &token.kind {
            Kind::Word(word) if reserved(word) => {
                fault(156, 15, format!("Incorrect syntax near the keyword '{word}'.")).at(token.line)
            }
            _ => syntax(near).at(token.line),
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Kind::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Kind::Word(found) if found.eq_ignore_ascii_case(word))
    }

    /// Takes the word when it is here.
    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(ahead, word)| self.is_word_at(ahead, word));
        if found {
            self.at += words.len();
        }
        found
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.word(word) { Ok(()) } else { Err(self.syntax()) }
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Kind::Symbol(found) if *found == symbol)
    }

    fn is_symbol_at(&self, ahead: usize, symbol: &str) -> bool {
        matches!(self.peek_at(ahead), Kind::Symbol(found) if *found == symbol)
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<()> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.syntax()) }
    }

    fn is_identifier(&self) -> bool {
        match self.peek() {
            Kind::Word(word) => !reserved(word),
            Kind::Quoted(_) => true,
            _ => false,
        }
    }

    fn identifier(&mut self) -> Result<String> {
        let name = match self.peek() {
            Kind::Word(word) if !reserved(word) => word.clone(),
            Kind::Quoted(name) if !name.is_empty() => name.clone(),
            _ => return Err(self.syntax()),
        };
        if name.chars().count() > 128 {
            let start: String = name.chars().take(128).collect();
            return Err(fault(
                103,
                15,
                format!("The identifier that starts with '{start}' is too long. Maximum length is 128."),
            )
            .at(self.line()));
        }
        self.advance();
        Ok(name)
    }

    /// A name of one to four parts; `db..table` leaves the schema empty.
    fn name(&mut self) -> Result<Name> {
        let mut parts = vec![self.identifier()?];
        while self.symbol(".") {
            if self.is_symbol(".") {
                parts.push(String::new());
                continue;
            }
            // A column may be named like a keyword behind a dot only when quoted.
            parts.push(self.identifier()?);
        }
        Ok(Name(parts))
    }

    fn variable(&mut self) -> Result<String> {
        match self.peek() {
            Kind::Variable(name) if !name.starts_with("@@") => {
                let name = name.to_lowercase();
                self.advance();
                Ok(name)
            }
            _ => Err(self.syntax()),
        }
    }

    fn is_variable(&self) -> bool {
        matches!(self.peek(), Kind::Variable(name) if !name.starts_with("@@"))
    }

    /// `AS alias`, or an alias alone.
    fn alias(&mut self) -> Result<Option<String>> {
        if self.word("AS") {
            if let Kind::Text { text, .. } = self.peek() {
                let text = text.clone();
                self.advance();
                return Ok(Some(text));
            }
            return self.identifier().map(Some);
        }
        let follows = match self.peek() {
            Kind::Word(word) => !reserved(word) && !NOT_ALIASES.iter().any(|other| other.eq_ignore_ascii_case(word)),
            Kind::Quoted(_) => true,
            _ => false,
        };
        if follows { self.identifier().map(Some) } else { Ok(None) }
    }

    fn name_list(&mut self) -> Result<Vec<String>> {
        let mut names = vec![self.identifier()?];
        while self.symbol(",") {
            names.push(self.identifier()?);
        }
        Ok(names)
    }

    fn integer(&mut self) -> Result<i64> {
        let negative = self.symbol("-");
        let Kind::Integer(digits) = self.peek() else { return Err(self.syntax()) };
        let Ok(number) = digits.parse::<i64>() else { return Err(self.syntax()) };
        self.advance();
        Ok(if negative { -number } else { number })
    }

    fn type_name(&mut self) -> Result<TypeName> {
        let line = self.line();
        let mut name = if self.word("DOUBLE") {
            self.expect_word("PRECISION")?;
            Name(vec!["float".to_owned()])
        } else if self.word("NATIONAL") {
            Name(vec![format!("n{}", self.identifier()?)])
        } else {
            self.name()?
        };
        if name.0.len() == 2 && name.0[0].eq_ignore_ascii_case("sys") {
            name.0.remove(0);
        }
        if name.last().eq_ignore_ascii_case("character")
            || name.last().eq_ignore_ascii_case("nchar") && self.is_word("VARYING")
        {
            let national = name.last().eq_ignore_ascii_case("nchar");
            let varying = self.word("VARYING");
            let text = if varying { "varchar" } else { "char" };
            name = Name(vec![if national { format!("n{text}") } else { text.to_owned() }]);
        }
        let mut arguments = Vec::new();
        let mut max = false;
        if self.symbol("(") {
            if self.word("max") {
                max = true;
            } else {
                arguments.push(self.integer()?);
                if self.symbol(",") {
                    arguments.push(self.integer()?);
                }
            }
            self.expect_symbol(")")?;
        }
        if name.0.len() > 1 {
            return Ok(TypeName::Named(name));
        }
        match types::by_name(name.last(), &arguments, max).map_err(|fault| fault.at(line))? {
            Some(sql_type) => Ok(TypeName::Known(sql_type)),
            None => Ok(TypeName::Named(name)),
        }
    }

    /// The text between two places of the tokens.
    fn text_between(&self, from: usize, to: usize) -> String {
        if to <= from {
            return String::new();
        }
        self.text[self.tokens[from].start..self.tokens[to - 1].end].to_owned()
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > 100 {
            return Err(fault(
                191,
                15,
                "Some part of your SQL statement is nested too deeply. Rewrite the query or break it up into smaller queries.",
            ));
        }
        let out = parse(self);
        self.depth -= 1;
        out
    }
}
