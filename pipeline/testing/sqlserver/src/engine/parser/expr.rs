//! Expressions and conditions.

use super::super::ast::{Arithmetic, Expr, Order, TypeName, Window};
use super::super::errors::Result;
use super::super::lexer::Kind;
use super::{Parser, reserved};

const COMPARISONS: &[(&str, &str)] = &[
    ("=", "="),
    ("<>", "<>"),
    ("!=", "<>"),
    ("<=", "<="),
    (">=", ">="),
    ("<", "<"),
    (">", ">"),
    ("!<", ">="),
    ("!>", "<="),
];

/// Reserved words that are functions without or with parentheses.
const BARE_FUNCTIONS: &[&str] =
    &["CURRENT_TIMESTAMP", "CURRENT_USER", "SESSION_USER", "SYSTEM_USER", "USER", "CURRENT_DATE"];

impl Parser<'_> {
    /// A condition or an expression: which of the two is checked where names are bound.
    pub(super) fn condition(&mut self) -> Result<Expr> {
        self.deeper(Self::disjunction)
    }

    fn disjunction(&mut self) -> Result<Expr> {
        let mut left = self.conjunction()?;
        while self.word("OR") {
            left = Expr::Or(Box::new(left), Box::new(self.conjunction()?));
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Expr> {
        let mut left = self.negation()?;
        while self.word("AND") {
            left = Expr::And(Box::new(left), Box::new(self.negation()?));
        }
        Ok(left)
    }

    fn negation(&mut self) -> Result<Expr> {
        if self.word("NOT") {
            return Ok(Expr::Not(Box::new(self.deeper(Self::negation)?)));
        }
        self.predicate()
    }

    fn predicate(&mut self) -> Result<Expr> {
        if self.is_word("EXISTS") {
            self.advance();
            self.expect_symbol("(")?;
            let query = self.query()?;
            self.expect_symbol(")")?;
            return Ok(Expr::Exists(Box::new(query)));
        }
        let value = self.expr()?;
        if let Kind::Symbol(symbol) = self.peek()
            && let Some((_, op)) = COMPARISONS.iter().find(|(text, _)| text == symbol)
        {
            self.advance();
            if self.is_word("ALL") || self.is_word("ANY") || self.is_word("SOME") {
                let all = self.is_word("ALL");
                self.advance();
                self.expect_symbol("(")?;
                let query = Box::new(self.query()?);
                self.expect_symbol(")")?;
                return Ok(Expr::Quantified { op, value: Box::new(value), all, query });
            }
            return Ok(Expr::Compare(op, Box::new(value), Box::new(self.expr()?)));
        }
        if self.word("IS") {
            let not = self.word("NOT");
            self.expect_word("NULL")?;
            return Ok(Expr::IsNull(Box::new(value), not));
        }
        let not = self.is_word("NOT")
            && (self.is_word_at(1, "IN") || self.is_word_at(1, "LIKE") || self.is_word_at(1, "BETWEEN"));
        if not {
            self.advance();
        }
        if self.word("BETWEEN") {
            let low = Box::new(self.expr()?);
            self.expect_word("AND")?;
            return Ok(Expr::Between { value: Box::new(value), low, high: Box::new(self.expr()?), not });
        }
        if self.word("LIKE") {
            let pattern = Box::new(self.expr()?);
            let escape = if self.word("ESCAPE") { Some(Box::new(self.expr()?)) } else { None };
            return Ok(Expr::Like { value: Box::new(value), pattern, escape, not });
        }
        if self.word("IN") {
            self.expect_symbol("(")?;
            if self.is_word("SELECT") || self.is_word("WITH") {
                let query = Box::new(self.query()?);
                self.expect_symbol(")")?;
                return Ok(Expr::InQuery { value: Box::new(value), query, not });
            }
            let list = self.expr_list()?;
            self.expect_symbol(")")?;
            return Ok(Expr::In { value: Box::new(value), list, not });
        }
        Ok(value)
    }

    pub(super) fn expr_list(&mut self) -> Result<Vec<Expr>> {
        let mut list = vec![self.expr()?];
        while self.symbol(",") {
            list.push(self.expr()?);
        }
        Ok(list)
    }

    /// An expression that is no condition.
    pub(super) fn expr(&mut self) -> Result<Expr> {
        self.deeper(Self::sum)
    }

    fn sum(&mut self) -> Result<Expr> {
        let mut left = self.product()?;
        loop {
            let op = match self.peek() {
                Kind::Symbol("+") => Arithmetic::Add,
                Kind::Symbol("-") => Arithmetic::Subtract,
                Kind::Symbol("&") => Arithmetic::And,
                Kind::Symbol("|") => Arithmetic::Or,
                Kind::Symbol("^") => Arithmetic::Xor,
                _ => return Ok(left),
            };
            self.advance();
            left = Expr::Arithmetic(op, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Expr> {
        let mut left = self.factor()?;
        loop {
            let op = match self.peek() {
                Kind::Symbol("*") => Arithmetic::Multiply,
                Kind::Symbol("/") => Arithmetic::Divide,
                Kind::Symbol("%") => Arithmetic::Modulo,
                _ => return Ok(left),
            };
            self.advance();
            left = Expr::Arithmetic(op, Box::new(left), Box::new(self.factor()?));
        }
    }

    fn factor(&mut self) -> Result<Expr> {
        if self.symbol("-") {
            return Ok(Expr::Negate(Box::new(self.deeper(Self::factor)?)));
        }
        if self.symbol("+") {
            return self.deeper(Self::factor);
        }
        if self.symbol("~") {
            return Ok(Expr::BitNot(Box::new(self.deeper(Self::factor)?)));
        }
        let mut value = self.primary()?;
        while self.word("COLLATE") {
            value = Expr::Collate(Box::new(value), self.identifier()?);
        }
        Ok(value)
    }

    fn primary(&mut self) -> Result<Expr> {
        let token = self.peek().clone();
        match token {
            Kind::Integer(digits) => {
                self.advance();
                Ok(Expr::Integer(digits))
            }
            Kind::Number(digits) => {
                self.advance();
                Ok(Expr::Number(digits))
            }
            Kind::Float(digits) => {
                let Ok(number) = digits.parse() else { return Err(self.syntax()) };
                self.advance();
                Ok(Expr::Float(number))
            }
            Kind::Text { text, national } => {
                self.advance();
                Ok(Expr::Text { text, national })
            }
            Kind::Bytes(bytes) => {
                self.advance();
                Ok(Expr::Bytes(bytes))
            }
            Kind::Variable(name) => {
                self.advance();
                Ok(Expr::Variable(name.to_lowercase()))
            }
            Kind::Symbol("(") => {
                self.advance();
                if self.is_word("SELECT") || (self.is_word("WITH") && !self.is_symbol_at(1, "(")) {
                    let query = self.query()?;
                    self.expect_symbol(")")?;
                    return Ok(Expr::Query(Box::new(query)));
                }
                // A condition in parentheses, or a query in more than one pair of them.
                let inner = self.condition()?;
                self.expect_symbol(")")?;
                Ok(inner)
            }
            Kind::Word(word) => self.word_primary(&word),
            Kind::Quoted(_) => self.name_primary(),
            _ => Err(self.syntax()),
        }
    }

    fn word_primary(&mut self, word: &str) -> Result<Expr> {
        let upper = word.to_ascii_uppercase();
        let call = self.is_symbol_at(1, "(");
        match upper.as_str() {
            "NULL" => {
                self.advance();
                Ok(Expr::Null)
            }
            "DEFAULT" => {
                self.advance();
                Ok(Expr::Default)
            }
            "CASE" => {
                self.advance();
                self.case()
            }
            "CAST" | "TRY_CAST" if call => {
                self.at += 2;
                let value = Box::new(self.expr()?);
                self.expect_word("AS")?;
                let to = self.type_name()?;
                self.expect_symbol(")")?;
                Ok(Expr::Cast { value, to, style: None, attempt: upper == "TRY_CAST" })
            }
            "CONVERT" | "TRY_CONVERT" if call => {
                self.at += 2;
                let to: TypeName = self.type_name()?;
                self.expect_symbol(",")?;
                let value = Box::new(self.expr()?);
                let style = if self.symbol(",") { Some(Box::new(self.expr()?)) } else { None };
                self.expect_symbol(")")?;
                Ok(Expr::Cast { value, to, style, attempt: upper == "TRY_CONVERT" })
            }
            "IIF" if call => {
                self.at += 2;
                let condition = self.condition()?;
                self.expect_symbol(",")?;
                let yes = self.expr()?;
                self.expect_symbol(",")?;
                let no = self.expr()?;
                self.expect_symbol(")")?;
                Ok(Expr::Case { operand: None, whens: vec![(condition, yes)], otherwise: Some(Box::new(no)) })
            }
            "UPDATE" if call => {
                self.at += 2;
                let column = self.identifier()?;
                self.expect_symbol(")")?;
                Ok(Expr::Updated(column))
            }
            "COALESCE" | "NULLIF" | "LEFT" | "RIGHT" if call => {
                self.advance();
                self.arguments(session_name(&upper))
            }
            name if BARE_FUNCTIONS.contains(&name) => {
                self.advance();
                Ok(call_of(&upper, Vec::new()))
            }
            _ if reserved(word) => Err(self.syntax()),
            _ => self.name_primary(),
        }
    }

    fn name_primary(&mut self) -> Result<Expr> {
        let name = self.name()?;
        if self.is_symbol("(") {
            return self.arguments(name);
        }
        Ok(Expr::Column(name))
    }

    /// The arguments of a function, and OVER.
    fn arguments(&mut self, name: super::Name) -> Result<Expr> {
        self.expect_symbol("(")?;
        let (mut args, mut star, mut distinct) = (Vec::new(), false, false);
        if self.symbol("*") {
            star = true;
        } else if !self.is_symbol(")") {
            distinct = self.word("DISTINCT");
            if !distinct {
                self.word("ALL");
            }
            let date_part = matches!(
                name.last().to_ascii_uppercase().as_str(),
                "DATEADD" | "DATEDIFF" | "DATEDIFF_BIG" | "DATEPART" | "DATENAME" | "DATETRUNC"
            );
            if date_part && let Kind::Word(part) = self.peek() {
                args.push(Expr::Text { text: part.to_lowercase(), national: false });
                self.advance();
                self.expect_symbol(",")?;
            }
            args.extend(self.expr_list()?);
        }
        self.expect_symbol(")")?;
        let mut within = Vec::new();
        if self.is_word("WITHIN") && self.is_word_at(1, "GROUP") {
            self.at += 2;
            self.expect_symbol("(")?;
            self.expect_word("ORDER")?;
            self.expect_word("BY")?;
            within = self.order_list()?;
            self.expect_symbol(")")?;
        }
        let over = if self.word("OVER") { Some(self.window()?) } else { None };
        Ok(Expr::Call { name, args, star, distinct, within, over })
    }

    fn window(&mut self) -> Result<Window> {
        self.expect_symbol("(")?;
        let mut window = Window { partition: Vec::new(), order: Vec::new(), frame: None };
        if self.word("PARTITION") {
            self.expect_word("BY")?;
            window.partition = self.expr_list()?;
        }
        if self.word("ORDER") {
            self.expect_word("BY")?;
            window.order = self.order_list()?;
        }
        if self.is_word("ROWS") || self.is_word("RANGE") {
            let from = self.at;
            while !self.is_symbol(")") && *self.peek() != Kind::End {
                self.advance();
            }
            window.frame = Some(self.text_between(from, self.at));
        }
        self.expect_symbol(")")?;
        Ok(window)
    }

    pub(super) fn order_list(&mut self) -> Result<Vec<Order>> {
        let mut list = Vec::new();
        loop {
            let expr = self.expr()?;
            let descending = self.word("DESC");
            if !descending {
                self.word("ASC");
            }
            list.push(Order { expr, descending });
            if !self.symbol(",") {
                return Ok(list);
            }
        }
    }

    fn case(&mut self) -> Result<Expr> {
        let operand = if self.is_word("WHEN") { None } else { Some(Box::new(self.expr()?)) };
        let mut whens = Vec::new();
        while self.word("WHEN") {
            let when = if operand.is_some() { self.expr()? } else { self.condition()? };
            self.expect_word("THEN")?;
            whens.push((when, self.expr()?));
        }
        if whens.is_empty() {
            return Err(self.syntax());
        }
        let otherwise = if self.word("ELSE") { Some(Box::new(self.expr()?)) } else { None };
        self.expect_word("END")?;
        Ok(Expr::Case { operand, whens, otherwise })
    }
}

fn session_name(word: &str) -> super::Name {
    super::Name(vec![word.to_owned()])
}

fn call_of(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Call { name: session_name(name), args, star: false, distinct: false, within: Vec::new(), over: None }
}
