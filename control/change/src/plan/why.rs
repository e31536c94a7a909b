//! Why a batch takes whom it takes, in a sentence.

use std::collections::{BTreeMap, BTreeSet};

use super::index::Spot;
use crate::world::Member;

/// Names listed before "and so on".
const LISTED: usize = 4;

pub(super) struct Facts<'f, U, O> {
    pub percent: f64,
    pub picked: &'f [&'f Spot<'f>],
    /// The instance's stratum has not been proven by an earlier batch.
    pub unproven: U,
    /// The instance is the only one of its app in its unit.
    pub only_one: O,
}

pub(super) fn batch<U: Fn(&Spot) -> bool, O: Fn(&Spot) -> bool>(facts: &Facts<U, O>) -> String {
    let mut parts = vec![size(facts.percent, facts.picked)];
    let first = facts.picked.iter().filter(|s| (facts.unproven)(s));
    let strata: BTreeSet<String> = first.map(|s| stratum(s.member)).collect();
    if !strata.is_empty() {
        parts.push(format!("first instance of {}", listed(strata)));
    }
    let alone = facts.picked.iter().filter(|s| (facts.only_one)(s));
    let alone: BTreeSet<String> = alone.map(|s| s.member.name.to_string()).collect();
    if !alone.is_empty() {
        parts.push(format!("{} has no other of its app in its unit to stand in while it changes", listed(alone)));
    }
    parts.join("; ")
}

fn size(percent: f64, picked: &[&Spot]) -> String {
    if let (0.0, [only]) = (percent, picked) {
        let only = only.member;
        let canary = if only.canary { " in a canary unit" } else { "" };
        return format!("one box first: {} of app {}, tier {}{canary}", only.name, only.app, only.tier);
    }
    let mut apps: BTreeMap<&str, usize> = BTreeMap::new();
    picked.iter().for_each(|s| *apps.entry(&s.member.app).or_default() += 1);
    let apps: BTreeSet<String> = apps.into_iter().map(|(app, count)| format!("{app} {count}")).collect();
    format!("up to {percent} % of the traffic weight: {} instances ({})", picked.len(), listed(apps))
}

fn stratum(member: &Member) -> String {
    let named = |name: &str| if name.is_empty() { "-".to_owned() } else { name.to_owned() };
    format!("stack={} unit={} tier={}", named(&member.stack), named(&member.unit), member.tier)
}

fn listed(names: BTreeSet<String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let mut text = names.into_iter().take(LISTED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
