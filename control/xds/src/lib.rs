//! Resources to xDS snapshots, and snapshots to streams.
