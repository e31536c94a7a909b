//! Protection windows by place: which of them concern an app in a unit, so that none other is asked.

use jiff::Timestamp;
use weir_model::FreezeSpec;

use super::index::Place;
use crate::windows::{self, Face, Shut, Way, Windows};

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
}
