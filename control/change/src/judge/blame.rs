//! Whose harm is it? The changes that have touched the harmed instances, weighed against each other.
//!
//! A comparison tells that changed instances do worse than those beside them. Changes overlap, though: the same instances may
//! have had another change not long ago that stopped half-way, and do worse for that. After Gandalf (Li et al., "Gandalf: an
//! intelligent, end-to-end analytics service for safe deployment in large-scale cloud infrastructure", NSDI 2020):
//! - **Votes**: harm on an instance votes for each change that touched it within the last hour, day, three days
//!   ([`WINDOWS`]); what touched it lately is the likelier, and votes wear off with age.
//! - **Space**: with P the share of the harm on instances that the change has touched, and b the share of the instances beside
//!   them that it has touched too, `S = sum of w * ln((1 + P - b) / (1 + b))` over the windows, if P > b. What has touched
//!   both sides alike does not explain that they differ.
//! - **Veto**: harm that was there before the change touched the instances speaks against it: b is at least the share of the
//!   excess that its instances showed in the minutes before.
//!
//! Pure. A change that is not the one to blame is blocked instead of rolled back: the harm is real, and a person is needed.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use weir_model::change::{Blame, Harmed};

use super::{Seen, evalue};
use crate::world::Name;

/// Within how many hours a touch is voted for, and how much the vote weighs.
pub const WINDOWS: [(i64, f64); 3] = [(1, 0.5), (24, 0.3), (72, 0.2)];
/// Changes that ended longer ago are no suspects.
pub const OLDEST: SignedDuration = SignedDuration::from_hours(72);
/// What another change must be ahead of the one that is judged to be blamed in its stead.
pub const CLEARLY: f64 = 0.05;
/// Likeliness (`ln E`) from which harm before the change counts as seen.
const SEEN_BEFORE: f64 = 1.0;

/// A change that may have done it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Suspect {
    /// Its name.
    pub name: String,
    /// When it last touched an instance, as far as is known.
    pub at: Timestamp,
    /// Instances that it has touched.
    pub touched: HashSet<Name>,
}

/// The harm that somebody is to blame for.
#[derive(Debug, Clone, Copy)]
pub struct Harm<'a> {
    /// Changed instances, and what they showed.
    pub harmed: &'a BTreeMap<String, Harmed>,
    /// Instances beside them.
    pub beside: &'a [String],
    /// The two sides since the change.
    pub since: [Seen; 2],
    /// The two sides in the minutes before it; nothing: not known.
    pub before: [Seen; 2],
    /// Tolerated relative increase.
    pub tolerance: f64,
}

/// Who is to blame, the likeliest first: the change `own`, which touched the harmed instances at `at`, and the `others`.
pub fn blame(own: &str, at: Timestamp, others: &[Suspect], harm: &Harm, now: Timestamp) -> Vec<Blame> {
    let of_own =
        Blame { change: own.to_owned(), harmed_share: 1.0, there_before: there_before(harm), ..Blame::default() };
    let of_other = |s: &Suspect| Blame {
        change: s.name.clone(),
        harmed_share: harm_within(harm, s),
        beside_share: beside_within(harm, s),
        ..Blame::default()
    };
    let others = others.iter().map(|s| weighed(of_other(s), s.at, now));
    let mut all: Vec<Blame> = std::iter::once(weighed(of_own, at, now)).chain(others).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}

/// Another change than `own` is clearly the likelier one.
pub fn another<'b>(all: &'b [Blame], own: &str) -> Option<&'b Blame> {
    let of_own = all.iter().find(|b| b.change == own).map_or(0.0, |b| b.score);
    all.first().filter(|first| first.change != own && first.score > of_own + CLEARLY)
}

fn weighed(blame: Blame, at: Timestamp, now: Timestamp) -> Blame {
    let hours = now.duration_since(at).as_secs_f64() / 3_600.0;
    let votes: f64 = WINDOWS.iter().filter(|(within, _)| hours <= *within as f64).map(|(_, weight)| weight).sum();
    let (harmed, against) = (blame.harmed_share, blame.beside_share.max(blame.there_before));
    let score = if harmed > against { votes * ((1.0 + harmed - against) / (1.0 + against)).ln() } else { 0.0 };
    Blame { score, ..blame }
}

