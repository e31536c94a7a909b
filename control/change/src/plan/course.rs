//! The state of planning: who is left, and how far the scope and each app have climbed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use weir_model::FreezeSpec;

use super::climb::{Climb, Room};
use super::{Deferred, Input, Planned, Wait, later, waves, why, window};
use crate::world::{Member, State};

pub(super) struct Course<'a> {
    input: &'a Input<'a>,
    /// Those left to change, in the order in which they go.
    open: Vec<Candidate<'a>>,
    all: Climb,
    apps: HashMap<&'a str, Climb>,
    proven: BTreeSet<(&'a str, &'a str, u8)>,
    /// Instances of an app in a unit, whoever runs them: what "only one" refers to.
    sizes: HashMap<(&'a str, &'a str), usize>,
}

#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub member: &'a Member,
    /// Position among its app's instances in its unit, so that apps take turns.
    turn: usize,
    unit_weight: u64,
}

impl<'a> Course<'a> {
    pub fn new(input: &'a Input<'a>) -> Course<'a> {
        let mut course = Course {
            input,
            open: Vec::new(),
            all: Climb::default(),
            apps: HashMap::new(),
            proven: BTreeSet::new(),
            sizes: HashMap::new(),
        };
        course.read();
        let mut open = std::mem::take(&mut course.open);
        open.sort_by_key(|c| {
            let m = c.member;
            let alone = course.sizes[&(m.app.as_str(), m.unit.as_str())] == 1;
            let importance = (alone, !m.canary, u8::MAX - m.tier, c.unit_weight, c.turn);
            (importance, m.app.as_str(), m.unit.as_str(), m.zone.as_str(), m.name.as_str())
        });
        course.open = open;
        course
    }

    /// Sorts the fleet into changed, left to change, and not concerned.
    fn read(&mut self) {
        let changed = |m: &Member| self.input.past.changed.contains(&m.name);
        let mut concerned: Vec<&Member> =
            self.input.members.iter().filter(|m| m.in_scope && (changed(m) || is_left(self.input, m))).collect();
        concerned.sort_by_key(|m| (m.cell(), m.name.as_str()));
        let mut unit_weights: HashMap<&str, u64> = HashMap::new();
        concerned.iter().for_each(|m| *unit_weights.entry(&m.unit).or_default() += m.weight);
        let mut turns: HashMap<(&str, &str), usize> = HashMap::new();
        for member in concerned {
            let turn = turns.entry((&member.app, &member.unit)).or_default();
            self.place(Candidate { member, turn: *turn, unit_weight: unit_weights[member.unit.as_str()] });
            *turn += 1;
        }
        self.input.members.iter().for_each(|m| *self.sizes.entry((&m.app, &m.unit)).or_default() += 1);
    }

    fn place(&mut self, candidate: Candidate<'a>) {
        let member = candidate.member;
        self.all.total += member.weight;
        self.apps.entry(&member.app).or_default().total += member.weight;
        if self.input.past.changed.contains(&member.name) {
            self.climb(member);
        } else if member.state == State::Serving {
            self.open.push(candidate);
        }
    }

    fn climb(&mut self, member: &'a Member) {
        self.all.add(member.weight);
        self.apps.entry(&member.app).or_default().add(member.weight);
        self.proven.insert(member.stratum());
    }

    /// Who has to wait at `now`, and for what.
    pub fn deferred(&self, now: Timestamp) -> Vec<Deferred> {
        let wait = |m: &Member| {
            if let Some(freeze) = window(self.input.freezes, m, now) {
                return Some(Wait::Window { reason: freeze.reason.clone(), until: freeze.until });
            }
            let unwell = m.state != State::Serving;
            unwell.then(|| Wait::Health(format!("it {} {}", m.state.words(), m.message).trim_end().to_owned()))
        };
        let left = self.input.members.iter().filter(|m| m.in_scope && is_left(self.input, m));
        left.filter_map(|m| Some(Deferred { instance: m.name.clone(), wait: wait(m)? })).collect()
    }

    /// Those whose window shuts before their turn has come and is not known to open again.
    pub fn left_over(&self, at: Timestamp) -> Vec<Deferred> {
        let wait = |m: &Member| {
            let freeze = window(self.input.freezes, m, at)?;
            Some(Wait::Window { reason: freeze.reason.clone(), until: freeze.until })
        };
        let deferred = |m: &Member| Some(Deferred { instance: m.name.clone(), wait: wait(m)? });
        self.open.iter().filter_map(|c| deferred(c.member)).collect()
    }

    /// Those that may change at `at`, in the order in which they go.
    pub fn free(&self, at: Timestamp) -> Vec<Candidate<'a>> {
        let mut shut: HashMap<(&str, &str), bool> = HashMap::new();
        let mut is_free = |m: &'a Member| {
            let shut = shut.entry((&m.app, &m.unit)).or_insert_with(|| window(self.input.freezes, m, at).is_some());
            !*shut
        };
        self.open.iter().filter(|c| is_free(c.member)).copied().collect()
    }

    /// The next moment after `at` at which a window ends that concerns those left.
    pub fn opens_after(&self, at: Timestamp) -> Option<Timestamp> {
        let cells: BTreeSet<(&str, &str)> =
            self.open.iter().map(|c| (c.member.app.as_str(), c.member.unit.as_str())).collect();
        let shut = |f: &&FreezeSpec| cells.iter().any(|(app, unit)| f.forbids(app, unit, at));
        let ends = self.input.freezes.iter().filter(shut);
        ends.filter_map(|f| f.until).filter(|until| *until > at).min()
    }

    /// Fills the next batch from those that are free.
    pub fn next_batch(&mut self, free: &[Candidate<'a>], at: Timestamp) -> Planned {
        let lightest = free.iter().map(|c| c.member.weight).min().unwrap_or_default();
        let room = self.all.room(self.input.ladder, lightest);
        let picked = self.pick(free, room);
        let why = why::batch(&why::Facts {
            percent: self.input.ladder[room.rung].percent,
            picked: &picked,
            unproven: |m: &Member| !self.proven.contains(&m.stratum()),
            only_one: |m: &Member| self.sizes.get(&(m.app.as_str(), m.unit.as_str())) == Some(&1),
        });
        let seconds = waves::forecast(&picked, self.input.members, self.input.budget, self.all.total)
            * self.input.pace_seconds
            + self.input.ladder[room.rung].bake_seconds;
        self.take(&picked);
        let instances = picked.iter().map(|m| m.name.clone()).collect();
        Planned { rung: room.rung, instances, why, start: at, end: later(at, seconds.max(1)) }
    }

    fn pick(&self, free: &[Candidate<'a>], room: Room) -> Vec<&'a Member> {
        let mut picker = Picker { course: self, room, rooms: self.app_rooms(free), touched: BTreeSet::new() };
        let (first, rest): (Vec<_>, Vec<_>) =
            free.iter().map(|c| c.member).partition(|m| !self.proven.contains(&m.stratum()));
        first.into_iter().chain(rest).filter(|m| picker.takes(m)).collect()
    }

    fn app_rooms(&self, free: &[Candidate<'a>]) -> BTreeMap<&'a str, Room> {
        let mut lightest: BTreeMap<&'a str, u64> = BTreeMap::new();
        for candidate in free {
            let weight = lightest.entry(&candidate.member.app).or_insert(u64::MAX);
            *weight = (*weight).min(candidate.member.weight);
        }
        lightest.into_iter().map(|(app, weight)| (app, self.apps[app].room(self.input.ladder, weight))).collect()
    }

    fn take(&mut self, picked: &[&'a Member]) {
        picked.iter().for_each(|m| self.climb(m));
        let taken: BTreeSet<&str> = picked.iter().map(|m| m.name.as_str()).collect();
        self.open.retain(|c| !taken.contains(c.member.name.as_str()));
    }
}

/// True if `member` still has to change.
fn is_left(input: &Input, member: &Member) -> bool {
    let past = input.past;
    member.wanted != input.target && !past.changed.contains(&member.name) && !past.left.contains(&member.name)
}

/// Chooses instances one by one while there is room.
struct Picker<'c, 'a> {
    course: &'c Course<'a>,
    room: Room,
    rooms: BTreeMap<&'a str, Room>,
    /// Unproven strata from which one has been taken.
    touched: BTreeSet<(&'a str, &'a str, u8)>,
}

impl<'a> Picker<'_, 'a> {
    fn takes(&mut self, member: &'a Member) -> bool {
        let unproven = !self.course.proven.contains(&member.stratum());
        if unproven && self.touched.contains(&member.stratum()) || !self.room.fits(member.weight) {
            return false;
        }
        let Some(app_room) = self.rooms.get_mut(member.app.as_str()) else { return false };
        let taken = app_room.take(member.weight) && self.room.take(member.weight);
        if taken && unproven {
            self.touched.insert(member.stratum());
        }
        taken
    }
}
