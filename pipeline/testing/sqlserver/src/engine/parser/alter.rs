//! ALTER of tables and of the database.

use super::super::ast::{AlterTable, DatabaseOption, Define, Kind as Stmt, TableDef};
use super::super::errors::Result;
use super::super::lexer::Kind;
use super::Parser;

impl Parser<'_> {
    pub(super) fn alter(&mut self) -> Result<Stmt> {
        if self.word("TABLE") {
            return self.alter_table();
        }
        if self.word("PROCEDURE") || self.word("PROC") {
            return self.procedure(Define::Alter);
        }
        if self.word("TRIGGER") {
            return self.trigger(Define::Alter);
        }
        if self.word("VIEW") {
            return self.view(Define::Alter);
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

    pub(super) fn alter_table(&mut self) -> Result<Stmt> {
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

    pub(super) fn alter_database(&mut self) -> Result<Stmt> {
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
        if self.word("WITH") && !self.words(&["NO_WAIT"]) {
            self.expect_word("ROLLBACK")?;
            if !self.word("IMMEDIATE") {
                self.expect_word("AFTER")?;
                self.integer()?;
                self.word("SECONDS");
            }
        }
        Ok(Stmt::AlterDatabase { name, options })
    }

    pub(super) fn change_tracking_option(&mut self) -> Result<DatabaseOption> {
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
}
