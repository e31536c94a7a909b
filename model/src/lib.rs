//! Resources: spec, status, ids, validation, legal transitions. No I/O.
