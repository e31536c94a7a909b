//! Export of finished spans by OTLP.
