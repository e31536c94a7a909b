//! Latency at a fixed rate, free of coordinated omission.
//!
//! Each request has a time at which it is due. Its latency counts from then, whether or not it could be sent: a target
//! that stalls delays what is due meanwhile, and that is what a user would see. One thread on the load's core sends and
//! receives on all connections; it sleeps between (`ppoll(2)`, nanoseconds), so as not to take the core from the upstream.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::cases::{Case, SMALL};

/// Requests per second.
const RATE: u32 = 4_000;
/// Connections, used in turn.
const CONNECTIONS: usize = 32;
/// Requests due on one connection that were not answered: the target does not keep up.
const MAX_BACKLOG: usize = 4_000;
/// Nobody waits longer for the last answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Percentiles {
    /// Half are faster.
    pub p50_us: f64,
    /// One in a hundred is slower.
    pub p99_us: f64,
    /// One in a thousand is slower.
    pub p999_us: f64,
}

impl Percentiles {
    fn of(mut latencies: Vec<Duration>) -> Percentiles {
        latencies.sort_unstable();
        let at = |share: f64| {
            let place = ((latencies.len() as f64 * share).ceil() as usize).clamp(1, latencies.len());
            latencies[place - 1].as_nanos() as f64 / 1e3
        };
        Percentiles { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999) }
    }

    /// What was added to `direct`.
    pub fn added_to(self, direct: Percentiles) -> Percentiles {
        Percentiles {
            p50_us: self.p50_us - direct.p50_us,
            p99_us: self.p99_us - direct.p99_us,
            p999_us: self.p999_us - direct.p999_us,
        }
    }
}

/// Measures for so many seconds.
///
/// # Errors
/// If a connection breaks, an answer is not 200, or the target does not keep up.
pub fn measure(address: SocketAddr, seconds: u32) -> Result<Percentiles, String> {
    let failed = |error: io::Error| format!("latency at {RATE} requests per second: {error}");
    let mut run = Run::new(address).map_err(failed)?;
    run.send_all(RATE * seconds).map_err(failed)?;
    Ok(Percentiles::of(run.latencies))
}

struct Run {
    connections: Vec<Connection>,
    polled: Vec<libc::pollfd>,
    latencies: Vec<Duration>,
}

struct Connection {
    stream: TcpStream,
    /// When those that are sent or waiting were due.
    due: VecDeque<Instant>,
    received: Vec<u8>,
}

impl Run {
    fn new(address: SocketAddr) -> io::Result<Run> {
        let connections: Vec<_> = (0..CONNECTIONS).map(|_| Connection::new(address)).collect::<io::Result<_>>()?;
        let polled = connections.iter().map(|connection| connection.pollfd()).collect();
        Ok(Run { connections, polled, latencies: Vec::new() })
    }

    fn send_all(&mut self, requests: u32) -> io::Result<()> {
        let (start, apart) = (Instant::now(), Duration::from_secs(1) / RATE);
        let mut begun = 0;
        while self.latencies.len() < requests as usize {
            let now = Instant::now();
            while begun < requests && start + apart * begun <= now {
                self.connections[begun as usize % CONNECTIONS].ask(start + apart * begun)?;
                begun += 1;
            }
            let next = if begun < requests { start + apart * begun } else { start + apart * requests + PATIENCE };
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() && begun == requests {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the last answers did not come"));
            }
            self.wait(left)?;
        }
        Ok(())
    }

    fn wait(&mut self, time: Duration) -> io::Result<()> {
        let time = libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos().into() };
        // SAFETY: the array and the time live for the call, and the length is the array's; no signal mask is given.
        let ready = unsafe { libc::ppoll(self.polled.as_mut_ptr(), self.polled.len() as _, &time, std::ptr::null()) };
        if ready < 0 {
            return Err(io::Error::last_os_error());
        }
        let ready = self.polled.iter().zip(&mut self.connections).filter(|(polled, _)| polled.revents != 0);
        for (_, connection) in ready {
            connection.take(&mut self.latencies)?;
        }
        Ok(())
    }
}

impl Connection {
    fn new(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection { stream, due: VecDeque::new(), received: Vec::new() })
    }

    fn pollfd(&self) -> libc::pollfd {
        use std::os::fd::AsRawFd;
        libc::pollfd { fd: self.stream.as_raw_fd(), events: libc::POLLIN, revents: 0 }
    }

    /// Sends a request now, or after the answer to the one before.
    fn ask(&mut self, due: Instant) -> io::Result<()> {
        self.due.push_back(due);
        match self.due.len() {
            1 => self.send(),
            MAX_BACKLOG.. => Err(io::Error::new(io::ErrorKind::TimedOut, "the target does not keep up")),
            _ => Ok(()),
        }
    }

    /// So small that a socket with nothing in flight takes it whole.
    fn send(&mut self) -> io::Result<()> {
        let request = format!("GET {} HTTP/1.1\r\nhost: bench\r\n\r\n", Case::Latency.path());
        self.stream.write_all(request.as_bytes())
    }

    fn take(&mut self, latencies: &mut Vec<Duration>) -> io::Result<()> {
        let mut chunk = [0; 4096];
        let read = match self.stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        self.received.extend_from_slice(&chunk[..read]);
        if !self.received.ends_with(&[b'x'; SMALL]) {
            return Ok(());
        }
        if !self.received.starts_with(b"HTTP/1.1 200 ") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another status than 200"));
        }
        self.received.clear();
        let due = self.due.pop_front().ok_or(io::ErrorKind::InvalidData)?;
        latencies.push(due.elapsed());
        if self.due.is_empty() { Ok(()) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted() {
        let latencies = (1..=1000).rev().map(Duration::from_micros).collect();
        let percentiles = Percentiles::of(latencies);
        assert_eq!(percentiles, Percentiles { p50_us: 500.0, p99_us: 990.0, p999_us: 999.0 });
        let direct = Percentiles { p50_us: 100.0, p99_us: 90.0, p999_us: 0.0 };
        assert_eq!(percentiles.added_to(direct).p99_us, 900.0);
    }
}
