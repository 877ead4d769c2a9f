//! SQL Server as a database resource, through `tiberius`.

#![warn(missing_docs)]
