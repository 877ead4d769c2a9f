//! Columns and constraints.

use super::super::ast::{ColumnDef, ConstraintDef, TableDef};
use super::super::errors::{Result, unsupported};
use super::Parser;

impl Parser<'_> {
    /// `(a, b DESC)`: names, and whether they descend.
    pub(super) fn key_columns(&mut self) -> Result<Vec<(String, bool)>> {
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

    pub(super) fn table_element(&mut self, table: &mut TableDef) -> Result<()> {
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

    pub(super) fn clustered(&mut self) -> Option<bool> {
        if self.word("CLUSTERED") { Some(true) } else { self.word("NONCLUSTERED").then_some(false) }
    }

    pub(super) fn index_options(&mut self) -> Result<()> {
        if self.is_word("WITH") && self.is_symbol_at(1, "(") {
            self.advance();
            self.parentheses()?;
        }
        if self.word("ON") {
            self.identifier()?;
        }
        Ok(())
    }

    pub(super) fn check_text(&mut self) -> Result<String> {
        self.words(&["NOT", "FOR", "REPLICATION"]);
        self.expect_symbol("(")?;
        let from = self.at;
        self.condition()?;
        let text = self.text_between(from, self.at);
        self.expect_symbol(")")?;
        Ok(text)
    }

    pub(super) fn default_text(&mut self) -> Result<String> {
        let from = self.at;
        self.expr()?;
        Ok(self.text_between(from, self.at))
    }

    pub(super) fn references(&mut self, name: Option<String>, columns: Vec<String>) -> Result<ConstraintDef> {
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

    pub(super) fn column_def(&mut self, table: &mut TableDef) -> Result<()> {
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
}
