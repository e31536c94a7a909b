//! Which instances of a batch may be out at the same time.
//!
//! Budgets count what is out for any reason: an app that has lost an instance by itself has less left to give. An
//! instance that is being stopped still counts, as one that is out: whoever takes its place may not serve yet. An
//! instance that is out anyway costs nothing more and may always go, which is what makes a roll-back quick. (A roll-back
//! leaves those that are out by themselves out of the count: it does not hand them in.)

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use weir_model::FreezeSpec;
use weir_model::change::Budget;

use super::Input;
use super::climb::share;
use super::index::{Place, Spot};
use crate::windows::{Way, Windows};
use crate::world::{Member, Name, State};

/// Exposure is counted over so long (seconds).
pub const EXPOSURE_SECONDS: u64 = 60;

/// What is asked: who of a batch may begin now.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The fleet, by name.
    pub members: &'a [Member],
    /// Instances of the batch that have not begun, in the order in which they go.
    pub waiting: &'a [&'a str],
    /// Instances that this change has let go and that are not back, whichever way they go.
    pub in_flight: &'a BTreeSet<&'a str>,
    /// Traffic weight that this change has let go in the last [`EXPOSURE_SECONDS`]; none for a roll-back.
    pub exposed: u64,
    /// Bounds.
    pub budget: &'a Budget,
    /// Protection windows; empty for a roll-back that may pass through them.
    pub freezes: &'a [FreezeSpec],
}

/// Those that may begin now.
pub fn admit(request: &Request, now: Timestamp) -> Vec<Name> {
    let mut out = Out::read(request);
    let wanted: HashSet<&str> = request.waiting.iter().copied().collect();
    let named = request.members.iter().filter(|m| wanted.contains(&*m.name));
    let by_name: HashMap<&str, &Member> = named.map(|m| (&*m.name, m)).collect();
    let waiting = request.waiting.iter().filter_map(|name| by_name.get(name));
    let windows = Windows::new(request.freezes);
    let face = windows.at(now);
    let shut = |m: &Member| windows.shut(&windows.calendar(m.place()), &face, Way::Forward).is_some();
    let open = waiting.filter(|m| m.state != State::Leaving && !shut(m));
    open.filter(|m| out.admits(m)).map(|m| m.name.clone()).collect()
}

/// How long a batch's instances take to change (seconds): as many rounds as the slowest app or the share in flight asks
/// for, or as long as the share newly exposed per minute does.
pub(super) fn forecast(picked: &[&Spot], places: &[Place], input: &Input, total_weight: u64) -> u64 {
    let budget = input.budget;
    let mut cells: HashMap<u32, (&Spot, u64)> = HashMap::new();
    picked.iter().for_each(|s| cells.entry(s.cell).or_insert((s, 0)).1 += 1);
    let mut rounds: HashMap<u32, u64> = HashMap::new();
    for (spot, count) in cells.into_values() {
        let at_a_time = at_least_one(places[spot.place as usize].size, budget.max_unavailable_percent);
        *rounds.entry(spot.app).or_default() += count.div_ceil(at_a_time);
    }
    let weight: u64 = picked.iter().map(|s| s.member.weight).sum();
    let by_weight = weight.div_ceil(at_least_one(total_weight, budget.max_in_flight_percent));
    let rounds = rounds.into_values().max().unwrap_or(0).max(by_weight);
    let a_minute = at_least_one(total_weight, budget.max_exposed_percent_per_minute);
    let minutes = weight.div_ceil(a_minute).saturating_sub(1);
    rounds.saturating_mul(input.pace_seconds).max(minutes.saturating_mul(EXPOSURE_SECONDS))
}

fn at_least_one(total: u64, percent: f64) -> u64 {
    share(total, percent).max(1)
}

fn place(member: &Member) -> (&str, &str) {
    (&member.app, &member.unit)
}

/// What is out, against what may be.
struct Out<'a> {
    budget: &'a Budget,
    in_flight: &'a BTreeSet<&'a str>,
    /// Per app and unit: all instances, and those out.
    places: HashMap<(&'a str, &'a str), (u64, u64)>,
    /// The one (unit, zone) that is draining, per app.
    draining: HashMap<&'a str, (&'a str, &'a str)>,
    /// Per unit and, under `None`, in all: weight, weight in flight, instances in flight.
    weights: HashMap<Option<&'a str>, InFlight>,
    /// Traffic weight newly exposed within the last minute.
    exposed: u64,
}

#[derive(Default, Clone, Copy)]
struct InFlight {
    total: u64,
    weight: u64,
    count: usize,
}

impl<'a> Out<'a> {
    fn read(request: &'a Request) -> Out<'a> {
        let mut out = Out {
            budget: request.budget,
            in_flight: request.in_flight,
            places: HashMap::new(),
            draining: HashMap::new(),
            weights: HashMap::new(),
            exposed: request.exposed,
        };
        for member in request.members {
            let in_flight = request.in_flight.contains(&*member.name);
            let place = out.places.entry(place(member)).or_default();
            place.0 += 1;
            place.1 += u64::from(in_flight || member.state != State::Serving);
            if in_flight || member.state == State::Moving {
                out.draining.insert(&member.app, (&member.unit, &member.zone));
            }
            if member.state != State::Leaving {
                out.weigh(member, in_flight);
            }
        }
        out
    }

    fn weigh(&mut self, member: &'a Member, in_flight: bool) {
        for scope in [None, Some(&*member.unit)] {
            let weights = self.weights.entry(scope).or_default();
            weights.total += if member.in_scope { member.weight } else { 0 };
            if in_flight {
                weights.weight += member.weight;
                weights.count += 1;
            }
        }
    }

    fn admits(&mut self, member: &'a Member) -> bool {
        let out_anyway = member.state != State::Serving || self.in_flight.contains(&*member.name);
        if out_anyway {
            return true;
        }
        let admitted = self.place_allows(member)
            && self.zone_allows(member)
            && self.weight_allows(member)
            && self.exposure_allows(member);
        if admitted {
            self.note(member);
        }
        admitted
    }

    fn place_allows(&self, member: &Member) -> bool {
        let (all, out) = self.places[&place(member)];
        out < at_least_one(all, self.budget.max_unavailable_percent)
    }

    fn zone_allows(&self, member: &Member) -> bool {
        let here = (&*member.unit, &*member.zone);
        self.draining.get(&*member.app).is_none_or(|cell| *cell == here)
    }

    fn weight_allows(&self, member: &Member) -> bool {
        [None, Some(&*member.unit)].iter().all(|scope| {
            let now = self.weights[scope];
            now.count == 0 || now.weight + member.weight <= share(now.total, self.budget.max_in_flight_percent)
        })
    }

    fn exposure_allows(&self, member: &Member) -> bool {
        let total = self.weights[&None].total;
        let allowed = share(total, self.budget.max_exposed_percent_per_minute);
        self.exposed == 0 || self.exposed + member.weight <= allowed
    }

    fn note(&mut self, member: &'a Member) {
        self.exposed += member.weight;
        self.places.entry(place(member)).or_default().1 += 1;
        self.draining.insert(&member.app, (&member.unit, &member.zone));
        for scope in [None, Some(&*member.unit)] {
            let weights = self.weights.entry(scope).or_default();
            weights.weight += member.weight;
            weights.count += 1;
        }
    }
}
