//! The state of planning: who is left, and how far the scope and each app have climbed.

use jiff::Timestamp;

use super::calendar::Calendar;
use super::climb::{Climb, Room};
use super::index::{Index, Spot, Standing};
use super::{Deferred, Input, Planned, Wait, later, waves, why};
use crate::windows::{Face, Shut};
use crate::world::State;

pub(super) struct Course<'a> {
    input: &'a Input<'a>,
    index: Index<'a>,
    calendar: Calendar<'a>,
    /// Those left to change, in the order in which they go.
    open: Vec<Candidate>,
    all: Climb,
    apps: Vec<Climb>,
    /// Strata from which a batch has taken an instance.
    proven: Vec<bool>,
}

/// What choosing needs of an instance, close together in memory: every batch passes over all that are left.
#[derive(Clone, Copy)]
struct Candidate {
    spot: u32,
    app: u32,
    place: u32,
    stratum: u32,
    weight: u64,
}

impl<'a> Course<'a> {
    pub fn new(input: &'a Input<'a>) -> Course<'a> {
        let index = Index::new(input);
        let calendar = Calendar::new(input.freezes, &index.places);
        let (apps, proven) = (vec![Climb::default(); index.apps], vec![false; index.strata]);
        let mut course = Course { input, open: order(&index), index, calendar, all: Climb::default(), apps, proven };
        course.read();
        course
    }

    /// Notes how far the scope and each app are.
    fn read(&mut self) {
        for at in 0..self.index.spots.len() {
            let spot = self.index.spots[at];
            if spot.standing != Standing::Apart {
                self.all.total += spot.member.weight;
                self.apps[spot.app as usize].total += spot.member.weight;
            }
            if spot.standing == Standing::Changed {
                self.climb(spot.app, spot.stratum, spot.member.weight);
            }
        }
    }

    fn climb(&mut self, app: u32, stratum: u32, weight: u64) {
        self.all.add(weight);
        self.apps[app as usize].add(weight);
        self.proven[stratum as usize] = true;
    }

    fn spot(&self, candidate: &Candidate) -> &Spot<'a> {
        &self.index.spots[candidate.spot as usize]
    }

    /// Who has to wait at `now`, and for what.
    pub fn deferred(&self, now: Timestamp) -> Vec<Deferred> {
        let face = self.calendar.at(now);
        let wait = |s: &Spot<'a>| {
            let unwell = s.member.state != State::Serving;
            let health = || format!("it {} {}", s.member.state.words(), s.member.message).trim_end().to_owned();
            self.shut(s, &face).or_else(|| unwell.then(|| Wait::Health(health())))
        };
        let left = self.index.spots.iter().filter(|s| s.standing == Standing::Left);
        left.filter_map(|s| Some(Deferred { instance: s.member.name.clone(), wait: wait(s)? })).collect()
    }

    /// Those whose window shuts before their turn has come and is not known to open again.
    pub fn left_over(&self, at: Timestamp) -> Vec<Deferred> {
        let face = self.calendar.at(at);
        let deferred = |s: &Spot<'a>| Some(Deferred { instance: s.member.name.clone(), wait: self.shut(s, &face)? });
        self.open.iter().filter_map(|c| deferred(self.spot(c))).collect()
    }

    fn shut(&self, spot: &Spot<'a>, face: &Face) -> Option<Wait> {
        let Shut { reason, until, .. } = self.calendar.shut(spot.place, face)?;
        Some(Wait::Window { reason: reason.into(), until })
    }

    /// The next moment after `at` at which one of those left may be free.
    pub fn opens_after(&self, at: Timestamp) -> Option<Timestamp> {
        let mut asked = vec![false; self.index.places.len()];
        let fresh = |c: &&Candidate| !std::mem::replace(&mut asked[c.place as usize], true);
        let face = self.calendar.at(at);
        let shut = self.open.iter().filter(fresh).filter_map(|c| self.calendar.shut(c.place, &face));
        shut.filter_map(|shut| shut.until).min()
    }

    /// Fills the next batch from those whose window is open at `at`; `None`: there is nobody.
    pub fn next_batch(&mut self, at: Timestamp) -> Option<Planned> {
        let shut = self.calendar.all_shut(at);
        let is_free = |c: &&Candidate| shut.as_ref().is_none_or(|shut| !shut[c.place as usize]);
        let (lightest, of_apps) = self.lightest(self.open.iter().filter(is_free));
        let ladder = self.input.ladder;
        let room = self.all.room(ladder, lightest?);
        let rooms = self.apps.iter().zip(of_apps).map(|(climb, lightest)| climb.room(ladder, lightest)).collect();
        let touched = vec![false; self.index.strata];
        let mut picker = Picker { proven: &self.proven, room, rooms, touched, picked: Vec::new(), lightest: lightest? };
        picker.pick(self.open.iter().filter(is_free));
        let picked = picker.picked;
        let planned = self.planned(&picked, room.rung, at);
        self.take(&picked);
        Some(planned)
    }

    /// The least weight of all, and of each app.
    fn lightest<'c>(&self, free: impl Iterator<Item = &'c Candidate>) -> (Option<u64>, Vec<u64>) {
        let mut of_apps = vec![u64::MAX; self.apps.len()];
        let mut of_all = None;
        for candidate in free {
            let of_app = &mut of_apps[candidate.app as usize];
            *of_app = candidate.weight.min(*of_app);
            of_all = Some(of_all.map_or(candidate.weight, |least: u64| least.min(candidate.weight)));
        }
        (of_all, of_apps)
    }

    fn planned(&self, picked: &[Candidate], rung: usize, at: Timestamp) -> Planned {
        let spots: Vec<&Spot> = picked.iter().map(|c| self.spot(c)).collect();
        let why = why::batch(&why::Facts {
            percent: self.input.ladder[rung].percent,
            picked: &spots,
            unproven: |s: &Spot| !self.proven[s.stratum as usize],
            only_one: |s: &Spot| self.index.places[s.place as usize].size == 1,
        });
        let moves = waves::forecast(&spots, &self.index.places, self.input, self.all.total);
        let seconds = moves.saturating_add(self.input.ladder[rung].bake_seconds);
        let instances = spots.iter().map(|s| s.member.name.clone()).collect();
        Planned { rung, instances, why, start: at, end: later(at, seconds.max(1)) }
    }

    fn take(&mut self, picked: &[Candidate]) {
        let mut taken = vec![false; self.index.spots.len()];
        for candidate in picked {
            taken[candidate.spot as usize] = true;
            self.climb(candidate.app, candidate.stratum, candidate.weight);
        }
        self.open.retain(|c| !taken[c.spot as usize]);
    }
}

