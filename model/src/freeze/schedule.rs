//! Times that come again: cron, a duration and a time zone.

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Moment;
use crate::validate::Validator;

/// Longest window: 31 days.
pub const MAX_DURATION_SECONDS: u64 = 31 * 24 * 3600;

/// Windows that overlap make one; so many are joined at most. After that the end is only a lower bound: whoever waits
/// for it looks again then.
const MOST_JOINED: usize = 200;

/// Clocks are set by two hours at most (Antarctica/Troll); whole days have been skipped, but not since 2011.
const LARGEST_SHIFT: SignedDuration = SignedDuration::from_hours(3);

/// When windows begin, and how long they last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Schedule {
    /// Beginnings: minute, hour, day of month, month, day of week, as in `crontab(5)`.
    pub cron: String,
    /// Length of each window (seconds of elapsed time, so a night in which clocks change is as long as any other).
    pub duration_seconds: u64,
    /// IANA name of the time zone in which `cron` is meant, e.g. `Asia/Shanghai`.
    pub time_zone: String,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule { cron: String::new(), duration_seconds: 0, time_zone: "UTC".into() }
    }
}

impl Schedule {
    /// Checks expression, duration and time zone.
    pub fn validate(&self, v: &mut Validator) {
        v.range("durationSeconds", self.duration_seconds, 60, MAX_DURATION_SECONDS);
        if let Err(error) = self.zone() {
            v.error_with_hint("timeZone", error, "use an IANA name such as Europe/Berlin, Asia/Shanghai or UTC");
        }
        if let Err(error) = self.crontab() {
            v.error_with_hint("cron", error, "minute hour day-of-month month day-of-week, e.g. 30 1 * * 2-5");
        }
    }

    fn zone(&self) -> Result<TimeZone, String> {
        TimeZone::get(&self.time_zone).map_err(|error| error.to_string())
    }

