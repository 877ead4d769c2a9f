//! Columns: what their values are, and how T-SQL takes their names, types and parameters.

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `uniqueidentifier`
    Uuid,
    /// `datetime2`, `datetime`, `smalldatetime`: taken as UTC.
    Time,
    /// `datetimeoffset`
    TimeOffset,
    /// `date`
    Date,
    /// `time`
    Clock,
    /// `float`, `real`
    Float,
    /// `bigint`, `int`, `smallint`, `tinyint`
    Integer,
    /// `bit`
    Bit,
    /// `decimal`, `numeric`, `money`, `smallmoney`
    Decimal,
    /// All character types.
    Text,
    /// `xml`
    Xml,
    /// All binary types.
    Bytes,
    /// Whatever else there is; it can be read and not written.
    Other,
}

impl Kind {
    fn of(type_name: &str) -> Self {
        match type_name {
            "uniqueidentifier" => Self::Uuid,
            "datetime2" | "datetime" | "smalldatetime" => Self::Time,
            "datetimeoffset" => Self::TimeOffset,
            "date" => Self::Date,
            "time" => Self::Clock,
            "float" | "real" => Self::Float,
            "bigint" | "int" | "smallint" | "tinyint" => Self::Integer,
            "bit" => Self::Bit,
            "decimal" | "numeric" | "money" | "smallmoney" => Self::Decimal,
            "char" | "varchar" | "nchar" | "nvarchar" | "text" | "ntext" | "sysname" => Self::Text,
            "xml" => Self::Xml,
            "binary" | "varbinary" | "image" | "timestamp" | "rowversion" => Self::Bytes,
            _ => Self::Other,
        }
    }

    /// True for types that a key may have: those with one spelling and an order that the server keeps.
    pub(crate) fn may_be_key(self) -> bool {
        matches!(self, Self::Uuid | Self::Integer | Self::Text)
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Its name in the database.
    pub name: String,
    /// Its name in documents.
    pub member: String,
    /// Its type as T-SQL spells it: `nvarchar(32)`.
    pub sql_type: String,
    /// What its values are.
    pub kind: Kind,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// Its number in the table.
    pub id: i32,
    /// The collation of a character column.
    pub collation: Option<String>,
    /// How many characters a text may have at most, where there is a limit.
    pub length: Option<usize>,
}

impl ColumnInfo {
    /// A column of a type as the catalogue has it: length in bytes (-1 for `max`), precision and scale.
    #[must_use]
    pub fn new(name: &str, type_name: &str, max_length: i64, precision: i64, scale: i64) -> Self {
        let length = |unit: i64| if max_length < 0 { "max".to_owned() } else { (max_length / unit).to_string() };
        let sql_type = match type_name {
            "char" | "varchar" | "binary" | "varbinary" => format!("{type_name}({})", length(1)),
            "nchar" | "nvarchar" => format!("{type_name}({})", length(2)),
            "datetime2" | "datetimeoffset" | "time" => format!("{type_name}({scale})"),
            "decimal" | "numeric" => format!("{type_name}({precision},{scale})"),
            _ => type_name.to_owned(),
        };
        Self {
            member: camel_case(name),
            name: name.to_owned(),
            sql_type,
            kind: Kind::of(type_name),
            nullable: true,
            id: 0,
            collation: None,
            length: match type_name {
                "nchar" | "nvarchar" => usize::try_from(max_length / 2).ok().filter(|_| max_length >= 0),
                "char" | "varchar" => usize::try_from(max_length).ok(),
                _ => None,
            },
        }
    }

    /// Whether it is the same column of the same table.
    pub(crate) fn id_is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.name == other.name
    }

    /// A parameter's name as an expression of this column's type, so that a comparison uses the column's index and
    /// its order: an `nvarchar` parameter would widen a `varchar` column (edge case 17), and without the column's collation it
    /// would become text of the database's code page, where letters of another become question marks.
    #[must_use]
    pub fn typed(&self, parameter: &str) -> String {
        match self.kind {
            // The numbers of parameters are `bigint`, which compares with every integer type as it is.
            Kind::Uuid | Kind::Integer | Kind::Float | Kind::Bit | Kind::Time => parameter.to_owned(),
            Kind::Text if self.sql_type.starts_with('n') => parameter.to_owned(),
            Kind::Text => format!("CAST({parameter}{} AS {})", self.collate(), self.sql_type),
            _ => format!("CAST({parameter} AS {})", self.sql_type),
        }
    }

