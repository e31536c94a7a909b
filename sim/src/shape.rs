//! The shape of a fleet: which apps run where, with how many instances and how much traffic.

use crate::dice::Dice;

/// A fleet's shape.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Apps.
    pub apps: Vec<AppShape>,
    /// Units; the first is the canary unit.
    pub units: Vec<String>,
    /// Technology stacks.
    pub stacks: Vec<String>,
}

/// An app.
#[derive(Debug, Clone)]
pub struct AppShape {
    /// Its name.
    pub name: String,
    /// Index of its stack.
    pub stack: usize,
    /// Importance, 1 (most) to 4.
    pub tier: u8,
    /// Requests per second of one instance, at the busiest hour.
    pub rps: f64,
    /// Share of its requests that fail by themselves.
    pub base: f64,
    /// Instances by index of their unit.
    pub places: Vec<(usize, usize)>,
}

/// Zones of a unit.
pub const ZONES: usize = 2;

impl Shape {
    /// Instances in all.
    pub fn instances(&self) -> usize {
        self.apps.iter().flat_map(|a| &a.places).map(|(_, count)| count).sum()
    }

    /// A few apps of a few dozen instances: what one of many simulated changes is about.
    pub fn small(dice: &mut Dice) -> Shape {
        let units = dice.whole(1, 3) as usize;
        let apps = dice.whole(2, 5);
        let app = |number: i64, dice: &mut Dice| {
            let lonely = dice.chance(0.1);
            let place = |unit, dice: &mut Dice| (unit, if lonely { 1 } else { dice.whole(2, 8) as usize });
            AppShape {
                name: format!("app-{number:02}"),
                stack: dice.whole(0, 2) as usize,
                tier: dice.whole(1, 4) as u8,
                rps: dice.lognormal(60.0, 0.6).clamp(15.0, 300.0),
                base: base(dice),
                places: (0..units).map(|unit| place(unit, dice)).collect(),
            }
        };
        Shape {
            apps: (0..apps).map(|n| app(n, dice)).collect(),
            units: names("unit", units),
            stacks: names("stack", 3),
        }
    }

    /// Three hundred instances of twelve apps, so that the one box and the rung of one percent are below two percent.
    pub fn middle(dice: &mut Dice) -> Shape {
        let app = |number: usize, dice: &mut Dice| AppShape {
            name: format!("app-{number:02}"),
            stack: number % 3,
            tier: 1 + (number % 4) as u8,
            rps: 30.0,
            base: base(dice).clamp(0.002, 0.02),
            places: vec![(0, 5), (1, 10), (2, 10)],
        };
        Shape { apps: (0..12).map(|n| app(n, dice)).collect(), units: names("unit", 3), stacks: names("stack", 3) }
    }

    /// So many instances of so many apps, a few large and many small, on six stacks in twelve units.
    pub fn large(instances: usize, apps: usize, dice: &mut Dice) -> Shape {
        let units = 12;
        let shares: Vec<f64> = (0..apps).map(|_| dice.lognormal(1.0, 1.2)).collect();
        let all: f64 = shares.iter().sum();
        let app = |(number, share): (usize, &f64), dice: &mut Dice| {
            let wanted = (instances as f64 * share / all).round().max(1.0) as usize;
            let spread = wanted.div_ceil(3).min(units);
            let first = dice.whole(0, units as i64 - 1) as usize;
            let count = |n: usize| wanted / spread + usize::from(n < wanted % spread);
            AppShape {
                name: format!("app-{number:05}"),
                stack: dice.whole(0, 5) as usize,
                tier: 1 + (dice.share() * dice.share() * 4.0) as u8,
                rps: dice.lognormal(30.0, 0.8).clamp(2.0, 400.0),
                base: base(dice),
                places: (0..spread).map(|n| ((first + n) % units, count(n))).collect(),
            }
        };
        Shape {
            apps: shares.iter().enumerate().map(|s| app(s, dice)).collect(),
            units: names("unit", units),
            stacks: names("stack", 6),
        }
    }
}

fn names(kind: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{kind}-{n:02}")).collect()
}

/// Most apps fail rarely; a few fail all the time by themselves.
fn base(dice: &mut Dice) -> f64 {
    if dice.chance(0.1) { dice.between(0.02, 0.06) } else { dice.lognormal(0.003, 0.8).clamp(0.000_5, 0.02) }
}
