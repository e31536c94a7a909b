//! What a new version does wrong.

use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// A version's fault; [`Flaw::None`] is a good version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Flaw {
    /// A good version.
    None,
    /// Half as many errors again.
    ErrorsHalfMore,
    /// Twice the errors.
    ErrorsTwice,
    /// Ten times the errors.
    ErrorsTenfold,
    /// Ten times the errors, on one stack only.
    OneStack,
    /// Half of the requests of one caller fail, a tenth of one app's traffic.
    OneCaller,
    /// Every request takes a fifth longer.
    Slow,
    /// A leak: as long after its start as the one box is watched, a tenth of the requests begin to fail.
    Leak,
    /// Its proxy counts faults of its own on one request in two hundred, which callers do not notice.
    Faults,
    /// It does not come up.
    CrashAtStart,
}

impl Flaw {
    /// Every way to be bad.
    pub const BAD: [Flaw; 9] = [
        Flaw::ErrorsHalfMore,
        Flaw::ErrorsTwice,
        Flaw::ErrorsTenfold,
        Flaw::OneStack,
        Flaw::OneCaller,
        Flaw::Slow,
        Flaw::Leak,
        Flaw::Faults,
        Flaw::CrashAtStart,
    ];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Flaw::None => "good",
            Flaw::ErrorsHalfMore => "errors x1.5",
            Flaw::ErrorsTwice => "errors x2",
            Flaw::ErrorsTenfold => "errors x10",
            Flaw::OneStack => "x10 on one stack",
            Flaw::OneCaller => "under one caller",
            Flaw::Slow => "20 % slower",
            Flaw::Leak => "leak, shows late",
            Flaw::Faults => "proxy faults",
            Flaw::CrashAtStart => "crash at start",
        }
    }

    /// A good version half of the time.
    pub fn draw(dice: &mut Dice) -> Flaw {
        if dice.chance(0.5) { Flaw::None } else { *dice.one_of(&Flaw::BAD) }
    }
}

/// A flaw and where it shows.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    /// What is wrong.
    pub flaw: Flaw,
    /// Only on this app.
    pub only_app: Option<usize>,
    /// Only on this stack.
    pub only_stack: Option<usize>,
    /// Seconds after its start at which a leak shows.
    pub leak_after: i64,
}

/// Share of the failing caller's requests in the app's traffic, times the share of them that fail.
const ONE_CALLER: f64 = 0.1 * 0.5;
/// Share of requests that fail once a leak shows.
const LEAKING: f64 = 0.1;
/// Proxy faults per request.
const FAULTY: f64 = 0.005;
/// What a slow version does to every request.
pub const SLOWER: f64 = 1.2;

impl Version {
    /// It is wrong here.
    pub fn shows(&self, app: usize, stack: usize) -> bool {
        self.only_app.is_none_or(|only| only == app) && self.only_stack.is_none_or(|only| only == stack)
    }

    /// Share of requests that fail because of it, where `base` fail anyway, `age` seconds after its start.
    pub fn failing(&self, base: f64, age: i64) -> f64 {
        match self.flaw {
            Flaw::ErrorsHalfMore => base * 0.5,
            Flaw::ErrorsTwice => base,
            Flaw::ErrorsTenfold | Flaw::OneStack => base * 9.0,
            Flaw::OneCaller => ONE_CALLER,
            Flaw::Leak if age >= self.leak_after => LEAKING,
            Flaw::None | Flaw::Slow | Flaw::Leak | Flaw::Faults | Flaw::CrashAtStart => 0.0,
        }
    }

    /// Proxy faults per request.
    pub fn faults(&self) -> f64 {
        if self.flaw == Flaw::Faults { FAULTY } else { 0.0 }
    }
}
