//! The simulated fleet: instances that serve, fail, die and are upgraded, and what their proxies report.
//!
//! Time goes by steps of five seconds ([`TICK`]). Only instances near changed ones report (same app and unit, and all of apps with so few
//! instances that they are compared with their own past): the judge reads no others.

use jiff::Timestamp;
use weir_change::execute::World;
use weir_change::world::{Member, State};
use weir_model::FreezeSpec;
use weir_model::health::{EndpointTraffic, HealthWindow, Traffic};
use weir_store::observed::{Telemetry, TimedWindow};

use crate::background::{Background, Spell, Weather, within_a_tick};
use crate::dice::Dice;
use crate::flaw::{Flaw, SLOWER, Version};
use crate::latency::Latency;
use crate::shape::{AppShape, Shape, ZONES};

/// The version that everything runs before the change.
pub const OLD: &str = "1.0.0";
/// The version that the change brings.
pub const NEW: &str = "1.1.0";

/// Seconds of one step of the simulation, and of one window of reports.
pub const TICK: i64 = 5;
/// Places of so few instances always report: there may be nothing else to compare them with.
const FEW: usize = 2;
/// Slower than usual by this factor while a host is slow.
const HOST_SLOW: f64 = 2.0;
/// Share of the busiest hour's traffic in the quietest one.
const NIGHT: f64 = 0.3;

/// The simulated fleet.
pub struct Mesh {
    /// As the executor sees it, in the order of names.
    pub world: World,
    hosts: Vec<Host>,
    apps: Vec<App>,
    watched: Vec<bool>,
    version: Version,
    background: Background,
    dice: Dice,
    /// Requests that failed because of the version.
    pub harmed: u64,
}

struct App {
    shape: AppShape,
    usual: Latency,
    slower: Latency,
    slow_host: Latency,
    weather: Weather,
}

/// What is physically true of an instance.
#[derive(Debug, Clone)]
pub struct Host {
    /// Index of its app.
    pub app: usize,
    /// Index of its app and unit.
    pub place: usize,
    level: f64,
    phase: Phase,
    up_since: i64,
    burst: Spell,
    slow: Spell,
    /// Times its proxy was swapped for another version.
    pub swaps: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Swapping { until: i64 },
    Failed,
    Dead { until: i64 },
}

/// The moment of a simulated second.
pub fn moment(second: i64) -> Timestamp {
    // Monday, 2026-03-02 00:00 UTC.
    Timestamp::from_second(1_772_409_600 + second).unwrap_or(Timestamp::MAX)
}

impl Mesh {
    /// A fleet of this shape, all of it on [`OLD`].
    pub fn new(
        shape: &Shape,
        version: Version,
        background: Background,
        freezes: Vec<FreezeSpec>,
        mut dice: Dice,
    ) -> Mesh {
        let (members, hosts) = build(shape, background, &mut dice);
        let sizes = sizes(&hosts);
        let watched = sizes.iter().map(|size| *size <= FEW).collect();
        let apps = shape.apps.iter().map(|app| App::new(app, &mut dice)).collect();
        let world = World { members, freezes, released: true, ..World::default() };
        Mesh { world, hosts, apps, watched, version, background, dice, harmed: 0 }
    }

    /// What is physically true of instance number `index`.
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// Number of the instance with this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.world.members.binary_search_by(|m| (*m.name).cmp(name)).ok()
    }

    /// What the instance's spec says from now on.
    pub fn want(&mut self, name: &str, version: &str) {
        if let Some(index) = self.index(name) {
            self.world.members[index].wanted = version.into();
            let place = self.hosts[index].place;
            self.watched[place] = true;
        }
    }

    /// One step: everything moves and reports. True if an instance moved.
    pub fn tick(&mut self, second: i64, telemetry: &Telemetry) -> bool {
        for app in &mut self.apps {
            app.weather.step(second, &self.background, &mut self.dice);
        }
        let mut moved = false;
        for index in 0..self.hosts.len() {
            moved |= self.advance(index, second);
            if self.watched[self.hosts[index].place] {
                self.report(index, second, telemetry);
            }
        }
        moved
    }

    fn advance(&mut self, index: usize, second: i64) -> bool {
        let (host, member) = (&mut self.hosts[index], &mut self.world.members[index]);
        let before = host.phase;
        host.phase = match before {
            Phase::Serving if self.dice.chance(within_a_tick(self.background.host_death)) => {
                Phase::Dead { until: second + self.dice.whole(90, 300) }
            }
            Phase::Serving if must_swap(member) => Phase::Swapping { until: second + self.dice.whole(5, 20) },
            Phase::Failed if !wants_new(member) => Phase::Swapping { until: second + self.dice.whole(5, 20) },
            Phase::Swapping { until } | Phase::Dead { until } if second >= until => {
                let crashes = self.version.flaw == Flaw::CrashAtStart && wants_new(member);
                if crashes { Phase::Failed } else { come_up(host, member, second) }
            }
            phase => phase,
        };
        if host.phase == before {
            return false;
        }
        member.since = Some(moment(second));
        show(host.phase, member);
        true
    }

    fn report(&mut self, index: usize, second: i64, telemetry: &Telemetry) {
        let (host, member) = (&mut self.hosts[index], &self.world.members[index]);
        let (background, dice) = (&self.background, &mut self.dice);
        host.burst.step(second, background.host_burst, (10, 60), (0.1, 0.5), dice);
        host.slow.step(second, background.host_slow, (10, 60), (1.0, 1.0), dice);
        if member.state != State::Serving {
            return;
        }
        let app = &self.apps[host.app];
        let treated = &*member.running == NEW;
        let flawed = treated && self.version.shows(host.app, app.shape.stack);
        let requests = dice.poisson(app.shape.rps * of_day(second) * TICK as f64);
        let base = (app.weather.failing(app.shape.base, second) * host.level + host.burst.now(second)).min(0.95);
        let usual = app.weather.usual(app.shape.base) * host.level;
        let extra = if flawed { self.version.failing(usual, second - host.up_since).min(0.95) } else { 0.0 };
        let clump = if dice.chance(within_a_tick(background.clump)) { dice.poisson(8.0) } else { 0 };
        let by_itself = (dice.poisson(requests as f64 * base) + clump).min(requests);
        let harmed = dice.poisson(requests as f64 * extra).min(requests - by_itself);
        let errors = by_itself + harmed;
        self.harmed += harmed;
        let latency = app.latency(flawed && self.version.flaw == Flaw::Slow, host.slow.now(second) > 0.0);
        let faults = if flawed { dice.poisson(requests as f64 * self.version.faults()) } else { 0 };
        let inbound = Traffic { requests, errors, latency: latency.draw(requests, dice) };
        let mut window = HealthWindow { inbound, duration_ms: 1_000 * TICK as u32, ..HealthWindow::default() };
        if faults > 0 {
            window.faults.insert("upstream_protocol".into(), faults);
        }
        let received = moment(second);
        telemetry.record(&member.name, TimedWindow { received, proxy_version: member.running.to_string(), window });
        telemetry.record_caller(
            &member.name,
            received,
            &EndpointTraffic { requests, errors, ..EndpointTraffic::default() },
        );
    }
}

