//! What must hold of every plan and every step, whoever made it.
//!
//! The checker shares no code with the planner: it reads the same facts, states the invariants its own way, and answers
//! with findings. The executor asks it before it acts; a finding means a defect of the planner, and nothing is done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::rc::Rc;

use jiff::Timestamp;
use weir_model::change::Budget;
use weir_model::freeze::{Effect, Moment, Window};

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
    /// No more traffic weight is newly exposed within a minute than the budget.
    Exposure,
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
    members: HashMap<&'a str, &'a Member>,
    scope: Share,
    apps: HashMap<&'a str, Share>,
    proven: HashSet<(&'a str, &'a str, u8)>,
    /// Windows by the app they name; under `None` those for all apps.
    windows: HashMap<Option<&'a str>, Vec<Rc<Window<'a>>>>,
    findings: Vec<Finding>,
}

impl<'a> Checker<'a> {
    fn new(input: &'a Input<'a>) -> Checker<'a> {
        let mut checker = Checker {
            input,
            members: input.members.iter().map(|m| (&*m.name, m)).collect(),
            scope: Share::default(),
            apps: HashMap::new(),
            proven: HashSet::new(),
            windows: HashMap::new(),
            findings: Vec::new(),
        };
        for freeze in input.freezes {
            let all = freeze.apps.is_empty().then_some(None);
            let keys = all.into_iter().chain(freeze.apps.iter().map(|app| Some(app.as_str())));
            let window = Rc::new(Window::new(freeze));
            keys.for_each(|key| checker.windows.entry(key).or_default().push(window.clone()));
        }
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
        of.map_or(self.scope, |app| self.apps.get(app).copied().unwrap_or_default())
    }

    fn may_change(&self, member: &Member) -> bool {
        let untouched = !self.input.past.changed.contains(&member.name) && !self.input.past.left.contains(&member.name);
        member.in_scope && untouched && &*member.wanted != self.input.target
    }

    fn each_share(&mut self, member: &'a Member, mut act: impl FnMut(&mut Share)) {
        act(&mut self.scope);
        act(self.apps.entry(&member.app).or_default());
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
        let mut seen: HashSet<&str> = HashSet::new();
        for name in plan.batches.iter().flat_map(|b| &b.instances) {
            if !seen.insert(name) {
                self.found(Rule::Cover, format!("{name} is planned twice"));
            }
            if !self.members.get(&**name).is_some_and(|m| self.may_change(m)) {
                self.found(Rule::Cover, format!("{name} must not be changed"));
            }
        }
        seen.extend(plan.deferred.iter().map(|d| &*d.instance));
        let forgotten = |m: &&Member| self.may_change(m) && !seen.contains(&*m.name);
        let forgotten: Vec<String> =
            self.input.members.iter().filter(forgotten).map(|m| format!("{} is forgotten", m.name)).collect();
        forgotten.into_iter().for_each(|detail| self.found(Rule::Cover, detail));
    }

    /// Nobody is made to wait for a window that is not shut, now or when all others are through.
    fn windows_of_deferred(&mut self, plan: &Plan, now: Timestamp) {
        let end = plan.batches.last().map_or(now, |b| b.end);
        for deferred in &plan.deferred {
            let member = self.members.get(&*deferred.instance).copied();
            let true_wait = member.is_some_and(|m| match &deferred.wait {
                Wait::Window { .. } => self.shut(m, now) || self.shut(m, end),
                Wait::Health(_) => m.state != State::Serving,
            });
            if !true_wait {
                self.found(Rule::Window, format!("{} waits for nothing", deferred.instance));
            }
        }
    }

    /// A suppressing window holds, or of the permitting ones that name the member most closely none does.
    fn shut(&self, member: &Member, at: Timestamp) -> bool {
        let named = [None, Some(&*member.app)];
        let all = || named.iter().filter_map(|key| self.windows.get(key)).flatten();
        let of = |effect| all().filter(move |w| w.spec().effect == effect && w.spec().concerns(member.place()));
        let holds = |w: &Rc<Window<'a>>| matches!(w.at(at), Moment::Within(_));
        let closest = of(Effect::Permit).map(|w| w.spec().rank()).max();
        let mut counts = of(Effect::Permit).filter(|w| Some(w.spec().rank()) == closest);
        of(Effect::Suppress).any(holds) || closest.is_some() && !counts.any(holds)
    }

    fn batch(&mut self, plan: &Plan, number: usize) {
        let planned = &plan.batches[number];
        let members: Vec<&'a Member> =
            planned.instances.iter().filter_map(|n| self.members.get(&**n).copied()).collect();
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
        let mut apps: BTreeMap<&'a str, Vec<&Member>> = BTreeMap::new();
        members.iter().for_each(|m| apps.entry(&m.app).or_default().push(m));
        for (app, of_app) in apps {
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

/// Who would be out at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Wave<'a> {
    /// The fleet.
    pub members: &'a [Member],
    /// Out before, by this change.
    pub in_flight: &'a BTreeSet<&'a str>,
    /// To be let go now.
    pub admitted: &'a BTreeSet<&'a str>,
    /// Traffic weight that was let go within the last minute.
    pub exposed: u64,
}

/// Checks a wave against the budgets.
pub fn check_wave(wave: &Wave, budget: &Budget) -> Vec<Finding> {
    let mut sums = Sums::default();
    wave.members.iter().for_each(|m| sums.count(wave, m));
    let mut findings = Vec::new();
    for member in wave.members.iter().filter(|m| wave.begins(m)) {
        findings.extend(sums.too_many_out(member, budget));
        findings.extend(sums.two_zones(member));
        findings.extend(sums.too_much_weight(member, budget));
    }
    findings.extend(sums.too_much_exposed(wave.exposed, budget));
    findings
}

impl Wave<'_> {
    /// It serves, and would not any more.
    fn begins(&self, member: &Member) -> bool {
        member.state == State::Serving
            && self.admitted.contains(&*member.name)
            && !self.in_flight.contains(&*member.name)
    }
}

