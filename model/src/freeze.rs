//! Freeze: a protection window. A suppressing one forbids what is in its scope while it holds; a permitting one says
//! when what is in its scope may change at all. Suppression beats permission.

mod schedule;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

pub use schedule::{MAX_DURATION_SECONDS, Schedule, Times};

/// A protection window.
pub type Freeze = Resource<FreezeSpec>;

/// When, for whom, and whether change is forbidden or permitted then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FreezeSpec {
    /// What it means to be within the window.
    pub effect: Effect,
    /// Begins here; absent: always has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Ends here, exclusive; absent: until the Freeze is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Between `from` and `until` it holds only at these times; absent: throughout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Only these apps; empty: all.
    pub apps: Vec<String>,
    /// Only apps of these business lines; empty: all.
    pub lines: Vec<String>,
    /// Only these units; empty: all.
    pub units: Vec<String>,
    /// Roll-backs wait too; otherwise a change that did harm may still be undone.
    pub roll_backs_too: bool,
    /// Why, for those who wait.
    pub reason: String,
}

/// What a window does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// Nothing in its scope changes while it holds.
    #[default]
    Suppress,
    /// What is in its scope changes only while it, or another of the same rank, holds.
    Permit,
}

/// Where an instance belongs, as far as windows are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place<'a> {
    /// Its app.
    pub app: &'a str,
    /// The business line of its app; may be empty.
    pub line: &'a str,
    /// Its unit.
    pub unit: &'a str,
}

/// Where a moment lies with regard to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It holds, until then; `None`: for ever.
    Within(Option<Timestamp>),
    /// It does not hold, but will from then; `None`: never again.
    Outside(Option<Timestamp>),
}

impl FreezeSpec {
    /// True if instances there are in its scope.
    pub fn concerns(&self, place: Place<'_>) -> bool {
        let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
        named(&self.apps, place.app) && named(&self.lines, place.line) && named(&self.units, place.unit)
    }

    /// How closely it names its scope: by app 3, by business line 2, by unit 1, not at all 0. An app's own permitting
    /// windows stand in place of those it would inherit.
    pub fn rank(&self) -> u8 {
        match (self.apps.is_empty(), self.lines.is_empty(), self.units.is_empty()) {
            (false, ..) => 3,
            (true, false, _) => 2,
            (true, true, false) => 1,
            (true, true, true) => 0,
        }
    }

    /// Whether it holds at `now`, and until or from when; see [`Window::at`], which reads the schedule only once.
    pub fn at(&self, now: Timestamp) -> Moment {
        Window::new(self).at(now)
    }

    /// True if it suppresses instances there at `now`. Permission is a matter of all windows together.
    pub fn forbids(&self, place: Place<'_>, now: Timestamp) -> bool {
        self.effect == Effect::Suppress && self.concerns(place) && matches!(self.at(now), Moment::Within(_))
    }
}

/// A window whose schedule has been read.
#[derive(Debug)]
pub struct Window<'a> {
    spec: &'a FreezeSpec,
    times: Option<Result<Times, String>>,
}

impl<'a> Window<'a> {
    /// Reads the schedule.
    pub fn new(spec: &'a FreezeSpec) -> Window<'a> {
        let times = spec.schedule.as_ref().map(Schedule::times);
        Window { spec, times }
    }

    /// What it was made from.
    pub fn spec(&self) -> &'a FreezeSpec {
        self.spec
    }

    /// Whether it holds at `now`, and until or from when. A schedule that cannot be read holds throughout if it
    /// suppresses and never if it permits: nothing changes because of a mistake.
    pub fn at(&self, now: Timestamp) -> Moment {
        if self.spec.until.is_some_and(|until| until <= now) {
            return Moment::Outside(None);
        }
        let begins = self.spec.from.filter(|from| *from > now);
        let moment = match (begins, self.scheduled(begins.unwrap_or(now))) {
            (Some(from), Moment::Within(_)) => Moment::Outside(Some(from)),
            (_, moment) => moment,
        };
        self.cut_off(moment)
    }