impl App {
    fn new(shape: &AppShape, dice: &mut Dice) -> App {
        let (median, sigma) = (dice.lognormal(8_000.0, 0.8).clamp(500.0, 60_000.0), dice.between(0.4, 0.7));
        App {
            shape: shape.clone(),
            usual: Latency::new(median, sigma),
            slower: Latency::new(median * SLOWER, sigma),
            slow_host: Latency::new(median * HOST_SLOW, sigma),
            weather: Weather::default(),
        }
    }

    fn latency(&self, slower: bool, slow_host: bool) -> &Latency {
        match (slower, slow_host) {
            (_, true) => &self.slow_host,
            (true, false) => &self.slower,
            (false, false) => &self.usual,
        }
    }
}

/// Share of the busiest hour's traffic at this second of the day: least at four in the morning.
pub fn of_day(second: i64) -> f64 {
    let day = second.rem_euclid(86_400) as f64 / 86_400.0;
    let wave = 0.5 - 0.5 * (2.0 * std::f64::consts::PI * (day - 4.0 / 24.0)).cos();
    NIGHT + (1.0 - NIGHT) * wave
}

fn must_swap(member: &Member) -> bool {
    member.wanted != member.running
}

fn wants_new(member: &Member) -> bool {
    &*member.wanted == NEW
}

fn come_up(host: &mut Host, member: &mut Member, second: i64) -> Phase {
    host.swaps += u32::from(must_swap(member));
    host.up_since = second;
    member.running = member.wanted.clone();
    Phase::Serving
}

/// What the store says of an instance in this phase.
fn show(phase: Phase, member: &mut Member) {
    let (state, message) = match phase {
        Phase::Serving => (State::Serving, ""),
        Phase::Swapping { .. } => (State::Moving, ""),
        Phase::Failed => (State::Failed, "its proxy exits at once"),
        Phase::Dead { .. } => (State::Silent, "its host is gone"),
    };
    member.state = state;
    member.message = message.into();
}

fn sizes(hosts: &[Host]) -> Vec<usize> {
    let mut sizes = vec![0; hosts.iter().map(|h| h.place + 1).max().unwrap_or(0)];
    hosts.iter().for_each(|h| sizes[h.place] += 1);
    sizes
}

/// Instances of a shape, in the order of their names, all of them on [`OLD`].
pub(crate) fn build(shape: &Shape, background: Background, dice: &mut Dice) -> (Vec<Member>, Vec<Host>) {
    let mut all = Vec::with_capacity(shape.instances());
    let mut place = 0;
    for (app, of) in shape.apps.iter().enumerate() {
        for (unit, count) in &of.places {
            for number in 0..*count {
                let level = dice.lognormal(1.0, background.unevenness);
                all.push((member(shape, of, *unit, number), Host::new(app, place, level)));
            }
            place += 1;
        }
    }
    all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    all.into_iter().unzip()
}

fn member(shape: &Shape, app: &AppShape, unit: usize, number: usize) -> Member {
    Member {
        name: format!("{}-{}-{number:05}", app.name, shape.units[unit]).into(),
        app: app.name.as_str().into(),
        line: "".into(),
        unit: shape.units[unit].as_str().into(),
        zone: format!("zone-{}", number % ZONES).into(),
        stack: shape.stacks[app.stack].as_str().into(),
        group: "".into(),
        tier: app.tier,
        canary: unit == 0,
        weight: app.rps.round().max(1.0) as u64,
        in_scope: true,
        wanted: OLD.into(),
        running: OLD.into(),
        state: State::Serving,
        checked: true,
        message: "".into(),
        since: None,
        workload: None,
    }
}

impl Host {
    fn new(app: usize, place: usize, level: f64) -> Host {
        Host {
            app,
            place,
            level,
            phase: Phase::Serving,
            up_since: 0,
            burst: Spell::default(),
            slow: Spell::default(),
            swaps: 0,
        }
    }
}
