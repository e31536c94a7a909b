//! Active health checks of a cluster's endpoints.

use serde::{Deserialize, Serialize};

/// How endpoints are asked whether they are well. One that is not gets no requests, unless none is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Time between two questions to an endpoint (milliseconds, default 5,000; looked at four times a second).
    #[serde(default = "interval")]
    pub interval_ms: u64,
    /// An answer must have come within this (milliseconds, default 1,000).
    #[serde(default = "timeout")]
    pub timeout_ms: u64,
    /// Failures in a row after which an endpoint is not well (default 3).
    #[serde(default = "unhealthy_threshold")]
    pub unhealthy_threshold: u32,
    /// Good answers in a row after which it is well again (default 1).
    #[serde(default = "healthy_threshold")]
    pub healthy_threshold: u32,
}

impl HealthCheck {
    /// With this probe and otherwise as by default.
    pub fn new(probe: Probe) -> Self {
        HealthCheck {
            probe,
            interval_ms: interval(),
            timeout_ms: timeout(),
            unhealthy_threshold: unhealthy_threshold(),
            healthy_threshold: healthy_threshold(),
        }
    }
}

/// A question to an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Probe {
    /// It is well if it takes a connection.
    Tcp,
    /// It is well if it answers 2xx.
    Http(HttpProbe),
    /// It is well if its health service (`grpc.health.v1.Health`) says SERVING; for clusters that speak HTTP/2.
    Grpc(GrpcProbe),
}

/// A request by HTTP, in the cluster's version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    /// Path and query.
    pub path: String,
    /// Absent: the name of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A question to a gRPC server's health service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcProbe {
    /// The service asked about; empty: the server as a whole.
    pub service: String,
    /// Absent: the name of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

fn interval() -> u64 {
    5_000
}

fn timeout() -> u64 {
    1_000
}

fn unhealthy_threshold() -> u32 {
    3
}

fn healthy_threshold() -> u32 {
    1
}
