//! What must hold of every plan and every step, whoever made it.
//!
//! The checker shares no code with the planner: it reads the same facts, states the invariants its own way, and answers
//! with findings. The executor asks it before it acts; a finding means a defect of the planner, and nothing is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use weir_model::change::Budget;

use crate::plan::{Input, Plan, Wait};
use crate::world::{Member, State};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// Who breaks it, and how.
    pub detail: String,
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Only instances in scope that have not changed are planned, each once, and none is forgotten.
    Cover,
    /// The first of all batches takes one instance where the ladder begins with one box.
    OneBox,
    /// A batch keeps below its rung, of the scope and of each app, and no rung with room is skipped.
    Ladder,
    /// A batch takes one instance of a stratum that no earlier batch has proven.
    Canary,
    /// Nothing begins while its window is shut.
    Window,
    /// No app loses more instances in a unit than its budget, and no two of its zones drain together.
    Availability,
    /// No more traffic weight is in flight than the budget.
    InFlight,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}

/// Weights may be off the rung by the rounding of a percentage.
const ROUNDING: f64 = 1e-3;

/// Checks a plan against the facts it was made from.
pub fn check(input: &Input, plan: &Plan, now: Timestamp) -> Vec<Finding> {
    let mut checker = Checker::new(input);
    checker.cover(plan);
    checker.windows_of_deferred(plan, now);
    for number in 0..plan.batches.len() {
        checker.batch(plan, number);
    }
    checker.findings
}

#[derive(Default, Clone, Copy)]
struct Share {
    total: u64,
    changed: u64,
    count: usize,
}

struct Checker<'a> {
    input: &'a Input<'a>,
    members: BTreeMap<&'a str, &'a Member>,
    /// Under `None` the scope, else an app.
    shares: BTreeMap<Option<&'a str>, Share>,
    proven: BTreeSet<(&'a str, &'a str, u8)>,
    findings: Vec<Finding>,
}

