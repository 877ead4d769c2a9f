//! SELECT and what it is made of.

use super::super::ast::{Arithmetic, Cte, Expr, Item, Name, Query, Select, SetExpr};
use super::super::errors::Result;
use super::super::lexer::Kind;
use super::Parser;

impl Parser<'_> {
    /// `WITH a AS (...), b (x) AS (...)`; the word WITH is taken.
    pub(super) fn ctes(&mut self) -> Result<Vec<Cte>> {
        let mut ctes = Vec::new();
        loop {
            let name = self.identifier()?;
            let mut columns = Vec::new();
            if self.symbol("(") {
                columns = self.name_list()?;
                self.expect_symbol(")")?;
            }
            self.expect_word("AS")?;
            self.expect_symbol("(")?;
            let query = self.query()?;
            self.expect_symbol(")")?;
            ctes.push(Cte { name, columns, query });
            if !self.symbol(",") {
                return Ok(ctes);
            }
        }
    }

    pub(super) fn query(&mut self) -> Result<Query> {
        let ctes = if self.word("WITH") { self.ctes()? } else { Vec::new() };
        self.query_with(ctes)
    }

    pub(super) fn query_with(&mut self, ctes: Vec<Cte>) -> Result<Query> {
        let body = self.deeper(Self::set_expr)?;
        let mut query = Query { ctes, body, order: Vec::new(), offset: None, fetch: None };
        if self.is_word("ORDER") && self.is_word_at(1, "BY") {
            self.at += 2;
            query.order = self.order_list()?;
            if self.word("OFFSET") {
                query.offset = Some(self.expr()?);
                if !self.word("ROWS") {
                    self.expect_word("ROW")?;
                }
                if self.word("FETCH") {
                    if !self.word("NEXT") {
                        self.expect_word("FIRST")?;
                    }
                    query.fetch = Some(self.expr()?);
                    if !self.word("ROWS") {
                        self.expect_word("ROW")?;
                    }
                    self.expect_word("ONLY")?;
                }
            }
        }
        if self.is_word("OPTION") && self.is_symbol_at(1, "(") {
            self.at += 1;
            self.parentheses()?;
        }
        Ok(query)
    }

    /// Skips what is in parentheses.
    pub(super) fn parentheses(&mut self) -> Result<()> {
        self.expect_symbol("(")?;
        let mut depth = 1;
        while depth > 0 {
            match self.peek() {
                Kind::Symbol("(") => depth += 1,
                Kind::Symbol(")") => depth -= 1,
                Kind::End => return Err(self.syntax()),
                _ => {}
            }
            self.advance();
        }
        Ok(())
    }

    fn set_expr(&mut self) -> Result<SetExpr> {
        let mut left = self.set_intersect()?;
        loop {
            let op = if self.word("UNION") {
                if self.word("ALL") { "UNION ALL" } else { "UNION" }
            } else if self.word("EXCEPT") {
                "EXCEPT"
            } else {
                return Ok(left);
            };
            left = SetExpr::Operation { op, left: Box::new(left), right: Box::new(self.set_intersect()?) };
        }
    }

    fn set_intersect(&mut self) -> Result<SetExpr> {
        let mut left = self.set_primary()?;
        while self.word("INTERSECT") {
            left = SetExpr::Operation { op: "INTERSECT", left: Box::new(left), right: Box::new(self.set_primary()?) };
        }
        Ok(left)
    }

    fn set_primary(&mut self) -> Result<SetExpr> {
        if self.symbol("(") {
            let query = self.query()?;
            self.expect_symbol(")")?;
            return Ok(SetExpr::Nested(Box::new(query)));
        }
        if self.word("VALUES") {
            return self.values().map(SetExpr::Values);
        }
        self.expect_word("SELECT")?;
        self.select().map(|select| SetExpr::Select(Box::new(select)))
    }

    fn values(&mut self) -> Result<Vec<Vec<Expr>>> {
        let mut rows = Vec::new();
        loop {
            self.expect_symbol("(")?;
            rows.push(self.expr_list()?);
            self.expect_symbol(")")?;
            if !self.symbol(",") {
                return Ok(rows);
            }
        }
    }

    /// `TOP (n)` or `TOP n`; none when it is not here.
    pub(super) fn top(&mut self) -> Result<Option<Expr>> {
        if !self.word("TOP") {
            return Ok(None);
        }
        let count = if self.symbol("(") {
            let count = self.expr()?;
            self.expect_symbol(")")?;
            count
        } else {
            match self.peek() {
                Kind::Integer(digits) => {
                    let digits = digits.clone();
                    self.advance();
                    Expr::Integer(digits)
                }
                _ => return Err(self.syntax()),
            }
        };
        if self.is_word("PERCENT") || (self.is_word("WITH") && self.is_word_at(1, "TIES")) {
            return Err(super::super::errors::unsupported("TOP .. PERCENT and TOP .. WITH TIES").at(self.line()));
        }
        Ok(Some(count))
    }

    /// Behind the word SELECT.
    fn select(&mut self) -> Result<Select> {
        let distinct = self.word("DISTINCT");
        if !distinct {
            self.word("ALL");
        }
        let top = self.top()?;
        let items = self.items()?;
        let into = if self.word("INTO") { Some(self.name()?) } else { None };
        let from = if self.word("FROM") { self.sources()? } else { Vec::new() };
        let filter = if self.word("WHERE") { Some(self.condition()?) } else { None };
        let mut group = Vec::new();
        if self.is_word("GROUP") && self.is_word_at(1, "BY") {
            self.at += 2;
            group = self.expr_list()?;
        }
        let having = if self.word("HAVING") { Some(self.condition()?) } else { None };
        Ok(Select { distinct, top, items, into, from, filter, group, having })
    }

    pub(super) fn items(&mut self) -> Result<Vec<Item>> {
        let mut items = vec![self.item()?];
        while self.symbol(",") {
            items.push(self.item()?);
        }
        Ok(items)
    }

    fn item(&mut self) -> Result<Item> {
        if self.symbol("*") {
            return Ok(Item::Star);
        }
        // `alias = expression`
        if self.is_identifier() && self.is_symbol_at(1, "=") {
            let alias = self.identifier()?;
            self.advance();
            return Ok(Item::Expr { expr: self.expr()?, alias: Some(alias) });
        }
        if self.is_variable()
            && let Kind::Symbol(symbol) = self.peek_at(1)
            && let Some(op) = assignment(symbol)
        {
            let variable = self.variable()?;
            self.advance();
            return Ok(Item::Assign { variable, op, expr: self.expr()? });
        }
        // `t.*`, `inserted.*`
        if self.is_identifier() {
            let mut ahead = 1;
            while self.is_symbol_at(ahead, ".") && !self.is_symbol_at(ahead + 1, "*") {
                ahead += 2;
            }
            if self.is_symbol_at(ahead, ".") && self.is_symbol_at(ahead + 1, "*") {
                let mut parts = vec![self.identifier()?];
                while self.symbol(".") {
                    if self.symbol("*") {
                        return Ok(Item::QualifiedStar(Name(parts)));
                    }
                    parts.push(self.identifier()?);
                }
            }
        }
        let expr = self.expr()?;
        Ok(Item::Expr { expr, alias: self.alias()? })
    }
}

/// The operator of `=`, `+=` and so on; none when the symbol assigns nothing.
pub(super) fn assignment(symbol: &str) -> Option<Option<Arithmetic>> {
    Some(match symbol {
        "=" => None,
        "+=" => Some(Arithmetic::Add),
        "-=" => Some(Arithmetic::Subtract),
        "*=" => Some(Arithmetic::Multiply),
        "/=" => Some(Arithmetic::Divide),
        "%=" => Some(Arithmetic::Modulo),
        "&=" => Some(Arithmetic::And),
        "|=" => Some(Arithmetic::Or),
        "^=" => Some(Arithmetic::Xor),
        _ => return None,
    })
}
