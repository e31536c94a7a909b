//! Who is compared with whom.
//!
//! A stratum is an app in a unit, on a stack, in a group. Its changed instances stand beside the best control there is:
//! 1. Unchanged instances of the same stratum. Beside them stand those changed by earlier batches too, so that harm that
//!    shows late (a leak) is found while later batches are watched.
//! 2. None are left: those that earlier batches changed. These were judged beside unchanged ones, and what the app suffers
//!    by itself shows on both sides. The other way round, the earlier ones stand beside the new ones: a leak shows on the
//!    older ones first.
//! 3. There are none either: unchanged instances of the app in other units, *and* the instances' own past. Units differ
//!    and hours differ, so harm must show in both.
//! 4. The app runs nowhere else: its own past.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_model::change::Batch;

use super::gather::{Beside, Group, MAX_CONTROLS, Treated};
use crate::world::{Member, State};

/// Earlier instances of a stratum that are watched on; more add little evidence and much work.
const MAX_EARLIER: usize = 100;

/// Who is there.
#[derive(Debug, Clone, Copy)]
pub struct Roster<'a> {
    /// The fleet.
    pub members: &'a [Member],
    /// Its members by name.
    pub by_name: &'a BTreeMap<&'a str, &'a Member>,
    /// The batch that is judged.
    pub batch: &'a Batch,
    /// All batches of the change.
    pub batches: &'a [Batch],
    /// Instances that left the change, and why.
    pub left: &'a BTreeMap<String, String>,
    /// Instances that were let go and are not back.
    pub in_flight: &'a BTreeSet<&'a str>,
    /// The version that changed instances run.
    pub target: &'a str,
}

type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

#[derive(Default)]
struct Stratum {
    in_batch: bool,
    new: Vec<Treated>,
    earlier: Vec<Treated>,
    unchanged: Vec<String>,
}

impl<'a> Roster<'a> {
    /// Every comparison of the batch. Those of its strata are there from the start, so that the number of comparisons
    /// moves little while instances come back.
    pub fn groups(&self) -> Vec<Group> {
        let mut strata: BTreeMap<Key<'a>, Stratum> = BTreeMap::new();
        for name in self.batch.instances.iter() {
            let Some(member) = self.ours(name) else { continue };
            let stratum = strata.entry(key(member)).or_default();
            stratum.in_batch = true;
            stratum.new.extend(treated(self.batch, name));
        }
        self.add_earlier(&mut strata);
        for member in self.members.iter().filter(|m| self.unchanged(m)) {
            if let Some(stratum) = strata.get_mut(&key(member)) {
                stratum.unchanged.push(member.name.to_string());
            }
        }
        let elsewhere = self.elsewhere(&strata);
        strata.into_iter().flat_map(|(key, stratum)| comparisons(key, stratum, &elsewhere)).collect()
    }

    fn ours(&self, name: &str) -> Option<&'a Member> {
        self.by_name.get(name).copied().filter(|_| !self.left.contains_key(name))
    }

    fn unchanged(&self, member: &Member) -> bool {
        member.state == State::Serving
            && member.wanted == member.running
            && &*member.wanted != self.target
            && !self.in_flight.contains(&*member.name)
    }

    fn add_earlier(&self, strata: &mut BTreeMap<Key<'a>, Stratum>) {
        for batch in self.batches.iter().filter(|b| b.number < self.batch.number) {
            for name in batch.done.keys() {
                let Some(member) = self.ours(name).filter(|m| m.serves(self.target)) else { continue };
                let stratum = strata.entry(key(member)).or_default();
                if stratum.earlier.len() < MAX_EARLIER {
                    stratum.earlier.extend(treated(batch, name));
                }
            }
        }
    }

    /// Unchanged instances by app, stack and group, where a stratum has nobody else.
    fn elsewhere(&self, strata: &BTreeMap<Key<'a>, Stratum>) -> HashMap<(&'a str, &'a str, &'a str), Vec<String>> {
        let lonely = strata.iter().filter(|(_, s)| s.in_batch && s.unchanged.is_empty() && s.earlier.is_empty());
        let mut found: HashMap<_, Vec<String>> = lonely.map(|(key, _)| (anywhere(*key), Vec::new())).collect();
        if found.is_empty() {
            return found;
        }
        for member in self.members.iter().filter(|m| self.unchanged(m)) {
            if let Some(names) = found.get_mut(&anywhere(key(member))).filter(|names| names.len() < MAX_CONTROLS) {
                names.push(member.name.to_string());
            }
        }
        found
    }
}

fn key(member: &Member) -> Key<'_> {
    (&member.app, &member.unit, &member.stack, &member.group)
}

fn anywhere<'a>((app, _, stack, group): Key<'a>) -> (&'a str, &'a str, &'a str) {
    (app, stack, group)
}

fn treated(batch: &Batch, name: &str) -> Option<Treated> {
    let (started, done) = (*batch.started.get(name)?, *batch.done.get(name)?);
    Some(Treated { name: name.to_owned(), started, done })
}

fn comparisons<'a>(
    key: Key<'a>,
    stratum: Stratum,
    elsewhere: &HashMap<(&'a str, &'a str, &'a str), Vec<String>>,
) -> Vec<Group> {
    let Stratum { in_batch, mut new, earlier, unchanged } = stratum;
    let words = words(key);
    let group = |stratum: &str, treated, control, beside| Group {
        stratum: stratum.to_owned(),
        treated,
        control,
        beside,
        paired: None,
    };
    if !unchanged.is_empty() {
        new.extend(earlier);
        return vec![group(&words, new, unchanged, Beside::Unchanged)];
    }
    if !in_batch {
        return Vec::new();
    }
    if !earlier.is_empty() {
        let names = |of: &[Treated]| of.iter().map(|t| t.name.clone()).collect();
        let (newer, older) = (names(&new), names(&earlier));
        return vec![
            group(&format!("{words} changed earlier"), earlier, newer, Beside::Later),
            group(&format!("{words} beside earlier ones"), new, older, Beside::Earlier),
        ];
    }
    let past = group(&words, new.clone(), Vec::new(), Beside::Past);
    let Some(others) = elsewhere.get(&anywhere(key)).filter(|names| !names.is_empty()) else { return vec![past] };
    let beside = format!("{words} beside other units");
    let other = Group { paired: Some(words), ..group(&beside, new, others.clone(), Beside::Elsewhere) };
    vec![Group { paired: Some(beside), ..past }, other]
}

/// A stratum in words.
fn words((app, unit, stack, group): Key<'_>) -> String {
    let named = |n: &str| if n.is_empty() { "-".to_owned() } else { n.to_owned() };
    let mut words = format!("app={app} unit={} stack={}", named(unit), named(stack));
    if !group.is_empty() {
        words += &format!(" group={group}");
    }
    words
}
