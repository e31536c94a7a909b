//! The fleet in numbers: every name is looked up once, and planning then compares and counts integers.
//!
//! Numbers are given in the order of names, so that a plan doesn't depend on the order in which the fleet was read.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

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
        let stacks = Ranks::of(input.members, |m| &m.stack);
        let (mut places, mut cells, mut strata) = (Numbers::default(), Numbers::default(), Numbers::default());
        let mut spots = Vec::with_capacity(input.members.len());
        for member in in_order(input.members, [&apps, &units, &zones]) {
            let (app, unit) = (apps.rank(&member.app), units.rank(&member.unit));
            let place = places.number((app, unit));
            spots.push(Spot {
                member,
                app,
                unit,
                place,
                cell: cells.number((place, zones.rank(&member.zone))),
                stratum: strata.number((stacks.rank(&member.stack), unit, member.tier)),
                standing: standing(input, member),
            });
        }
        let (apps, units, strata) = (apps.0.len(), units.0.len(), strata.0.len());
        Index { places: sizes(&spots, places.0.len()), spots, apps, units, strata }
    }
}

/// By app, unit, zone, name.
fn in_order<'a>(members: &'a [Member], [apps, units, zones]: [&Ranks<'a>; 3]) -> Vec<&'a Member> {
    let mut keyed: Vec<([u32; 3], &Member)> =
        members.iter().map(|m| ([apps.rank(&m.app), units.rank(&m.unit), zones.rank(&m.zone)], m)).collect();
    keyed.sort_unstable_by(|(a, m), (b, n)| a.cmp(b).then_with(|| m.name.cmp(&n.name)));
    keyed.into_iter().map(|(_, member)| member).collect()
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
        let distinct: HashSet<&str> = members.iter().map(name).collect();
        let mut sorted: Vec<&str> = distinct.into_iter().collect();
        sorted.sort_unstable();
        Ranks(sorted.into_iter().zip(0..).collect())
    }

    fn rank(&self, name: &str) -> u32 {
        self.0[name]
    }
}

/// Numbers in the order of first appearance.
struct Numbers<K>(HashMap<K, u32>);

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Numbers(HashMap::new())
    }
}

impl<K: Eq + Hash> Numbers<K> {
    fn number(&mut self, key: K) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(key).or_insert(next)
    }
}