    /// The column as SELECT gives it, behind `alias` (such as `t.`; empty for none). The expression has no name, so that
    /// ORDER BY means the column and its order.
    #[must_use]
    pub fn selected(&self, alias: &str) -> String {
        self.unicode(format!("{alias}{}", quote(&self.name)))
    }

    /// An expression of this column's type as SELECT gives it. Texts of a code page are turned into Unicode by the server,
    /// which knows all of them, UTF-8 included; here one that cannot be decoded would end the whole result.
    #[must_use]
    pub fn unicode(&self, expression: String) -> String {
        /// The longest `nvarchar` that is not `max`.
        const LENGTH_MAX: usize = 4_000;
        match (self.kind, self.length) {
            (Kind::Text, _) if self.sql_type.starts_with('n') || self.sql_type == "sysname" => expression,
            (Kind::Text, Some(length)) if length <= LENGTH_MAX => format!("CAST({expression} AS nvarchar({length}))"),
            (Kind::Text, _) => format!("CAST({expression} AS nvarchar(max))"),
            _ => expression,
        }
    }

    /// An expression of the type [`Self::holder`] as a value to store in this column. A text becomes a `decimal` or `xml` only
    /// when told to.
    #[must_use]
    pub fn stored(&self, expression: &str) -> String {
        match self.kind {
            Kind::Decimal | Kind::Date | Kind::Clock | Kind::Xml => format!("CAST({expression} AS {})", self.sql_type),
            _ => expression.to_owned(),
        }
    }

    /// What makes another text, such as a column of a temporary table, compare as this column does.
    #[must_use]
    pub fn collate(&self) -> String {
        match &self.collation {
            Some(collation) if self.kind == Kind::Text => format!(" COLLATE {collation}"),
            _ => String::new(),
        }
    }

    /// The type that a parameter for this column has on the wire, and so a column of a staging table.
    #[must_use]
    pub fn holder(&self) -> &str {
        match self.kind {
            Kind::Uuid => "uniqueidentifier",
            Kind::Time | Kind::TimeOffset => "datetime2(3)",
            Kind::Float => "float",
            Kind::Integer => "bigint",
            Kind::Bit => "bit",
            Kind::Bytes => "varbinary(max)",
            Kind::Text if self.sql_type.starts_with("nvarchar") => &self.sql_type,
            _ => "nvarchar(max)",
        }
    }
}

/// A name as T-SQL takes it, whatever is in it.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

/// A text as T-SQL takes it. For names within statements only; values are parameters.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// What `each` makes of the items, separated by commas.
pub(crate) fn list<T>(items: impl IntoIterator<Item = T>, each: impl FnMut(T) -> String) -> String {
    items.into_iter().map(each).collect::<Vec<_>>().join(", ")
}

/// `CompanyId` to `companyId`, `OSVersion` to `osVersion`: of a leading run of capitals the last stays one when it begins a
/// word.
fn camel_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let run = letters.iter().take_while(|c| c.is_uppercase()).count();
    let lowered = if run > 1 && run < letters.len() { run - 1 } else { run };
    letters.iter().enumerate().map(|(i, c)| if i < lowered { c.to_ascii_lowercase() } else { *c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_camel_case() {
        for (name, member) in [
            ("Id", "id"),
            ("CompanyId", "companyId"),
            ("CapacityMw", "capacityMw"),
            ("OSVersion", "osVersion"),
            ("ID", "id"),
            ("already", "already"),
        ] {
            assert_eq!(camel_case(name), member);
        }
    }

    #[test]
    fn odd_names_are_quoted_whatever_is_in_them() {
        for (name, quoted) in [("Id", "[Id]"), ("a]b", "[a]]b]"), ("[x]", "[[x]]]"), ("#t", "[#t]"), ("a b", "[a b]")] {
            assert_eq!(quote(name), quoted);
        }
        assert_eq!(literal("O'Brien"), "N'O''Brien'");
    }

    #[test]
    fn types_are_spelled_as_t_sql_does() {
        for (name, length, precision, scale, spelled) in [
            ("nvarchar", 64, 0, 0, "nvarchar(32)"),
            ("nvarchar", -1, 0, 0, "nvarchar(max)"),
            ("varchar", 20, 0, 0, "varchar(20)"),
            ("varbinary", -1, 0, 0, "varbinary(max)"),
            ("datetime2", 7, 23, 3, "datetime2(3)"),
            ("decimal", 9, 19, 4, "decimal(19,4)"),
            ("float", 8, 53, 0, "float"),
            ("uniqueidentifier", 16, 0, 0, "uniqueidentifier"),
        ] {
            assert_eq!(ColumnInfo::new("c", name, length, precision, scale).sql_type, spelled);
        }
    }
}
