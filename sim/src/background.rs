//! What fails by itself, whatever the version: apps, hosts, moments.
//!
//! All rates are per hour and are stated here, so that the figures that rest on them can be judged.

use crate::dice::Dice;
use crate::mesh::TICK;

/// How much fails by itself.
#[derive(Debug, Clone, Copy)]
pub struct Background {
    /// An app begins to fail on all its instances (a database, a dependency).
    pub app_outage: f64,
    /// A host begins to fail a tenth to a half of its requests for up to a minute.
    pub host_burst: f64,
    /// A host begins to serve at half its speed for up to a minute.
    pub host_slow: f64,
    /// A host dies; its instance comes back elsewhere after some minutes.
    pub host_death: f64,
    /// A single second with a clump of errors on one instance (a batch job, a client with a bad payload).
    pub clump: f64,
    /// Spread of the instances' own error levels around their app's (sigma of a lognormal).
    pub unevenness: f64,
    /// Spread of an app's error level over time (sigma of a lognormal, remembered for about a minute).
    pub restlessness: f64,
}

impl Background {
    /// An ordinary bad day: apps fail every few hours, hosts have a burst each day, one in a thousand dies each day.
    pub fn ordinary() -> Background {
        Background {
            app_outage: 1.0 / 4.0,
            host_burst: 1.0 / 24.0,
            host_slow: 1.0 / 24.0,
            host_death: 1.0 / (1_000.0 * 24.0),
            clump: 6.0,
            unevenness: 0.05,
            restlessness: 0.3,
        }
    }

    /// Nothing fails but what the apps' base levels say.
    pub fn quiet() -> Background {
        Background {
            app_outage: 0.0,
            host_burst: 0.0,
            host_slow: 0.0,
            host_death: 0.0,
            clump: 0.0,
            unevenness: 0.0,
            restlessness: 0.0,
        }
    }
}

/// The chance of something that happens so often in an hour to begin within one step.
pub fn within_a_tick(per_hour: f64) -> f64 {
    per_hour * TICK as f64 / 3_600.0
}

/// Something that lasts until a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spell {
    until: i64,
    strength: f64,
}

impl Spell {
    /// Its strength now; nothing once it is over.
    pub fn now(&self, second: i64) -> f64 {
        if second < self.until { self.strength } else { 0.0 }
    }

    /// Perhaps it begins now.
    pub fn step(&mut self, second: i64, per_hour: f64, lasts: (i64, i64), strength: (f64, f64), dice: &mut Dice) {
        if per_hour > 0.0 && second >= self.until && dice.chance(within_a_tick(per_hour)) {
            self.until = second + dice.whole(lasts.0, lasts.1);
            self.strength = dice.between(strength.0, strength.1);
        }
    }
}

/// How an app is, whatever the version.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    outage: Spell,
    unrest: f64,
}

impl Weather {
    /// One second later.
    pub fn step(&mut self, second: i64, background: &Background, dice: &mut Dice) {
        self.outage.step(second, background.app_outage, (60, 300), (0.05, 0.5), dice);
        if background.restlessness > 0.0 {
            let step = TICK as f64 / 60.0;
            let (keeps, moves) = (1.0 - step, background.restlessness * (2.0 * step).sqrt());
            self.unrest = self.unrest * keeps + moves * dice.normal();
        }
    }

    /// Share of requests that fail at this moment but for outages, where `base` is usual.
    pub fn usual(&self, base: f64) -> f64 {
        base * self.unrest.exp()
    }

    /// Share of requests that fail, where `base` is usual.
    pub fn failing(&self, base: f64, second: i64) -> f64 {
        (self.usual(base) + self.outage.now(second)).min(0.9)
    }
}