/// Those that can go, in the order in which they go: first those that can be compared with another instance of their
/// app in their unit; then canary units, the least important tier, the unit with the least traffic, and apps in turn.
fn order(index: &Index) -> Vec<Candidate> {
    let mut weights = vec![0; index.units];
    let concerned = || index.spots.iter().filter(|s| s.standing != Standing::Apart);
    concerned().for_each(|s| weights[s.unit as usize] += s.member.weight);
    let mut turns = vec![0_u32; index.places.len()];
    let mut keyed = Vec::with_capacity(index.spots.len());
    for (number, spot) in (0_u32..).zip(&index.spots).filter(|(_, s)| s.standing != Standing::Apart) {
        let turn = turns[spot.place as usize];
        turns[spot.place as usize] += 1;
        if spot.may_go() {
            let (member, alone) = (spot.member, index.places[spot.place as usize].size == 1);
            let importance = (alone, !member.canary, u8::MAX - member.tier, weights[spot.unit as usize], turn);
            let Spot { app, place, stratum, .. } = *spot;
            // Spots are numbered by app, unit, zone and name.
            keyed.push((importance, Candidate { spot: number, app, place, stratum, weight: member.weight }));
        }
    }
    keyed.sort_unstable_by_key(|(importance, c)| (*importance, c.spot));
    keyed.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Chooses instances one by one while there is room.
struct Picker<'c> {
    proven: &'c [bool],
    room: Room,
    rooms: Vec<Room>,
    /// Unproven strata from which one has been taken.
    touched: Vec<bool>,
    picked: Vec<Candidate>,
    lightest: u64,
}

impl Picker<'_> {
    /// One of each stratum that nothing has proven, then the others.
    fn pick<'i>(&mut self, free: impl Iterator<Item = &'i Candidate> + Clone) {
        let proven = self.proven;
        let is_proven = |c: &&Candidate| proven[c.stratum as usize];
        if proven.contains(&false) {
            free.clone().filter(|c| !is_proven(c)).all(|c| self.offer(c));
        }
        free.filter(is_proven).all(|c| self.offer(c));
    }

    /// Takes it if it fits; false when nobody can fit any more.
    fn offer(&mut self, candidate: &Candidate) -> bool {
        let stratum = candidate.stratum as usize;
        if !self.touched[stratum] && self.room.fits(candidate.weight) && self.takes(candidate) {
            self.touched[stratum] = !self.proven[stratum];
            self.picked.push(*candidate);
        }
        self.room.fits(self.lightest)
    }

    fn takes(&mut self, candidate: &Candidate) -> bool {
        self.rooms[candidate.app as usize].take(candidate.weight) && self.room.take(candidate.weight)
    }
}
