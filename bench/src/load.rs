//! Sending requests and counting the answers: wrk for HTTP/1.1, h2load for HTTP/2, both on core 0.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::cases::Case;

/// Core of the load and the upstream.
pub const LOAD_CORE: &str = "0";
/// Core of the target.
pub const TARGET_CORE: &str = "1";

/// What a load generator counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Answered requests.
    pub requests: u64,
    /// Answered requests per second.
    pub rps: f64,
}

/// Sends as much as goes for that many seconds.
///
/// # Errors
/// If the generator fails, or one single answer was an error: a number from a run with errors means nothing.
pub fn run(case: Case, address: SocketAddr, seconds: u32, message: &Path) -> Result<Counted, String> {
    let scheme = if case == Case::TlsSmall { "https" } else { "http" };
    let url = format!("{scheme}://{address}{}", case.path());
    let duration = format!("{seconds}");
    let connections = if case == Case::H1Huge { "-c8" } else { "-c64" };
    let h2 = ["-t1", "-c8", "-m16", "-D", &duration, &url];
    match case {
        Case::H2ToH1 | Case::H2ToH2 => h2load(&output("h2load", &h2)?),
        Case::GrpcUnary => {
            let message = message.to_string_lossy();
            let call = ["-d", &message, "-H", "content-type: application/grpc", "-H", "te: trailers"];
            h2load(&output("h2load", &[&h2[..], &call[..]].concat())?)
        }
        _ => wrk(&output("wrk", &["-t1", connections, "-d", &duration, &url])?),
    }
}

fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("taskset")
        .args(["-c", LOAD_CORE, program])
        .args(arguments)
        .output()
        .map_err(|error| format!("taskset (package util-linux): {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} failed ({}): {text}{error}", output.status))
}

/// wrk prints `N requests in 5.00s`, `Requests/sec: R`, and lines on errors only when there were any.
fn wrk(text: &str) -> Result<Counted, String> {
    for bad in ["Non-2xx", "Socket errors"] {
        if let Some(line) = text.lines().find(|line| line.contains(bad)) {
            return Err(format!("wrk saw errors: {}", line.trim()));
        }
    }
    let requests = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    let rps = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    counted(requests, rps, text)
}

/// h2load prints `finished in 5.00s, R req/s, ...`, `requests: N total, ..., 0 failed, 0 errored, 0 timeout` and
/// `status codes: N 2xx, ...`. What is under way at the end of the measured time is not counted.
fn h2load(text: &str) -> Result<Counted, String> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or("");
    let number = |list: &str, what: &str| -> Option<u64> {
        list.split(',').find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
    };
    let requests = line("requests:");
    for what in ["failed", "errored", "timeout"] {
        if number(requests, what) != Some(0) {
            return Err(format!("h2load saw errors: {requests}"));
        }
    }
    // The head of an answer under way counts as a 2xx already, so that number may exceed the succeeded ones.
    let codes = line("status codes:");
    if ["3xx", "4xx", "5xx"].iter().any(|class| number(codes, class) != Some(0)) {
        return Err(format!("h2load saw other codes: {codes}"));
    }
    let succeeded = number(requests, "succeeded");
    let rps = line("finished in").split(',').find_map(|part| part.trim().strip_suffix(" req/s")?.parse().ok());
    counted(succeeded, rps, text)
}

fn counted(requests: Option<u64>, rps: Option<f64>, text: &str) -> Result<Counted, String> {
    match (requests, rps) {
        (Some(requests), Some(rps)) if requests > 0 => Ok(Counted { requests, rps }),
        _ => Err(format!("no answer was counted:\n{text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  \
        48123 requests in 1.00s, 12.00MB read\nRequests/sec:  48111.5\nTransfer/sec: 1MB\n";
    const H2LOAD: &str = "finished in 2.00s, 61234.50 req/s, 9.00MB/s\n\
        requests: 122469 total, 122597 started, 122469 done, 122469 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 122469 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn reads_what_the_generators_print() {
        let of_wrk = Counted { requests: 48_123, rps: 48_111.5 };
        assert_eq!(wrk(WRK).unwrap(), of_wrk);
        let of_h2load = Counted { requests: 122_469, rps: 61_234.5 };
        assert_eq!(h2load(H2LOAD).unwrap(), of_h2load);
    }

    #[test]
    fn one_error_spoils_the_run() {
        let bad = format!("{WRK}  Non-2xx or 3xx responses: 1\n");
        assert!(wrk(&bad).unwrap_err().contains("Non-2xx"));
        assert!(h2load(&H2LOAD.replace("0 failed", "1 failed")).is_err());
        assert!(h2load(&H2LOAD.replace("122469 2xx, 0 3xx", "122468 2xx, 1 3xx")).is_err());
        assert!(h2load("").is_err());
        assert!(wrk("").is_err());
    }
}
