//! What the machine offers: time, descriptors, memory.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// 2025-01-01 and 2100-01-01 in seconds since 1970: a clock outside is not set.
const CLOCK_BOUNDS: (u64, u64) = (1_735_689_600, 4_102_444_800);
/// Each request in flight takes two.
const MIN_FREE_DESCRIPTORS: u64 = 256;
/// Below this, buffers of a few hundred connections do not fit.
const MIN_FREE_BYTES: u64 = 32 * 1024 * 1024;

/// Lifts the soft limit on open descriptors to the hard one, as servers may.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is not allowed the check tells how many there are.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

pub(super) fn clock() -> Result<String, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    judge_clock(now)
}

fn judge_clock(now: u64) -> Result<String, String> {
    match (CLOCK_BOUNDS.0..CLOCK_BOUNDS.1).contains(&now) {
        true => Ok(format!("{now} s since 1970")),
        false => {
            Err(format!("the clock says {now} s since 1970, which is not this century's twenties or later: set it"))
        }
    }
}

pub(super) fn descriptors() -> Result<String, String> {
    let limit = getrlimit(Resource::Nofile).current;
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    judge_descriptors(limit, open)
}

fn judge_descriptors(limit: Option<u64>, open: u64) -> Result<String, String> {
    match limit {
        None => Ok(format!("{open} open, no limit")),
        Some(limit) if limit.saturating_sub(open) >= MIN_FREE_DESCRIPTORS => Ok(format!("{open} open of {limit}")),
        Some(limit) => Err(format!(
            "{open} open of {limit}: fewer than {MIN_FREE_DESCRIPTORS} are left; raise the limit (ulimit -n)"
        )),
    }
}

pub(super) fn memory() -> Result<String, String> {
    let (free, whose) = match cgroup_free() {
        Some(free) => (Some(free), "of this control group"),
        None => (machine_free(), "of this machine"),
    };
    judge_memory(free, whose)
}

fn judge_memory(free: Option<u64>, whose: &str) -> Result<String, String> {
    match free {
        None => Ok("no limit known".into()),
        Some(free) if free >= MIN_FREE_BYTES => Ok(format!("{} MiB {whose} are free", free >> 20)),
        Some(free) => Err(format!("{} MiB {whose} are free, fewer than {} MiB", free >> 20, MIN_FREE_BYTES >> 20)),
    }
}

/// Room below the limit of this process's control group (version 2), if it has one.
fn cgroup_free() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = format!("/sys/fs/cgroup{path}");
    let number = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

fn machine_free() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_told_with_its_number() {
        assert!(judge_clock(0).unwrap_err().contains("set it"));
        assert!(judge_clock(1_800_000_000).is_ok());
        assert!(judge_descriptors(Some(300), 100).unwrap_err().contains("100 open of 300"));
        assert!(judge_descriptors(None, 100).is_ok());
        assert!(judge_memory(Some(1 << 20), "of this machine").unwrap_err().contains("1 MiB"));
        assert!(judge_memory(None, "").is_ok());
    }

    #[test]
    fn this_machine_passes() {
        raise_descriptor_limit();
        for check in [clock(), descriptors(), memory()] {
            assert!(check.is_ok(), "{check:?}");
        }
    }
}
