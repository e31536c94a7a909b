//! Protection windows by place: which of them concern an app in a unit, so that none other is asked.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use weir_model::FreezeSpec;

use super::index::Place;
use crate::windows::{self, Face, Shut, Way, Windows};

/// Places that close within so long go first: those that miss their window wait for the next one.
const HURRY: SignedDuration = SignedDuration::from_hours(24);
/// Different moments of closing that are told apart; each costs a pass over those that are left.
const MAX_TURNS: usize = 16;

pub(super) struct Calendar<'a> {
    windows: Windows<'a>,
    /// By place; empty if there are no windows at all.
    of_place: Vec<windows::Calendar>,
}

impl<'a> Calendar<'a> {
    pub fn new(freezes: &'a [FreezeSpec], places: &[Place]) -> Calendar<'a> {
        let windows = Windows::new(freezes);
        let asked = if windows.is_empty() { &[] } else { places };
        let of_place = asked.iter().map(|place| windows.calendar(place.of_windows())).collect();
        Calendar { windows, of_place }
    }

    /// How the windows stand at `at`.
    pub fn at(&self, at: Timestamp) -> Face {
        self.windows.at(at)
    }

    /// Why the place with this number may not change.
    pub fn shut(&self, place: u32, face: &Face) -> Option<Shut<'a>> {
        self.windows.shut(self.of_place.get(place as usize)?, face, Way::Forward)
    }

    /// Which places are shut; `None`: there are no windows at all.
    pub fn all_shut(&self, at: Timestamp) -> Option<Vec<bool>> {
        let face = self.at(at);
        let shut = |calendar| self.windows.shut(calendar, &face, Way::Forward).is_some();
        (!self.windows.is_empty()).then(|| self.of_place.iter().map(shut).collect())
    }

    /// By place, whose turn comes before whose at `at`: 0 for those that close first, and so on; `None`: no open place is
    /// known to close within [`HURRY`].
    pub fn hurry(&self, at: Timestamp) -> Option<Vec<u8>> {
        let face = self.at(at);
        let soon = at.checked_add(HURRY).unwrap_or(Timestamp::MAX);
        let closes = |calendar| self.windows.closes(calendar, &face).filter(|closes| *closes <= soon);
        let closes: Vec<Option<Timestamp>> = self.of_place.iter().map(closes).collect();
        let moments: BTreeSet<Timestamp> = closes.iter().copied().flatten().collect();
        let last = moments.len().min(MAX_TURNS);
        let rank: HashMap<Timestamp, u8> = moments.into_iter().take(last).zip(0..).collect();
        let turn = |closes: &Option<Timestamp>| closes.and_then(|c| rank.get(&c).copied()).unwrap_or(last as u8);
        (last > 0).then(|| closes.iter().map(turn).collect())
    }
}