    fn scheduled(&self, now: Timestamp) -> Moment {
        match (&self.times, self.spec.effect) {
            (None, _) | (Some(Err(_)), Effect::Suppress) => Moment::Within(None),
            (Some(Err(_)), Effect::Permit) => Moment::Outside(None),
            (Some(Ok(times)), _) => times.at(now),
        }
    }

    /// What lies after its end does not count.
    fn cut_off(&self, moment: Moment) -> Moment {
        match (moment, self.spec.until) {
            (Moment::Within(end), Some(until)) => Moment::Within(Some(end.map_or(until, |end| end.min(until)))),
            (Moment::Outside(Some(start)), Some(until)) if start >= until => Moment::Outside(None),
            (moment, _) => moment,
        }
    }
}

impl Spec for FreezeSpec {
    const KIND: Kind = Kind::Freeze;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        let ordered = !matches!((self.from, self.until), (Some(from), Some(until)) if until <= from);
        v.require(ordered, "until", "must be after from");
        v.require(!self.reason.is_empty(), "reason", "must say why, for those who wait");
        let stays = self.effect == Effect::Suppress || !self.roll_backs_too;
        v.require(stays, "rollBacksToo", "is for suppressing windows: a roll-back needs no permission");
        if let Some(schedule) = &self.schedule {
            v.within("schedule", |v| schedule.validate(v));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment in 1970")
    }

    const ORDER: Place<'_> = Place { app: "order", line: "trade", unit: "east" };

    #[test]
    fn it_holds_from_its_beginning_until_before_its_end() {
        let freeze = FreezeSpec { from: Some(at(10)), until: Some(at(20)), ..FreezeSpec::default() };
        let held = [9, 10, 19, 20].map(|second| freeze.forbids(ORDER, at(second)));
        assert_eq!(held, [false, true, true, false]);
        assert_eq!(freeze.at(at(9)), Moment::Outside(Some(at(10))));
        assert_eq!(freeze.at(at(10)), Moment::Within(Some(at(20))));
        assert_eq!(freeze.at(at(20)), Moment::Outside(None));
    }

    #[test]
    fn it_holds_those_it_names() {
        let names = |name: &str| vec![name.to_owned()];
        let freeze = FreezeSpec { apps: names("order"), units: names("east"), ..FreezeSpec::default() };
        assert!(freeze.forbids(ORDER, at(0)));
        assert!(!freeze.forbids(Place { app: "stock", ..ORDER }, at(0)));
        assert!(!freeze.forbids(Place { unit: "west", ..ORDER }, at(0)));
        let line = FreezeSpec { lines: names("trade"), ..FreezeSpec::default() };
        assert!(line.forbids(ORDER, at(0)) && !line.forbids(Place { line: "", ..ORDER }, at(0)));
        assert!(FreezeSpec::default().forbids(ORDER, at(0)));
    }

    #[test]
    fn a_schedule_counts_only_between_beginning_and_end() {
        let schedule = Schedule { cron: "0 * * * *".into(), duration_seconds: 600, time_zone: "UTC".into() };
        let freeze = FreezeSpec {
            from: Some(at(3_900)),
            until: Some(at(7_500)),
            schedule: Some(schedule),
            ..Default::default()
        };
        assert_eq!(freeze.at(at(0)), Moment::Outside(Some(at(3_900))), "within an hour's window, but not yet begun");
        assert_eq!(freeze.at(at(4_000)), Moment::Within(Some(at(4_200))));
        assert_eq!(freeze.at(at(5_000)), Moment::Outside(Some(at(7_200))));
        assert_eq!(freeze.at(at(7_300)), Moment::Within(Some(at(7_500))));
        assert_eq!(freeze.at(at(7_500)), Moment::Outside(None));
    }

    #[test]
    fn a_schedule_that_cannot_be_read_lets_nothing_change() {
        let schedule = Some(Schedule { cron: "nonsense".into(), ..Schedule::default() });
        let suppress = FreezeSpec { schedule: schedule.clone(), ..Default::default() };
        let permit = FreezeSpec { schedule, effect: Effect::Permit, ..Default::default() };
        assert_eq!(suppress.at(at(0)), Moment::Within(None));
        assert_eq!(permit.at(at(0)), Moment::Outside(None));
    }
}
