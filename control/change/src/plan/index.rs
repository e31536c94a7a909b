//! The fleet in numbers: every name is looked up once, and planning then compares and counts integers.
//!
//! Numbers are given in the order of names, so that a plan doesn't depend on the order in which the fleet was read.

use std::collections::{HashMap, HashSet};

use weir_model::freeze;

use super::Input;
use crate::world::{Member, State};

/// An instance and what it belongs to, by number.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub member: &'a Member,
    pub app: u32,
    pub unit: u32,
    /// App and unit.
    pub place: u32,
    /// App, unit and zone.
    pub cell: u32,
    /// Stack, unit and tier.
    pub stratum: u32,
    pub standing: Standing,
}

/// Where an instance stands in the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A passed batch has changed it.
    Changed,
    /// It is still to change.
    Left,
    /// It is no concern of the change: out of scope, there already, or let go.
    Apart,
}

/// An app in a unit.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub app: &'a str,
    pub line: &'a str,
    pub unit: &'a str,
    /// Instances, whoever runs them: what "only one" refers to.
    pub size: u64,
}

impl<'a> Place<'a> {
    /// As protection windows see it.
    pub fn of_windows(&self) -> freeze::Place<'a> {
        freeze::Place { app: self.app, line: self.line, unit: self.unit }
    }
}

/// The fleet.
pub(super) struct Index<'a> {
    /// In the order of app, unit, zone, name.
    pub spots: Vec<Spot<'a>>,
    pub places: Vec<Place<'a>>,
    pub apps: usize,
    pub units: usize,
    pub strata: usize,
}

impl<'a> Index<'a> {
    pub fn new(input: &Input<'a>) -> Index<'a> {
        let apps = Ranks::of(input.members, |m| &m.app);
        let units = Ranks::of(input.members, |m| &m.unit);
        let zones = Ranks::of(input.members, |m| &m.zone);
        let mut strata = Strata::default();
        let mut spots: Vec<Spot> = Vec::with_capacity(input.members.len());
        let (mut place, mut cell, mut before) = (0, 0, None);
        for ([app, unit, zone], member) in in_order(input.members, [&apps, &units, &zones]) {
            // In this order, what belongs together comes together.
            let same_place = before.is_none_or(|(a, u, _)| (a, u) == (app, unit));
            let same_cell = before.is_none_or(|(_, _, z)| same_place && z == zone);
            place += u32::from(!same_place);
            cell += u32::from(!same_cell);
            before = Some((app, unit, zone));
            let stratum = strata.number(member, unit);
            spots.push(Spot { member, app, unit, place, cell, stratum, standing: standing(input, member) });
        }
        let places = spots.last().map_or(0, |s| s.place as usize + 1);
        let (apps, units, strata) = (apps.0.len(), units.0.len(), strata.known.len());
        Index { places: sizes(&spots, places), spots, apps, units, strata }
    }
}

/// By app, unit, zone, name, with the ranks of the first three.
fn in_order<'a>(members: &'a [Member], [apps, units, zones]: [&Ranks<'a>; 3]) -> Vec<([u32; 3], &'a Member)> {
    let mut last = ("", None);
    let mut app_of = |m: &'a Member| {
        if last.1.is_none() || *last.0 != *m.app {
            last = (&*m.app, Some(apps.rank(&m.app)));
        }
        last.1.unwrap_or_default()
    };
    let mut keyed: Vec<([u32; 3], &Member)> =
        members.iter().map(|m| ([app_of(m), units.rank(&m.unit), zones.rank(&m.zone)], m)).collect();
    // A fleet is read in the order of names as a rule; a stable sort keeps it.
    if !members.is_sorted_by(|a, b| a.name <= b.name) {
        keyed.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    }
    keyed.sort_by_key(|(key, _)| *key);
    keyed
}

fn sizes<'a>(spots: &[Spot<'a>], places: usize) -> Vec<Place<'a>> {
    let mut sizes = vec![Place { app: "", line: "", unit: "", size: 0 }; places];
    for spot in spots {
        let size = sizes[spot.place as usize].size + 1;
        let Member { app, line, unit, .. } = spot.member;
        sizes[spot.place as usize] = Place { app, line, unit, size };
    }
    sizes
}

fn standing(input: &Input, member: &Member) -> Standing {
    let past = input.past;
    if !member.in_scope {
        Standing::Apart
    } else if past.changed.contains(&member.name) {
        Standing::Changed
    } else if &*member.wanted != input.target && !past.left.contains(&member.name) {
        Standing::Left
    } else {
        Standing::Apart
    }
}

impl Spot<'_> {
    /// It can go, as far as it itself is concerned.
    pub fn may_go(&self) -> bool {
        self.standing == Standing::Left && self.member.state == State::Serving
    }
}

/// Distinct names, each with its place in their order.
struct Ranks<'a>(HashMap<&'a str, u32>);

impl<'a> Ranks<'a> {
    fn of(members: &'a [Member], name: impl Fn(&'a Member) -> &'a str) -> Ranks<'a> {
        let mut distinct: HashSet<&str> = HashSet::new();
        let mut last = None;
        for name in members.iter().map(name) {
            if last != Some(name) {
                distinct.insert(name);
                last = Some(name);
            }
        }
        let mut sorted: Vec<&str> = distinct.into_iter().collect();
        sorted.sort_unstable();
        Ranks(sorted.into_iter().zip(0..).collect())
    }

    fn rank(&self, name: &str) -> u32 {
        self.0[name]
    }
}

/// Strata, numbered in the order of first appearance.
#[derive(Default)]
struct Strata<'a> {
    known: HashMap<(&'a str, u32, u8), u32>,
    last: Option<((&'a str, u32, u8), u32)>,
}

impl<'a> Strata<'a> {
    fn number(&mut self, member: &'a Member, unit: u32) -> u32 {
        let key = (&*member.stack, unit, member.tier);
        if let Some((_, number)) = self.last.filter(|(last, _)| *last == key) {
            return number;
        }
        let next = self.known.len() as u32;
        let number = *self.known.entry(key).or_insert(next);
        self.last = Some((key, number));
        number
    }
}