    /// Calculates on the clock face alone: time zones are ours, see [`Times::instant`].
    fn crontab(&self) -> Result<Crontab, String> {
        let fields = self.cron.split_whitespace().count();
        if fields != 5 {
            return Err(format!("has {fields} fields, 5 are needed"));
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        cronexpr::parse_crontab_with(&self.cron, options).map_err(|error| error.to_string())
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the expression or the time zone.
    pub fn times(&self) -> Result<Times, String> {
        let duration = SignedDuration::from_secs(self.duration_seconds.min(MAX_DURATION_SECONDS) as i64);
        Ok(Times { crontab: self.crontab()?, zone: self.zone()?, duration })
    }
}

/// A schedule that has been read.
#[derive(Debug)]
pub struct Times {
    crontab: Crontab,
    zone: TimeZone,
    duration: SignedDuration,
}

impl Times {
    /// Whether a window holds at `now`, and until when, or when the next one begins.
    pub fn at(&self, now: Timestamp) -> Moment {
        match self.first_after(before(now, self.duration)) {
            Some(start) if start <= now => Moment::Within(Some(self.end(after(start, self.duration)))),
            next => Moment::Outside(next),
        }
    }

    /// The end of the windows that follow each other without a gap, given that one ends at `end`.
    fn end(&self, mut end: Timestamp) -> Timestamp {
        for _ in 0..MOST_JOINED {
            match self.first_after(before(end, self.duration)) {
                Some(start) if start <= end => end = after(start, self.duration),
                _ => break,
            }
        }
        end
    }

    /// The first beginning after `moment`. `None`: none in four years.
    pub fn first_after(&self, moment: Timestamp) -> Option<Timestamp> {
        // A clock that is set forward carries beginnings along: look for them from before that.
        let mut face = self.zone.to_datetime(before(moment, LARGEST_SHIFT));
        loop {
            face = self.next_on_clock(face)?;
            let start = self.instant(face)?;
            if start > moment {
                return Some(start);
            }
        }
    }

    /// The next beginning on a clock that is never set.
    fn next_on_clock(&self, face: DateTime) -> Option<DateTime> {
        let as_utc = TimeZone::UTC.to_timestamp(face).ok()?;
        self.crontab.find_next(as_utc).ok().map(|next| next.datetime())
    }

    /// When the clock there shows this: at the first of two such moments; if the clock skips it, as long after the skip
    /// as it would have been after its beginning (RFC 5545's rule, and what calendars do).
    fn instant(&self, face: DateTime) -> Option<Timestamp> {
        self.zone.to_ambiguous_timestamp(face).compatible().ok()
    }
}

fn after(moment: Timestamp, duration: SignedDuration) -> Timestamp {
    moment.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn before(moment: Timestamp, duration: SignedDuration) -> Timestamp {
    moment.checked_sub(duration).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(cron: &str, hours: u64, zone: &str) -> Times {
        let schedule = Schedule { cron: cron.into(), duration_seconds: hours * 3600, time_zone: zone.into() };
        schedule.times().unwrap_or_else(|error| panic!("{error}"))
    }

    fn t(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn working_hours_in_shanghai() {
        let times = times("0 10 * * 1-5", 8, "Asia/Shanghai");
        // A Monday.
        assert_eq!(times.at(t("2026-11-23T01:59:00Z")), Moment::Outside(Some(t("2026-11-23T02:00:00Z"))));
        assert_eq!(times.at(t("2026-11-23T02:00:00Z")), Moment::Within(Some(t("2026-11-23T10:00:00Z"))));
        assert_eq!(times.at(t("2026-11-23T09:59:59Z")), Moment::Within(Some(t("2026-11-23T10:00:00Z"))));
        // From Friday's end to Monday's beginning.
        assert_eq!(times.at(t("2026-11-27T10:00:00Z")), Moment::Outside(Some(t("2026-11-30T02:00:00Z"))));
    }

    #[test]
    fn a_beginning_that_the_clock_skips_is_not_lost() {
        // 2026-03-29, 02:00 becomes 03:00 in Berlin; 02:30 is meant as 30 minutes after 02:00, so 03:30 (+02:00).
        let times = times("30 2 * * *", 2, "Europe/Berlin");
        assert_eq!(times.at(t("2026-03-29T00:59:00Z")), Moment::Outside(Some(t("2026-03-29T01:30:00Z"))));
        assert_eq!(times.at(t("2026-03-29T01:30:00Z")), Moment::Within(Some(t("2026-03-29T03:30:00Z"))));
    }

    #[test]
    fn a_beginning_that_the_clock_shows_twice_counts_once() {
        // 2026-10-25, 03:00 becomes 02:00 in Berlin: 02:30 comes at 00:30Z and again at 01:30Z.
        let times = times("30 2 * * *", 1, "Europe/Berlin");
        assert_eq!(times.at(t("2026-10-25T00:29:00Z")), Moment::Outside(Some(t("2026-10-25T00:30:00Z"))));
        assert_eq!(times.at(t("2026-10-25T01:30:00Z")), Moment::Outside(Some(t("2026-10-26T01:30:00Z"))));
    }

    #[test]
    fn a_window_over_midnight_of_the_change_lasts_as_long_as_any() {
        let times = times("0 22 * * *", 8, "America/New_York");
        let Moment::Within(Some(end)) = times.at(t("2026-11-01T04:00:00Z")) else { panic!("22:00 has passed") };
        assert_eq!(end, t("2026-11-01T10:00:00Z"), "05:00 on the clock, since it was set back at 02:00");
    }

    #[test]
    fn windows_that_touch_or_overlap_are_one() {
        let touching = times("0 0,4 * * *", 4, "UTC");
        assert_eq!(touching.at(t("2026-01-01T01:00:00Z")), Moment::Within(Some(t("2026-01-01T08:00:00Z"))));
        let always = times("0 * * * *", 2, "UTC");
        let Moment::Within(Some(end)) = always.at(t("2026-01-01T00:00:00Z")) else { panic!("it never shuts") };
        assert!(end > t("2026-01-05T00:00:00Z"), "{end}");
    }

    #[test]
    fn one_that_never_comes_is_outside_for_ever() {
        assert_eq!(times("0 0 30 2 *", 1, "UTC").at(t("2026-01-01T00:00:00Z")), Moment::Outside(None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let told = |cron: &str, seconds, zone: &str| {
            let mut v = Validator::new();
            Schedule { cron: cron.into(), duration_seconds: seconds, time_zone: zone.into() }.validate(&mut v);
            v.finish()
                .err()
                .map(|invalid| invalid.0.into_iter().map(|e| e.path).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        assert_eq!(told("0 1 * * *", 3600, "Europe/Berlin"), [] as [&str; 0]);
        assert_eq!(told("0 1 * * * UTC", 3600, "UTC"), ["cron"]);
        assert_eq!(told("61 1 * * *", 3600, "UTC"), ["cron"]);
        assert_eq!(told("0 1 * * *", 1, "Mars/Olympus"), ["durationSeconds", "timeZone"]);
    }
}
