//! The embedded resources: a SQLite database, a bus on SQLite tables, an in-process pub/sub, and the store.