/// Instances, and those of them that are out.
#[derive(Default)]
struct Out {
    all: usize,
    out: usize,
}

/// Traffic weight in scope, and what of it moves.
#[derive(Default)]
struct Moving {
    total: u64,
    weight: u64,
    count: usize,
}

#[derive(Default)]
struct Sums<'a> {
    /// By app and unit.
    places: HashMap<(&'a str, &'a str), Out>,
    /// By app: units and zones in which it drains, each with one who does.
    draining: HashMap<&'a str, BTreeMap<(&'a str, &'a str), &'a str>>,
    /// By unit, and under `None` in all.
    units: HashMap<Option<&'a str>, Moving>,
    begins: Moving,
}

impl<'a> Sums<'a> {
    fn count(&mut self, wave: &Wave<'a>, member: &'a Member) {
        let in_flight = wave.in_flight.contains(&*member.name);
        let (begins, admitted) = (wave.begins(member), wave.admitted.contains(&*member.name));
        let place = self.places.entry((&member.app, &member.unit)).or_default();
        place.all += 1;
        place.out += usize::from(member.state != State::Serving || in_flight || admitted);
        if member.state == State::Leaving {
            return;
        }
        let moves = begins || in_flight;
        if moves {
            let zones = self.draining.entry(&member.app).or_default();
            zones.insert((&member.unit, &member.zone), &member.name);
        }
        for key in [None, Some(&*member.unit)] {
            self.units.entry(key).or_default().add(member, moves);
        }
        self.begins.add(member, begins);
    }

    fn too_many_out(&self, member: &Member, budget: &Budget) -> Option<Finding> {
        let Out { all, out } = self.places.get(&(&*member.app, &*member.unit))?;
        let allowed = *all as f64 * budget.max_unavailable_percent / 100.0 + ROUNDING;
        let detail = || format!("{out} of {all} of {} in {} would be out", member.app, member.unit);
        (*out > 1 && *out as f64 > allowed).then(|| Finding { rule: Rule::Availability, detail: detail() })
    }

    fn two_zones(&self, member: &Member) -> Option<Finding> {
        let zones = self.draining.get(&*member.app)?;
        let (_, other) = zones.iter().find(|(zone, _)| **zone != (&*member.unit, &*member.zone))?;
        let detail = format!("{} would drain in another zone than {other}", member.name);
        Some(Finding { rule: Rule::Availability, detail })
    }

    fn too_much_weight(&self, member: &Member, budget: &Budget) -> Option<Finding> {
        [None, Some(&*member.unit)].into_iter().find_map(|unit| {
            let Moving { total, weight, count } = self.units.get(&unit)?;
            let allowed = *total as f64 * budget.max_in_flight_percent / 100.0 + ROUNDING;
            let detail = || format!("{weight} of {total} would be in flight in {}", unit.unwrap_or("all"));
            (*count > 1 && *weight as f64 > allowed).then(|| Finding { rule: Rule::InFlight, detail: detail() })
        })
    }

    fn too_much_exposed(&self, before: u64, budget: &Budget) -> Option<Finding> {
        let Moving { total, weight, count } = &self.begins;
        let allowed = *total as f64 * budget.max_exposed_percent_per_minute / 100.0 + ROUNDING;
        let alone = before == 0 && *count == 1;
        let detail = || format!("{} of {total} would be newly exposed within a minute", before + weight);
        let much = *count > 0 && !alone && (before + weight) as f64 > allowed;
        much.then(|| Finding { rule: Rule::Exposure, detail: detail() })
    }
}

impl Moving {
    fn add(&mut self, member: &Member, moves: bool) {
        self.total += if member.in_scope { member.weight } else { 0 };
        self.weight += if moves { member.weight } else { 0 };
        self.count += usize::from(moves);
    }
}
