//! HTTP API, OpenAPI, login, audit.
