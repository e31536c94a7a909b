//! Protection windows taken together: whether a place may change at a moment, and from when.
//!
//! - A suppressing window that holds shuts every place in its scope: suppression beats permission.
//! - Permission is inherited: of the permitting windows that concern a place, those count that name it most closely (its
//!   app before its business line, before its unit, before the fleet). If there are any, the place is shut unless one of
//!   them holds. A place that nobody wrote a permitting window for may change at any time.
//! - A roll-back needs no permission, and waits only for suppressing windows that say so.
//!
//! Pure. Schedules are read once ([`Windows::new`]), the windows of a place are found once ([`Windows::calendar`]), and
//! each window is asked once per moment ([`Windows::at`]), whatever the number of places.

mod words;

use std::collections::HashMap;

use jiff::Timestamp;
use weir_model::FreezeSpec;
use weir_model::freeze::{Effect, Moment, Place, Window};

pub use words::explain;

/// All windows that there are.
#[derive(Debug, Default)]
pub struct Windows<'a> {
    windows: Vec<Window<'a>>,
    /// Places in `windows` by the apps they name, and of those that name none.
    of_app: HashMap<&'a str, Vec<u32>>,
    of_any: Vec<u32>,
}

/// The windows that concern one place, as places in [`Windows`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calendar {
    suppress: Vec<u32>,
    permit: Vec<u32>,
}

/// How all windows stand at one moment.
#[derive(Debug, Clone)]
pub struct Face {
    moments: Vec<Moment>,
}

/// Why a place may not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut<'a> {
    /// Place, in the list that [`Windows::new`] was given, of the window that is waited for.
    pub window: usize,
    /// What its author says.
    pub reason: &'a str,
    /// Not before then; `None`: no end is known.
    pub until: Option<Timestamp>,
}

/// Which way an instance is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To something new.
    Forward,
    /// To what it was.
    Back,
}

impl<'a> Windows<'a> {
    /// Reads them.
    pub fn new(specs: &'a [FreezeSpec]) -> Windows<'a> {
        let windows: Vec<Window<'_>> = specs.iter().map(Window::new).collect();
        let (mut of_app, mut of_any) = (HashMap::<&str, Vec<u32>>::new(), Vec::new());
        for (number, window) in (0..).zip(&windows) {
            match window.spec().apps.as_slice() {
                [] => of_any.push(number),
                apps => apps.iter().for_each(|app| of_app.entry(app).or_default().push(number)),
            }
        }
        Windows { windows, of_app, of_any }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    fn window(&self, number: u32) -> &Window<'a> {
        &self.windows[number as usize]
    }

    /// Those that concern `place`: all that suppress, and the most closely naming of those that permit.
    pub fn calendar(&self, place: Place<'_>) -> Calendar {
        let own = self.of_app.get(place.app).into_iter().flatten().copied();
        let concerned = own.chain(self.of_any.iter().copied()).filter(|n| self.window(*n).spec().concerns(place));
        let (suppress, mut permit): (Vec<u32>, Vec<u32>) =
            concerned.partition(|n| self.window(*n).spec().effect == Effect::Suppress);
        let rank = |n: &u32| self.window(*n).spec().rank();
        let closest = permit.iter().map(rank).max();
        permit.retain(|n| Some(rank(n)) == closest);
        Calendar { suppress, permit }
    }

    /// Asks all of them.
    pub fn at(&self, now: Timestamp) -> Face {
        Face { moments: self.windows.iter().map(|window| window.at(now)).collect() }
    }

    /// Why a place with this calendar may not change; `None`: it may.
    pub fn shut(&self, calendar: &Calendar, face: &Face, way: Way) -> Option<Shut<'a>> {
        let suppressed = self.suppressed(calendar, face, way);
        let waits = if way == Way::Back { None } else { self.not_permitted(calendar, face) };
        match (suppressed, waits) {
            (Some(a), Some(b)) => Some(Shut { until: a.until.zip(b.until).map(|(a, b)| a.max(b)), ..a }),
            (a, b) => a.or(b),
        }
    }

