//! One climb of the ladder: how much more may change, given how much has.

use weir_model::change::Rung;

/// How far something (the scope, an app) has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Climb {
    /// Traffic weight of all its instances.
    pub total: u64,
    /// Of that, changed.
    pub weight: u64,
    /// Instances changed.
    pub count: usize,
}

/// What a batch may add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The rung that gives it.
    pub rung: usize,
    /// Traffic weight.
    pub weight: u64,
    /// Instances.
    pub count: usize,
}

impl Room {
    /// Uses some of it, if there is enough.
    pub fn take(&mut self, weight: u64) -> bool {
        let fits = self.count > 0 && weight <= self.weight;
        if fits {
            self.count -= 1;
            self.weight -= weight;
        }
        fits
    }

    /// True if an instance of this weight would fit.
    pub fn fits(&self, weight: u64) -> bool {
        self.count > 0 && weight <= self.weight
    }
}

impl Climb {
    /// The room on the lowest rung that takes at least one more instance, the lightest of which weighs `lightest`.
    pub fn room(&self, ladder: &[Rung], lightest: u64) -> Room {
        let on = |(rung, step): (usize, &Rung)| self.room_on(rung, step.percent).filter(|r| r.fits(lightest));
        let last = Room { rung: ladder.len().saturating_sub(1), weight: u64::MAX, count: usize::MAX };
        ladder.iter().enumerate().find_map(on).unwrap_or(last)
    }

    fn room_on(&self, rung: usize, percent: f64) -> Option<Room> {
        if percent == 0.0 {
            return (self.count == 0).then_some(Room { rung, weight: u64::MAX, count: 1 });
        }
        let limit = share(self.total, percent);
        Some(Room { rung, weight: limit.saturating_sub(self.weight), count: usize::MAX })
    }

    /// Notes a changed instance.
    pub fn add(&mut self, weight: u64) {
        self.weight += weight;
        self.count += 1;
    }
}

/// So many percent of a weight, rounded down.
pub fn share(total: u64, percent: f64) -> u64 {
    // A hair more, so that 50 % of 4 is 2 whatever the rounding of the percentage.
    (total as f64 * percent / 100.0 + 1e-6).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(percents: &[f64]) -> Vec<Rung> {
        percents.iter().map(|p| Rung { percent: *p, bake_seconds: 0, min_requests: 0 }).collect()
    }

    #[test]
    fn the_lowest_rung_with_room_is_used() {
        let ladder = ladder(&[0.0, 5.0, 50.0, 100.0]);
        let mut climb = Climb { total: 10, weight: 0, count: 0 };
        assert_eq!(climb.room(&ladder, 1), Room { rung: 0, weight: u64::MAX, count: 1 });
        climb.add(1);
        assert_eq!(climb.room(&ladder, 1), Room { rung: 2, weight: 4, count: usize::MAX });
        assert_eq!(climb.room(&ladder, 5), Room { rung: 3, weight: 9, count: usize::MAX });
    }
}
