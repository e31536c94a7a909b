//! Services and endpoints: sessions, leases, health.