    fn waiting(&self, number: u32, until: Option<Timestamp>) -> Shut<'a> {
        Shut { window: number as usize, reason: &self.window(number).spec().reason, until }
    }

    /// The one of those that hold which lasts longest.
    fn suppressed(&self, calendar: &Calendar, face: &Face, way: Way) -> Option<Shut<'a>> {
        let counts = |n: &&u32| way == Way::Forward || self.window(**n).spec().roll_backs_too;
        let holding = calendar.suppress.iter().filter(counts).filter_map(|n| match face.moments[*n as usize] {
            Moment::Within(until) => Some(self.waiting(*n, until)),
            Moment::Outside(_) => None,
        });
        holding.max_by_key(|shut| shut.until.unwrap_or(Timestamp::MAX))
    }

    /// If no permitting window holds: the one that comes first.
    fn not_permitted(&self, calendar: &Calendar, face: &Face) -> Option<Shut<'a>> {
        let mut next: Option<Shut<'a>> = None;
        for number in &calendar.permit {
            let Moment::Outside(until) = face.moments[*number as usize] else { return None };
            let earlier = next.as_ref().is_none_or(|n| until.is_some_and(|u| n.until.is_none_or(|n| u < n)));
            if earlier {
                next = Some(self.waiting(*number, until));
            }
        }
        next
    }

    /// The first moment after `face`'s at which any window begins or ends.
    pub fn next_change(&self, face: &Face) -> Option<Timestamp> {
        face.moments
            .iter()
            .filter_map(|moment| match moment {
                Moment::Within(until) => *until,
                Moment::Outside(from) => *from,
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_model::freeze::Schedule;

    use super::*;

    const PAY: Place<'_> = Place { app: "pay", line: "money", unit: "east" };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment near 1970")
    }

    fn window(effect: Effect, from: i64, until: i64) -> FreezeSpec {
        let reason = format!("{effect:?} {from} to {until}");
        FreezeSpec { effect, from: Some(at(from)), until: Some(at(until)), reason, ..FreezeSpec::default() }
    }

    fn names(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    /// Until when `PAY` is shut at a moment; `None`: it is open.
    fn shut(specs: &[FreezeSpec], now: i64, way: Way) -> Option<Option<Timestamp>> {
        let windows = Windows::new(specs);
        windows.shut(&windows.calendar(PAY), &windows.at(at(now)), way).map(|shut| shut.until)
    }

    #[test]
    fn whoever_has_no_window_may_change() {
        assert_eq!(shut(&[], 0, Way::Forward), None);
        let other = FreezeSpec { apps: names("stock"), ..window(Effect::Permit, 10, 20) };
        assert_eq!(shut(&[other], 0, Way::Forward), None);
    }

    #[test]
    fn suppression_beats_permission() {
        let both = [window(Effect::Permit, 0, 100), window(Effect::Suppress, 10, 20)];
        let held = [5, 10, 19, 20, 100].map(|now| shut(&both, now, Way::Forward));
        assert_eq!(held, [None, Some(Some(at(20))), Some(Some(at(20))), None, Some(None)]);
    }

    #[test]
    fn it_opens_when_the_later_of_both_allows() {
        let both = [window(Effect::Permit, 50, 100), window(Effect::Suppress, 0, 20)];
        assert_eq!(shut(&both, 5, Way::Forward), Some(Some(at(50))));
        let both = [window(Effect::Permit, 50, 100), window(Effect::Suppress, 0, 60)];
        assert_eq!(shut(&both, 5, Way::Forward), Some(Some(at(60))));
    }

    #[test]
    fn permission_is_inherited_until_it_is_named_more_closely() {
        let fleet = window(Effect::Permit, 0, 10);
        let line = FreezeSpec { lines: names("money"), ..window(Effect::Permit, 20, 30) };
        let app = FreezeSpec { apps: names("pay"), ..window(Effect::Permit, 40, 50) };
        assert_eq!(shut(std::slice::from_ref(&fleet), 5, Way::Forward), None);
        assert_eq!(shut(&[fleet.clone(), line.clone()], 5, Way::Forward), Some(Some(at(20))));
        assert_eq!(shut(&[fleet, line, app], 25, Way::Forward), Some(Some(at(40))));
    }

    #[test]
    fn a_roll_back_waits_only_for_windows_that_say_so() {
        let permit = window(Effect::Permit, 50, 60);
        let sale = window(Effect::Suppress, 0, 100);
        assert_eq!(shut(&[permit, sale.clone()], 5, Way::Back), None);
        let red_button = FreezeSpec { roll_backs_too: true, ..sale };
        assert_eq!(shut(&[red_button], 5, Way::Back), Some(Some(at(100))));
    }

    #[test]
    fn one_that_never_opens_has_no_end() {
        let schedule = Some(Schedule { cron: "0 0 30 2 *".into(), duration_seconds: 60, ..Schedule::default() });
        let never = FreezeSpec { effect: Effect::Permit, schedule, reason: "30 February".into(), ..Default::default() };
        assert_eq!(shut(&[never], 0, Way::Forward), Some(None));
    }

    fn any_window() -> impl Strategy<Value = FreezeSpec> {
        let scope = prop_oneof![Just(0), Just(1), Just(2), Just(3), Just(4)];
        (any::<bool>(), 0_i64..200, 1_i64..100, scope).prop_map(|(suppress, from, length, scope)| {
            let effect = if suppress { Effect::Suppress } else { Effect::Permit };
            let mut spec = window(effect, from, from + length);
            match scope {
                1 => spec.units = names("east"),
                2 => spec.lines = names("money"),
                3 => spec.apps = names("pay"),
                4 => spec.apps = names("stock"),
                _ => {}
            }
            spec
        })
    }

    proptest! {
        /// Waiting until the moment that is told never skips an opening, and looking again at each such moment finds it.
        #[test]
        fn who_waits_as_told_misses_no_opening(specs in proptest::collection::vec(any_window(), 0..8), now in 0_i64..250) {
            let first_open = (now..400).find(|t| shut(&specs, *t, Way::Forward).is_none());
            let mut looked = now;
            let found = loop {
                match shut(&specs, looked, Way::Forward) {
                    None => break Some(looked),
                    Some(None) => break None,
                    Some(Some(until)) => {
                        prop_assert!(until.as_second() > looked, "time goes on");
                        looked = until.as_second();
                    }
                }
            };
            // "No end is known" is said of the windows as they stand: one that is shut by a window without an end.
            if let Some(found) = found {
                prop_assert_eq!(Some(found), first_open);
            } else {
                prop_assert_eq!(first_open, None);
            }
        }

        /// Between two changes of any window nothing changes for anybody.
        #[test]
        fn nothing_happens_between_changes(specs in proptest::collection::vec(any_window(), 0..8), now in 0_i64..250) {
            let windows = Windows::new(&specs);
            let face = windows.at(at(now));
            let next = windows.next_change(&face).map_or(400, Timestamp::as_second);
            let open = shut(&specs, now, Way::Forward).is_none();
            for t in now..next.min(400) {
                prop_assert_eq!(shut(&specs, t, Way::Forward).is_none(), open);
            }
        }
    }
}
