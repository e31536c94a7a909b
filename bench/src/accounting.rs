//! What processes used, from the kernel's own accounting: each process's CPU clock, and /proc.

use std::fs;
use std::io;
use std::ops::Sub;
use std::time::Duration;

/// Processor time used since start, by all threads of some processes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cpu {
    /// All of it, to the nanosecond.
    pub total: Duration,
    /// In user mode, in clock ticks: sampled at the tick, good as a share over seconds.
    user_ticks: u64,
    /// In the kernel, likewise.
    system_ticks: u64,
}

impl Cpu {
    /// Sums up the processes.
    ///
    /// # Errors
    /// If one of them is gone or /proc is not as proc(5) says.
    pub fn of(pids: &[u32]) -> io::Result<Cpu> {
        let mut sum = Cpu::default();
        for pid in pids {
            let (user, system) = ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?;
            sum.total += on_processor(*pid)?;
            sum.user_ticks += user;
            sum.system_ticks += system;
        }
        Ok(sum)
    }

    /// The share of user mode, 0 to 1.
    pub fn user_share(&self) -> f64 {
        let ticks = self.user_ticks + self.system_ticks;
        self.user_ticks as f64 / ticks.max(1) as f64
    }
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        Cpu {
            total: self.total - before.total,
            user_ticks: self.user_ticks - before.user_ticks,
            system_ticks: self.system_ticks - before.system_ticks,
        }
    }
}

/// The process's CPU clock: nanoseconds on a processor of all its threads, also of those that have ended.
fn on_processor(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: `clock` is a valid place for the clock's id.
    let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: `time` is a valid place for the time; an invalid clock gives an error.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

/// utime and stime of `/proc/PID/stat`: fields 14 and 15, counted after the name in parentheses, which is field 2
/// and may itself contain spaces and parentheses.
fn ticks(stat: &str) -> io::Result<(u64, u64)> {
    let after_name = stat.rsplit_once(')').ok_or_else(|| odd("stat", stat))?.1;
    let mut fields = after_name.split_whitespace().skip(11).map(str::parse);
    match (fields.next(), fields.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok((user, system)),
        _ => Err(odd("stat", stat)),
    }
}

/// Time that a core has worked since boot, for whomever: `/proc/stat`, to the clock tick.
///
/// # Errors
/// If there is no such core.
pub fn core_worked(core: &str) -> io::Result<Duration> {
    worked(&fs::read_to_string("/proc/stat")?, core)
}

/// `cpuN user nice system idle iowait irq softirq steal ...` in hundredths of a second, all but idle and iowait.
fn worked(stat: &str, core: &str) -> io::Result<Duration> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name)).ok_or_else(|| odd("stat", stat))?;
    let fields = line.split_whitespace().take(8).enumerate();
    let ticks: u64 =
        fields.filter(|(at, _)| ![3, 4].contains(at)).filter_map(|(_, number)| number.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Resident memory in MiB, summed over the processes (`VmRSS`; pages they share count for each).
///
/// # Errors
/// As [`Cpu::of`].
pub fn resident_mib(pids: &[u32]) -> io::Result<f64> {
    let mut kib = 0;
    for pid in pids {
        kib += resident_kib(&fs::read_to_string(format!("/proc/{pid}/status"))?)?;
    }
    Ok(kib as f64 / 1024.0)
}

fn resident_kib(status: &str) -> io::Result<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
        .ok_or_else(|| odd("status", status))
}

fn odd(file: &str, text: &str) -> io::Error {
    let message = format!("/proc's {file} is not as proc(5) says: {text:?}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_whatever_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 12 0 0 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat).unwrap(), (31, 12));
        assert!(ticks("7 (a) S 1").is_err());
    }

    #[test]
    fn a_core_works_when_it_is_not_idle() {
        let stat = "cpu  9 9 9 9 9 9 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 10 2 5 1000 7 0 1 2 0 0\n";
        assert_eq!(worked(stat, "1").unwrap(), Duration::from_millis(200));
        assert!(worked(stat, "2").is_err());
    }

    #[test]
    fn sees_its_own_work_and_memory() {
        let own = [std::process::id()];
        let before = Cpu::of(&own).unwrap();
        let mut work = 0u64;
        while (Cpu::of(&own).unwrap() - before).total < Duration::from_millis(20) {
            work = std::hint::black_box(work + 1);
        }
        assert!(resident_mib(&own).unwrap() > 0.5);
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t    2048 kB\n").unwrap(), 2048);
    }
}
