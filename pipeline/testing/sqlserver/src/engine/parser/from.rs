//! FROM: tables, hints, joins, CHANGETABLE.

use super::super::ast::{From, JoinKind};
use super::super::errors::Result;
use super::super::lexer::Kind;
use super::Parser;

pub(super) const HINTS: &[&str] = &[
    "NOLOCK",
    "HOLDLOCK",
    "UPDLOCK",
    "XLOCK",
    "ROWLOCK",
    "PAGLOCK",
    "TABLOCK",
    "TABLOCKX",
    "READPAST",
    "READUNCOMMITTED",
    "READCOMMITTED",
    "READCOMMITTEDLOCK",
    "REPEATABLEREAD",
    "SERIALIZABLE",
    "SNAPSHOT",
    "NOWAIT",
    "NOEXPAND",
    "FORCESEEK",
    "FORCESCAN",
    "KEEPIDENTITY",
    "KEEPDEFAULTS",
    "IGNORE_CONSTRAINTS",
    "IGNORE_TRIGGERS",
    "INDEX",
];

impl Parser<'_> {
    pub(super) fn sources(&mut self) -> Result<Vec<From>> {
        let mut list = vec![self.joined()?];
        while self.symbol(",") {
            list.push(self.joined()?);
        }
        Ok(list)
    }

    pub(super) fn join_kind(&mut self) -> Option<JoinKind> {
        let hint = ["LOOP", "HASH", "MERGE", "REMOTE"];
        for (words, kind) in [
            (&["CROSS", "JOIN"][..], JoinKind::Cross),
            (&["CROSS", "APPLY"], JoinKind::CrossApply),
            (&["OUTER", "APPLY"], JoinKind::OuterApply),
            (&["JOIN"], JoinKind::Inner),
        ] {
            if self.words(words) {
                return Some(kind);
            }
        }
        for (word, kind) in
            [("INNER", JoinKind::Inner), ("LEFT", JoinKind::Left), ("RIGHT", JoinKind::Right), ("FULL", JoinKind::Full)]
        {
            if !self.is_word(word) {
                continue;
            }
            let mut ahead = 1;
            if self.is_word_at(ahead, "OUTER") && kind != JoinKind::Inner {
                ahead += 1;
            }
            if hint.iter().any(|hint| self.is_word_at(ahead, hint)) {
                ahead += 1;
            }
            if self.is_word_at(ahead, "JOIN") {
                self.at += ahead + 1;
                return Some(kind);
            }
        }
        None
    }

    pub(super) fn joined(&mut self) -> Result<From> {
        let mut left = self.source()?;
        while let Some(kind) = self.join_kind() {
            let right = if matches!(kind, JoinKind::CrossApply | JoinKind::OuterApply | JoinKind::Cross) {
                self.source()?
            } else {
                self.joined_until_on()?
            };
            let on = if matches!(kind, JoinKind::Cross | JoinKind::CrossApply | JoinKind::OuterApply) {
                None
            } else {
                self.expect_word("ON")?;
                Some(self.condition()?)
            };
            left = From::Join { kind, left: Box::new(left), right: Box::new(right), on };
        }
        Ok(left)
    }

    /// The right side of a join, which may itself be joined before its ON: `a JOIN b JOIN c ON .. ON ..`.
    pub(super) fn joined_until_on(&mut self) -> Result<From> {
        let source = self.source()?;
        if self.is_word("ON") {
            return Ok(source);
        }
        let mut left = source;
        while let Some(kind) = self.join_kind() {
            let right = self.joined_until_on()?;
            let on = if kind == JoinKind::Cross {
                None
            } else {
                self.expect_word("ON")?;
                Some(self.condition()?)
            };
            left = From::Join { kind, left: Box::new(left), right: Box::new(right), on };
        }
        Ok(left)
    }

    pub(super) fn source(&mut self) -> Result<From> {
        if self.is_variable() {
            let name = self.variable()?;
            let alias = self.alias()?;
            self.hints()?;
            return Ok(From::Variable { name, alias });
        }
        if self.symbol("(") {
            if self.is_word("SELECT") || self.is_word("VALUES") || self.is_word("WITH") || self.is_symbol("(") {
                let before = self.at;
                if let Ok(query) = self.query()
                    && self.symbol(")")
                {
                    let Some(alias) = self.alias()? else { return Err(self.syntax()) };
                    let columns = self.alias_columns()?;
                    return Ok(From::Derived { query: Box::new(query), alias, columns });
                }
                self.at = before;
                if !self.is_symbol("(") {
                    // Again, for its error.
                    self.query()?;
                    self.expect_symbol(")")?;
                }
            }
            let inner = self.joined()?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        if self.is_word("CHANGETABLE") && self.is_symbol_at(1, "(") {
            return self.change_table();
        }
        let name = self.name()?;
        if self.is_symbol("(") && !self.hint_in_parentheses() {
            self.advance();
            let args = if self.is_symbol(")") { Vec::new() } else { self.expr_list()? };
            self.expect_symbol(")")?;
            let alias = self.alias()?;
            let columns = self.alias_columns()?;
            return Ok(From::Function { name, args, alias, columns });
        }
        let alias = self.alias()?;
        let hints = self.hints()?;
        Ok(From::Table { name, alias, hints })
    }

    pub(super) fn hint_in_parentheses(&self) -> bool {
        matches!(self.peek_at(1), Kind::Word(word) if HINTS.contains(&word.to_ascii_uppercase().as_str()))
            && self.is_symbol_at(2, ")")
    }

    pub(super) fn alias_columns(&mut self) -> Result<Vec<String>> {
        if !self.symbol("(") {
            return Ok(Vec::new());
        }
        let names = self.name_list()?;
        self.expect_symbol(")")?;
        Ok(names)
    }

    /// `WITH (UPDLOCK, HOLDLOCK)`, in upper case.
    pub(super) fn hints(&mut self) -> Result<Vec<String>> {
        let mut hints = Vec::new();
        if (self.is_word("WITH") && self.is_symbol_at(1, "(")) || (self.is_symbol("(") && self.hint_in_parentheses()) {
            self.word("WITH");
            self.expect_symbol("(")?;
            loop {
                let Kind::Word(word) = self.peek() else { return Err(self.syntax()) };
                let word = word.to_ascii_uppercase();
                if !HINTS.contains(&word.as_str()) {
                    return Err(super::super::errors::fault(
                        321,
                        15,
                        format!("\"{word}\" is not a recognized table hints option."),
                    )
                    .at(self.line()));
                }
                self.advance();
                if self.is_symbol("(") {
                    self.parentheses()?;
                } else if self.symbol("=") {
                    self.advance();
                }
                hints.push(word);
                if !self.symbol(",") && self.is_symbol(")") {
                    break;
                }
            }
            self.expect_symbol(")")?;
        }
        Ok(hints)
    }

    pub(super) fn change_table(&mut self) -> Result<From> {
        self.at += 2;
        let changes = self.is_word("CHANGES");
        if !changes && !self.is_word("VERSION") {
            return Err(self.syntax());
        }
        self.advance();
        let table = self.name()?;
        self.expect_symbol(",")?;
        if changes {
            let since = self.expr()?;
            if self.symbol(",") {
                self.expect_word("FORCESEEK")?;
            }
            self.expect_symbol(")")?;
            let alias = self.alias()?;
            let columns = self.alias_columns()?;
            return Ok(From::Changes { table, since, alias, columns });
        }
        self.expect_symbol("(")?;
        let keys = self.name_list()?;
        self.expect_symbol(")")?;
        self.expect_symbol(",")?;
        self.expect_symbol("(")?;
        let values = self.expr_list()?;
        self.expect_symbol(")")?;
        self.expect_symbol(")")?;
        let alias = self.alias()?;
        let columns = self.alias_columns()?;
        Ok(From::Version { table, keys, values, alias, columns })
    }
}
