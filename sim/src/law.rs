//! What must never happen, watched from outside, in its own words: neither planner nor checker is asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use weir_change::world::{Member, State};
use weir_model::change::{Batch, BatchPhase, ChangePhase};
use weir_model::freeze::{Effect, Moment, Place};
use weir_model::{Change, FreezeSpec};

use crate::mesh::{Mesh, NEW, OLD, moment};

/// Weights may be off a rung by rounding.
const ROUNDING: f64 = 1e-3;

/// A suppressing window holds, or there are permitting ones and none of the closest does.
fn shut(mesh: &Mesh, member: &Member, now: Timestamp) -> bool {
    let place = Place { app: &member.app, line: &member.line, unit: &member.unit };
    let concerned: Vec<&FreezeSpec> = mesh.world.freezes.iter().filter(|f| f.concerns(place)).collect();
    let holds = |f: &FreezeSpec| matches!(f.at(now), Moment::Within(_));
    let suppressed = concerned.iter().any(|f| f.effect == Effect::Suppress && holds(f));
    let permits: Vec<&FreezeSpec> = concerned.into_iter().filter(|f| f.effect == Effect::Permit).collect();
    let closest = permits.iter().map(|f| f.rank()).max();
    suppressed || closest.is_some_and(|rank| !permits.iter().any(|f| f.rank() == rank && holds(f)))
}

/// Watches one change.
#[derive(Debug, Default)]
pub struct Law {
    /// What was broken, in words.
    pub violations: Vec<String>,
    /// Largest share of the scope's traffic weight that was exposed to the new version.
    pub exposed: f64,
    begun: u32,
    started: HashMap<String, i64>,
    returned: BTreeSet<String>,
}

impl Law {
    /// Looks at what the executor has recorded, before it is carried out.
    pub fn watch(&mut self, change: &Change, mesh: &Mesh, second: i64) {
        let status = &change.status;
        for batch in status.batches.iter().filter(|b| b.phase != BatchPhase::Waiting) {
            if batch.number > self.begun {
                self.begun = batch.number;
                self.batch_begins(change, batch, mesh);
            }
            self.let_go(change, batch, mesh, second);
        }
        self.turned_round(change);
        self.exposure(mesh);
    }

