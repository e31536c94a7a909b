//! The Store in SQL: SQLite.
