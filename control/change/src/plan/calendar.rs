//! Protection windows by place: which of them concern an app in a unit, so that none other is asked.

use std::collections::HashMap;

use jiff::Timestamp;
use weir_model::FreezeSpec;

use super::index::Place;
use super::longest;

pub(super) struct Calendar<'a> {
    /// Windows that concern each place.
    by_place: Vec<Vec<&'a FreezeSpec>>,
    empty: bool,
}

impl<'a> Calendar<'a> {
    pub fn new(freezes: &'a [FreezeSpec], places: &[Place]) -> Calendar<'a> {
        let mut by_app: HashMap<&str, Vec<&FreezeSpec>> = HashMap::new();
        let (general, named): (Vec<_>, Vec<_>) = freezes.iter().partition(|f| f.apps.is_empty());
        for freeze in named {
            freeze.apps.iter().for_each(|app| by_app.entry(app).or_default().push(freeze));
        }
        let of_place = |place: &Place| {
            let own = by_app.get(place.app).into_iter().flatten();
            let here = |f: &&&FreezeSpec| f.units.is_empty() || f.units.iter().any(|unit| unit == place.unit);
            general.iter().chain(own).filter(here).copied().collect()
        };
        Calendar { by_place: places.iter().map(of_place).collect(), empty: freezes.is_empty() }
    }

    /// The longest of the windows that forbid `place` to change at `at`.
    pub fn window(&self, number: u32, place: &Place, at: Timestamp) -> Option<&'a FreezeSpec> {
        longest(self.by_place[number as usize].iter().copied(), place.app, place.unit, at)
    }

    /// Which places are shut at `at`; `None`: there are no windows at all.
    pub fn shut(&self, places: &[Place], at: Timestamp) -> Option<Vec<bool>> {
        let shut = || (0..).zip(places).map(|(number, place)| self.window(number, place, at).is_some()).collect();
        (!self.empty).then(shut)
    }

    /// When the first of the windows that shut `place` at `at` ends.
    pub fn opens(&self, number: u32, place: &Place, at: Timestamp) -> Option<Timestamp> {
        let shut = self.by_place[number as usize].iter().filter(|f| f.forbids(place.app, place.unit, at));
        shut.filter_map(|f| f.until).filter(|until| *until > at).min()
    }
}