impl<'a> Checker<'a> {
    fn new(input: &'a Input<'a>) -> Checker<'a> {
        let members: BTreeMap<&str, &Member> = input.members.iter().map(|m| (m.name.as_str(), m)).collect();
        let mut checker =
            Checker { input, members, shares: BTreeMap::new(), proven: BTreeSet::new(), findings: Vec::new() };
        for member in input.members.iter().filter(|m| m.in_scope) {
            let changed = input.past.changed.contains(&member.name);
            if changed || checker.may_change(member) {
                checker.each_share(member, |share| share.total += member.weight);
            }
            if changed {
                checker.count(member);
            }
        }
        checker
    }

    /// Nothing, where a plan holds what is not in scope: that is found by `cover`.
    fn share(&self, of: Option<&str>) -> Share {
        self.shares.get(&of).copied().unwrap_or_default()
    }

    fn may_change(&self, member: &Member) -> bool {
        let untouched = !self.input.past.changed.contains(&member.name) && !self.input.past.left.contains(&member.name);
        member.in_scope && untouched && member.wanted != self.input.target
    }

    fn each_share(&mut self, member: &'a Member, mut act: impl FnMut(&mut Share)) {
        for key in [None, Some(member.app.as_str())] {
            act(self.shares.entry(key).or_default());
        }
    }

    fn count(&mut self, member: &'a Member) {
        self.each_share(member, |share| {
            share.changed += member.weight;
            share.count += 1;
        });
        self.proven.insert(member.stratum());
    }

    fn found(&mut self, rule: Rule, detail: String) {
        self.findings.push(Finding { rule, detail });
    }

    fn cover(&mut self, plan: &Plan) {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for name in plan.batches.iter().flat_map(|b| &b.instances) {
            if !seen.insert(name) {
                self.found(Rule::Cover, format!("{name} is planned twice"));
            }
            if !self.members.get(name.as_str()).is_some_and(|m| self.may_change(m)) {
                self.found(Rule::Cover, format!("{name} must not be changed"));
            }
        }
        seen.extend(plan.deferred.iter().map(|d| d.instance.as_str()));
        let forgotten = |m: &&Member| self.may_change(m) && !seen.contains(m.name.as_str());
        let forgotten: Vec<String> =
            self.input.members.iter().filter(forgotten).map(|m| format!("{} is forgotten", m.name)).collect();
        forgotten.into_iter().for_each(|detail| self.found(Rule::Cover, detail));
    }

    /// Nobody is made to wait for a window that is not shut, now or when all others are through.
    fn windows_of_deferred(&mut self, plan: &Plan, now: Timestamp) {
        let end = plan.batches.last().map_or(now, |b| b.end);
        for deferred in &plan.deferred {
            let member = self.members.get(deferred.instance.as_str()).copied();
            let true_wait = member.is_some_and(|m| match &deferred.wait {
                Wait::Window { .. } => self.shut(m, now) || self.shut(m, end),
                Wait::Health(_) => m.state != State::Serving,
            });
            if !true_wait {
                self.found(Rule::Window, format!("{} waits for nothing", deferred.instance));
            }
        }
    }

    fn shut(&self, member: &Member, at: Timestamp) -> bool {
        self.input.freezes.iter().any(|f| f.forbids(&member.app, &member.unit, at))
    }

    fn batch(&mut self, plan: &Plan, number: usize) {
        let planned = &plan.batches[number];
        let members: Vec<&'a Member> =
            planned.instances.iter().filter_map(|n| self.members.get(n.as_str()).copied()).collect();
        self.batch_window(&members, planned.start);
        self.batch_canary(&members, number);
        self.batch_ladder(&members, planned.rung, number);
        members.iter().for_each(|m| self.count(m));
    }

    fn batch_window(&mut self, members: &[&Member], start: Timestamp) {
        for member in members {
            if self.shut(member, start) {
                self.found(Rule::Window, format!("{} would change at {start}, in its window", member.name));
            }
            if member.state != State::Serving {
                self.found(Rule::Window, format!("{} would change though it does not serve", member.name));
            }
        }
    }

    fn batch_canary(&mut self, members: &[&Member], number: usize) {
        let mut taken: BTreeMap<(&str, &str, u8), usize> = BTreeMap::new();
        members.iter().for_each(|m| *taken.entry(m.stratum()).or_default() += 1);
        for (stratum, count) in taken {
            if count > 1 && !self.proven.contains(&stratum) {
                let detail = format!("batch {number} takes {count} of {stratum:?}, of which nothing is proven");
                self.found(Rule::Canary, detail);
            }
        }
    }

    fn batch_ladder(&mut self, members: &[&'a Member], rung: usize, number: usize) {
        let Some(step) = self.input.ladder.get(rung).filter(|_| !members.is_empty()) else {
            return self.found(Rule::Ladder, format!("batch {number} is empty or on no rung"));
        };
        if step.percent == 0.0 && members.len() != 1 {
            self.found(Rule::OneBox, format!("batch {number} takes {} instances as one box", members.len()));
        }
        self.below_rung(None, members, step.percent, number);
        self.no_rung_skipped(members, rung, number);
        let apps: BTreeSet<&'a str> = members.iter().map(|m| m.app.as_str()).collect();
        for app in apps {
            let of_app: Vec<&Member> = members.iter().filter(|m| m.app == app).copied().collect();
            let lightest = of_app.iter().map(|m| m.weight).min().unwrap_or(0);
            let percent = self.own_rung(app, lightest);
            if percent == 0.0 && of_app.len() > 1 {
                self.found(Rule::OneBox, format!("batch {number} takes {} of {app} at once", of_app.len()));
            }
            self.below_rung(Some(app), &of_app, percent, number);
        }
    }

    /// The percentage an app may reach: that of the first rung on which its lightest candidate fits.
    fn own_rung(&self, app: &str, lightest: u64) -> f64 {
        let share = self.share(Some(app));
        let fits = |percent: f64| {
            if percent == 0.0 { share.count == 0 } else { (share.changed + lightest) as f64 <= limit(share, percent) }
        };
        self.input.ladder.iter().map(|r| r.percent).find(|p| fits(*p)).unwrap_or(100.0)
    }

    fn below_rung(&mut self, of: Option<&'a str>, members: &[&Member], percent: f64, number: usize) {
        let share = self.share(of);
        let after = share.changed + members.iter().map(|m| m.weight).sum::<u64>();
        if percent > 0.0 && after as f64 > limit(share, percent) {
            let of = of.unwrap_or("the scope");
            let detail = format!("batch {number} brings {of} to {after} of {}, above {percent} %", share.total);
            self.found(Rule::Ladder, detail);
        }
    }

    fn no_rung_skipped(&mut self, members: &[&Member], rung: usize, number: usize) {
        let share = self.share(None);
        let lightest = members.iter().map(|m| m.weight).min().unwrap_or(0);
        let has_room = |percent: f64| {
            if percent == 0.0 {
                share.count == 0
            } else {
                (share.changed + lightest) as f64 <= limit(share, percent) - 2.0 * ROUNDING
            }
        };
        if self.input.ladder[..rung].iter().any(|r| has_room(r.percent)) {
            self.found(Rule::Ladder, format!("batch {number} skips a rung with room"));
        }
    }
}

