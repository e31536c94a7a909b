//! Instances: desired into real; warm upgrade; the local-process provider.