    fn broken(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Blast radius and canary.
    fn batch_begins(&mut self, change: &Change, batch: &Batch, mesh: &Mesh) {
        let members: Vec<&Member> =
            batch.instances.iter().filter_map(|n| Some(&mesh.world.members[mesh.index(n)?])).collect();
        let total: u64 = mesh.world.members.iter().filter(|m| m.in_scope).map(|m| m.weight).sum();
        let before: u64 = self.started.keys().filter_map(|n| Some(mesh.world.members[mesh.index(n)?].weight)).sum();
        let after = before + members.iter().map(|m| m.weight).sum::<u64>();
        let percent = change.spec.ladder.get(batch.rung as usize).map_or(100.0, |r| r.percent);
        if percent == 0.0 && (members.len() > 1 || before > 0) {
            self.broken(format!("blast radius: batch {} is one box and takes {}", batch.number, members.len()));
        }
        if percent > 0.0 && after as f64 > total as f64 * percent / 100.0 + ROUNDING {
            self.broken(format!("blast radius: batch {} brings {after} of {total}, {percent} % allowed", batch.number));
        }
        self.canary(batch, &members, mesh);
    }

    fn canary(&mut self, batch: &Batch, members: &[&Member], mesh: &Mesh) {
        let proven: BTreeSet<_> =
            self.started.keys().filter_map(|n| Some(mesh.world.members[mesh.index(n)?].stratum())).collect();
        let mut taken: BTreeMap<_, usize> = BTreeMap::new();
        members.iter().for_each(|m| *taken.entry(m.stratum()).or_default() += 1);
        let unproven: Vec<String> = taken
            .iter()
            .filter(|(stratum, count)| **count > 1 && !proven.contains(*stratum))
            .map(|(stratum, count)| format!("canary: batch {} takes {count} of {stratum:?} at once", batch.number))
            .collect();
        self.violations.extend(unproven);
    }

    /// Instances that are newly let go: in their batch, once, in an open window, within the budgets.
    fn let_go(&mut self, change: &Change, batch: &Batch, mesh: &Mesh, second: i64) {
        let newly: Vec<&String> = batch.started.keys().filter(|n| !self.started.contains_key(*n)).collect();
        for name in &newly {
            let Some(member) = mesh.index(name).map(|index| &mesh.world.members[index]) else { continue };
            if !batch.instances.contains(name) {
                self.broken(format!("record: {name} is let go and in no batch"));
            }
            if shut(mesh, member, moment(second)) {
                self.broken(format!("window: {name} is let go while its window is shut"));
            }
            if &*member.wanted != OLD {
                self.broken(format!("repeated: {name} is let go and wants {} already", member.wanted));
            }
        }
        if !newly.is_empty() {
            self.budgets(change, batch, &newly, mesh);
        }
        self.started.extend(newly.into_iter().map(|name| (name.clone(), second)));
    }

    /// Who would be out, per app and unit, and whether they are of one zone.
    fn budgets(&mut self, change: &Change, batch: &Batch, newly: &[&String], mesh: &Mesh) {
        let flying = |m: &Member| batch.started.contains_key(&*m.name) && !batch.done.contains_key(&*m.name);
        let touched: BTreeSet<_> = newly
            .iter()
            .filter_map(|n| Some(&mesh.world.members[mesh.index(n)?]))
            .map(|m| (&*m.app, &*m.unit))
            .collect();
        let mut places: BTreeMap<_, (usize, usize)> = BTreeMap::new();
        let mut zones: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
        let (mut weight, mut total, mut count) = (0, 0, 0);
        for member in &mesh.world.members {
            let place = places.entry((&*member.app, &*member.unit)).or_default();
            place.0 += 1;
            place.1 += usize::from(flying(member) || member.state != State::Serving);
            total += member.weight;
            if flying(member) {
                zones.entry(&member.app).or_default().insert((&member.unit, &member.zone));
                (weight, count) = (weight + member.weight, count + 1);
            }
        }
        let budget = &change.spec.budget;
        let mut found: Vec<String> = Vec::new();
        for (place, (all, out)) in places.iter().filter(|(place, _)| touched.contains(*place)) {
            let allowed = (*all as f64 * budget.max_unavailable_percent / 100.0 + ROUNDING).floor().max(1.0);
            if *out as f64 > allowed {
                found.push(format!("availability: {out} of {all} are out in {place:?}"));
            }
        }
        found.extend(zones.iter().filter(|(_, z)| z.len() > 1).map(|(app, z)| format!("zones: {app} drains in {z:?}")));
        if count > 1 && weight as f64 > total as f64 * budget.max_in_flight_percent / 100.0 + ROUNDING {
            found.push(format!("in flight: {weight} of {total}"));
        }
        self.violations.extend(found);
    }

    fn turned_round(&mut self, change: &Change) {
        let Some(rollback) = &change.status.rollback else { return };
        for name in rollback.batch.started.keys() {
            if !self.started.contains_key(name) {
                self.violations.push(format!("record: {name} goes back and never went"));
            }
            self.returned.insert(name.clone());
        }
    }

    /// Nothing is on the new version that was not let go.
    fn exposure(&mut self, mesh: &Mesh) {
        let (mut new, mut total) = (0, 0);
        for member in &mesh.world.members {
            total += member.weight;
            if &*member.running == NEW {
                new += member.weight;
                if !self.started.contains_key(&*member.name) {
                    self.violations.push(format!("record: {} changed and was never let go", member.name));
                }
            }
        }
        self.exposed = self.exposed.max(new as f64 / (total as f64).max(1.0));
    }

    /// At the end everyone is where the change says, and went there once.
    pub fn close(&mut self, change: &Change, mesh: &Mesh) {
        for (index, member) in mesh.world.members.iter().enumerate() {
            let left = change.status.left.contains_key(&*member.name);
            let swaps = mesh.host(index).swaps;
            let (version, most) = match change.status.phase {
                ChangePhase::Succeeded => (NEW, 1),
                ChangePhase::RolledBack => (OLD, 2),
                _ => continue,
            };
            if !left && &*member.wanted != version {
                self.violations.push(format!("lost: {} wants {} at the end", member.name, member.wanted));
            }
            if swaps > most {
                self.violations.push(format!("repeated: {} was swapped {swaps} times", member.name));
            }
        }
    }
}