fn limit(share: Share, percent: f64) -> f64 {
    share.total as f64 * percent / 100.0 + ROUNDING
}

/// Checks who would be out at the same time: those `in_flight` before, and those `admitted` now.
pub fn check_wave(
    members: &[Member],
    in_flight: &BTreeSet<&str>,
    admitted: &BTreeSet<&str>,
    budget: &Budget,
) -> Vec<Finding> {
    let present: Vec<&Member> = members.iter().filter(|m| m.state != State::Leaving).collect();
    let mut findings = Vec::new();
    let newly = |m: &&Member| {
        admitted.contains(m.name.as_str()) && m.state == State::Serving && !in_flight.contains(m.name.as_str())
    };
    for member in present.iter().copied().filter(newly) {
        findings.extend(too_many_out(&present, member, in_flight, admitted, budget));
        findings.extend(two_zones(&present, member, in_flight, admitted));
        findings.extend(too_much_weight(&present, member, in_flight, admitted, budget));
    }
    findings
}

fn too_many_out(
    present: &[&Member],
    member: &Member,
    in_flight: &BTreeSet<&str>,
    admitted: &BTreeSet<&str>,
    budget: &Budget,
) -> Option<Finding> {
    let is_out = |m: &&&Member| {
        m.state != State::Serving || in_flight.contains(m.name.as_str()) || admitted.contains(m.name.as_str())
    };
    let siblings: Vec<&Member> =
        present.iter().copied().filter(|m| m.app == member.app && m.unit == member.unit).collect();
    let out = siblings.iter().filter(is_out).count();
    let allowed = siblings.len() as f64 * budget.max_unavailable_percent / 100.0 + ROUNDING;
    let detail = || format!("{out} of {} of {} in {} would be out", siblings.len(), member.app, member.unit);
    (out > 1 && out as f64 > allowed).then(|| Finding { rule: Rule::Availability, detail: detail() })
}

fn two_zones(
    present: &[&Member],
    member: &Member,
    in_flight: &BTreeSet<&str>,
    admitted: &BTreeSet<&str>,
) -> Option<Finding> {
    let drains = |m: &&&Member| {
        let begins = admitted.contains(m.name.as_str()) && m.state == State::Serving;
        m.app == member.app && (begins || in_flight.contains(m.name.as_str()))
    };
    let elsewhere = |m: &&Member| (&m.unit, &m.zone) != (&member.unit, &member.zone);
    let other = present.iter().filter(drains).copied().find(elsewhere)?;
    let detail = format!("{} would drain in another zone than {}", member.name, other.name);
    Some(Finding { rule: Rule::Availability, detail })
}

fn too_much_weight(
    present: &[&Member],
    member: &Member,
    in_flight: &BTreeSet<&str>,
    admitted: &BTreeSet<&str>,
    budget: &Budget,
) -> Option<Finding> {
    let moves = |m: &&&Member| {
        let begins = admitted.contains(m.name.as_str()) && m.state == State::Serving;
        begins || in_flight.contains(m.name.as_str())
    };
    [None, Some(&member.unit)].into_iter().find_map(|unit| {
        let here: Vec<&Member> = present.iter().copied().filter(|m| unit.is_none_or(|u| m.unit == *u)).collect();
        let moving: Vec<u64> = here.iter().filter(moves).map(|m| m.weight).collect();
        let total: u64 = here.iter().filter(|m| m.in_scope).map(|m| m.weight).sum();
        let allowed = total as f64 * budget.max_in_flight_percent / 100.0 + ROUNDING;
        let weight: u64 = moving.iter().sum();
        let detail = || format!("{weight} of {total} would be in flight in {}", unit.map_or("all", |u| u));
        (moving.len() > 1 && weight as f64 > allowed).then(|| Finding { rule: Rule::InFlight, detail: detail() })
    })
}
