//! Printing: colours only where a person looks.

pub mod color;