/// Share of the harm on instances that the suspect has touched.
fn harm_within(harm: &Harm, suspect: &Suspect) -> f64 {
    let all: u64 = harm.harmed.values().map(|h| h.events).sum();
    let touched = harm.harmed.iter().filter(|(name, _)| suspect.touched.contains(name.as_str()));
    touched.map(|(_, h)| h.events).sum::<u64>() as f64 / (all as f64).max(1.0)
}

fn beside_within(harm: &Harm, suspect: &Suspect) -> f64 {
    let touched = harm.beside.iter().filter(|name| suspect.touched.contains(name.as_str())).count();
    touched as f64 / (harm.beside.len() as f64).max(1.0)
}

/// Share of the excess since the change that was there before it.
fn there_before(harm: &Harm) -> f64 {
    let [treated, control] = harm.before;
    if evalue::ln_e_of(treated, control, harm.tolerance) < SEEN_BEFORE {
        return 0.0;
    }
    let share = excess(harm.before, harm.tolerance) / excess(harm.since, harm.tolerance).max(f64::MIN_POSITIVE);
    share.min(1.0)
}

/// How much larger a share of requests has events on the first side than is tolerated.
fn excess([treated, control]: [Seen; 2], tolerance: f64) -> f64 {
    let share = |seen: Seen| seen.events as f64 / (seen.requests as f64).max(1.0);
    (share(treated) - share(control) * (1.0 + tolerance)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3_600).unwrap_or(Timestamp::MAX)
    }

    fn seen(requests: u64, events: u64) -> Seen {
        Seen { requests, events }
    }

    fn suspect(name: &str, hour: i64, touched: &[&str]) -> Suspect {
        Suspect { name: name.into(), at: at(hour), touched: touched.iter().map(|n| Name::from(*n)).collect() }
    }

    fn harmed() -> BTreeMap<String, Harmed> {
        let harmed = Harmed { windows: 9, events: 50, counted: 20 };
        ["new-1", "new-2"].map(|name| (name.to_owned(), harmed)).into()
    }

    /// The change of hour 100 is blamed unless `others` are likelier; what was there `before` speaks against it.
    fn blamed(others: &[Suspect], before: [Seen; 2]) -> Vec<Blame> {
        let (harmed, beside) = (harmed(), ["old-1".to_owned(), "old-2".to_owned()]);
        let since = [seen(1_000, 100), seen(1_000, 10)];
        let harm = Harm { harmed: &harmed, beside: &beside, since, before, tolerance: 0.1 };
        blame("own", at(100), others, &harm, at(100))
    }

    const NOTHING: [Seen; 2] = [Seen { requests: 0, events: 0 }; 2];

    #[test]
    fn alone_it_is_to_blame() {
        let all = blamed(&[], NOTHING);
        assert_eq!((all.len(), all[0].change.as_str(), all[0].there_before), (1, "own", 0.0));
        assert!((all[0].score - 2_f64.ln()).abs() < 1e-9);
        assert_eq!(another(&all, "own"), None);
    }

    #[test]
    fn harm_that_was_there_before_is_the_earlier_changes() {
        let half_way = suspect("half-way", 90, &["new-1", "new-2"]);
        let all = blamed(std::slice::from_ref(&half_way), [seen(1_000, 100), seen(1_000, 10)]);
        assert_eq!(another(&all, "own").map(|b| b.change.as_str()), Some("half-way"));
        assert!((all.iter().find(|b| b.change == "own").map_or(0.0, |b| b.there_before) - 1.0).abs() < 1e-9);
        let all = blamed(&[half_way], [seen(1_000, 10), seen(1_000, 10)]);
        assert_eq!(another(&all, "own"), None, "they were well before");
    }

    #[test]
    fn what_touched_both_sides_alike_explains_nothing() {
        let everywhere = suspect("everywhere", 100, &["new-1", "new-2", "old-1", "old-2"]);
        let all = blamed(&[everywhere], NOTHING);
        assert_eq!(
            all.iter().map(|b| (b.change.as_str(), b.score > 0.0)).collect::<Vec<_>>(),
            [("own", true), ("everywhere", false)]
        );
    }

    #[test]
    fn votes_wear_off_with_age_and_end() {
        let score = |hour| {
            let all = blamed(&[suspect("other", hour, &["new-1", "new-2"])], NOTHING);
            all.iter().find(|b| b.change == "other").map_or(0.0, |b| b.score)
        };
        assert!(score(100) > score(90) && score(90) > score(50) && score(50) > 0.0);
        assert_eq!(score(20), 0.0);
    }
}
