//! The walk of an instance through its life, as one function: what is wanted and what is so in, the next step out.
//!
//! Nothing here remembers: the phase is in the resource, what runs is told by the provider, and that callers have let go
//! is a condition which the xDS side sets. So a control plane that is killed between any two steps goes on from what it
//! finds. A step first records the phase, then acts; acting twice does nothing twice.

use std::time::Duration;

use jiff::Timestamp;
use weir_model::instance::{ALIVE, Instance, InstancePhase, UNPUBLISHED};
use weir_model::meta::holds;

use crate::supervisor::{ProxyState, Status};

/// Between two looks while something moves that gives no event.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks while nothing moves: a supervisor that dies is found this late.
const IDLE: Duration = Duration::from_secs(2);
/// A start or swap that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Wait before a failed start is tried again; doubles with every failure in a row.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest such wait.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// All that the decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The resource.
    pub instance: &'a Instance,
    /// What runs; `None`: nothing does.
    pub seen: Option<&'a Status>,
    /// Whether the wanted release can be used, or why not.
    pub release: Result<(), &'a str>,
    /// The time.
    pub now: Timestamp,
}

/// Something for the provider to do, or the last word on the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Start it with the wanted release.
    Start,
    /// The proxy ends gracefully.
    Drain,
    /// The wanted release runs as proxy.
    Swap,
    /// Everything ends gracefully.
    Stop,
    /// Clear away what is left, and delete the resource.
    Remove,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The phase from now on.
    pub phase: InstancePhase,
    /// What happens or went wrong.
    pub message: String,
    /// To do once the phase is recorded.
    pub act: Option<Act>,
    /// Look again after this time, if nothing changes before.
    pub again: Duration,
}

/// The next step of an instance that Weir runs.
pub fn decide(input: Input<'_>) -> Step {
    if input.instance.spec.retire {
        return retire(input);
    }
    match input.instance.status.phase {
        InstancePhase::Pending => go(InstancePhase::Starting, "to be started"),
        InstancePhase::Starting => starting(input),
        InstancePhase::Serving => serving(input),
        InstancePhase::Unpublishing => unpublishing(input),
        InstancePhase::Draining => draining(input),
        InstancePhase::Swapping => swapping(input),
        InstancePhase::Failed => failed(input),
        InstancePhase::Terminating => retire(input),
    }
}

/// ## Starting => (Serving | Failed)
fn starting(input: Input<'_>) -> Step {
    match (input.seen, input.release) {
        (None, Err(reason)) => fail(reason),
        (None, Ok(())) => act(InstancePhase::Starting, Act::Start, "its processes are being started"),
        (Some(_), _) => come_up(input, InstancePhase::Starting),
    }
}

/// ## Serving => (Unpublishing | Failed)
fn serving(input: Input<'_>) -> Step {
    let Some(seen) = input.seen else { return gone() };
    if let Some(reason) = unfit(input, seen) {
        return fail(&reason);
    }
    let wanted = &input.instance.spec.proxy_version;
    match input.release {
        _ if seen.proxy.wanted == *wanted && !another_program(input, seen) => wait(InstancePhase::Serving, IDLE, ""),
        Ok(()) if seen.proxy.wanted == *wanted => {
            let version = &input.instance.spec.app_version;
            go(InstancePhase::Unpublishing, &format!("its program is to become {version}; callers are told first"))
        }
        Ok(()) => go(InstancePhase::Unpublishing, &format!("its proxy is to become {wanted}; callers are told first")),
        Err(reason) => wait(InstancePhase::Serving, IDLE, &format!("serves on: {reason}")),
    }
}

/// Why its proxy serves nobody though its supervisor holds the socket, on which callers would wait in vain: it was started
/// again, and does not come up or finds itself unfit.
fn unfit(input: Input<'_>, seen: &Status) -> Option<String> {
    let version = &seen.proxy.version;
    if seen.proxy.state == ProxyState::Failed {
        return Some(format!("proxy {version}: {}", seen.proxy.message));
    }
    let failed = input.instance.status.self_check.as_ref().filter(|check| !check.passed)?;
    let checks: Vec<_> = failed.checks.iter().filter(|c| !c.passed).map(|c| c.name.as_str()).collect();
    Some(format!("proxy {version} failed its start-up self-check: {}", checks.join(", ")))
}

/// ## Unpublishing => (Draining | Serving | Failed)
fn unpublishing(input: Input<'_>) -> Step {
    let Some(seen) = input.seen else { return gone() };
    // One that leaves of its own accord (a drain asked of the proxy) runs as wanted to the end, and is not taken back.
    let reports = holds(&input.instance.status.conditions, ALIVE);
    if reports && runs_as_wanted(input, seen) && !another_program(input, seen) {
        return go(InstancePhase::Serving, "the change was taken back before it began");
    }
    if callers_know(input) {
        return go(InstancePhase::Draining, "callers know; what is in flight finishes");
    }
    wait(InstancePhase::Unpublishing, IDLE, "waits for callers to acknowledge that it is gone")
}

/// ## Draining => (Swapping | Failed)
fn draining(input: Input<'_>) -> Step {
    let Some(seen) = input.seen else { return gone() };
    match seen.proxy.state {
        ProxyState::Stopped => go(InstancePhase::Swapping, "the old proxy has ended"),
        ProxyState::Draining => wait(InstancePhase::Draining, LOOK, "the old proxy finishes what it has"),
        _ => act(InstancePhase::Draining, Act::Drain, "the old proxy finishes what it has"),
    }
}

/// ## Swapping => (Serving | Failed)
fn swapping(input: Input<'_>) -> Step {
    match (input.seen, input.release) {
        (None, Ok(())) if between_programs(input) => act(InstancePhase::Swapping, Act::Start, "its program starts"),
        (None, _) => gone(),
        (Some(_), Err(reason)) => fail(reason),
        (Some(seen), Ok(())) if another_program(input, seen) => end_program(seen),
        (Some(_), Ok(())) => come_up(input, InstancePhase::Swapping),
    }
}

/// Its supervisor ends with its program; both start again.
fn end_program(seen: &Status) -> Step {
    if seen.stopping {
        return wait(InstancePhase::Swapping, LOOK, "the old program ends");
    }
    act(InstancePhase::Swapping, Act::Stop, "the old program ends")
}

/// Another release of its program runs than is wanted.
fn another_program(input: Input<'_>, seen: &Status) -> bool {
    let runs = seen.app.as_ref().and_then(|app| app.version.as_ref());
    runs.is_some_and(|version| *version != input.instance.spec.app_version)
}

/// Nothing runs, and what ran last was another release of its program: it was ended to be replaced.
fn between_programs(input: Input<'_>) -> bool {
    input.instance.status.app_version != input.instance.spec.app_version
}

/// Its supervisor is there: does the wanted proxy run, is it healthy, has it registered?
fn come_up(input: Input<'_>, phase: InstancePhase) -> Step {
    let (Some(seen), wanted) = (input.seen, &input.instance.spec.proxy_version) else { return gone() };
    if seen.proxy.wanted != *wanted {
        return match input.release {
            Ok(()) => act(phase, Act::Swap, &format!("proxy {wanted} is being started")),
            Err(reason) => fail(reason),
        };
    }
    if serves_as_wanted(input, seen) {
        return go(InstancePhase::Serving, "");
    }
    if seen.proxy.state == ProxyState::Failed {
        return fail(&format!("proxy {wanted}: {}", seen.proxy.message));
    }
    if since_phase(input) > PATIENCE {
        return fail(&format!("proxy {wanted} is not ready after 60 s: {}", awaited(input, seen)));
    }
    wait(phase, LOOK, &awaited(input, seen))
}

/// ## Failed => (Serving | Draining | Starting)
fn failed(input: Input<'_>) -> Step {
    let kept = &input.instance.status.message;
    let Some(seen) = input.seen else {
        // To try would be to fail again, after a longer wait each time: it starts as soon as there is a release.
        return input.release.map_or_else(|reason| wait(InstancePhase::Failed, IDLE, reason), |()| start_again(input));
    };
    let wanted = &input.instance.spec.proxy_version;
    if seen.proxy.wanted != *wanted && input.release.is_ok() {
        return go(InstancePhase::Draining, &format!("another proxy is wanted now: {wanted}"));
    }
    if another_program(input, seen) && input.release.is_ok() {
        return go(InstancePhase::Draining, "another release of its program is wanted now");
    }
    if serves_as_wanted(input, seen) {
        return go(InstancePhase::Serving, "");
    }
    wait(InstancePhase::Failed, IDLE, kept)
}

fn start_again(input: Input<'_>) -> Step {
    let status = &input.instance.status;
    let doublings = status.failures.saturating_sub(1).min(16);
    let delay = FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
    match delay.checked_sub(since_phase(input)).filter(|left| !left.is_zero()) {
        Some(left) => wait(InstancePhase::Failed, left, &status.message),
        None => go(InstancePhase::Starting, "is started again"),
    }
}

/// ## any => Terminating => deleted, by way of Unpublishing and Draining if it serves
fn retire(input: Input<'_>) -> Step {
    let Some(seen) = input.seen else {
        return act(InstancePhase::Terminating, Act::Remove, "nothing of it runs any more");
    };
    match input.instance.status.phase {
        InstancePhase::Serving => go(InstancePhase::Unpublishing, "it is to go; callers are told first"),
        InstancePhase::Unpublishing if callers_know(input) => go(InstancePhase::Draining, "callers know"),
        InstancePhase::Unpublishing => {
            wait(InstancePhase::Unpublishing, IDLE, "waits for callers to acknowledge that it is gone")
        }
        InstancePhase::Draining if seen.proxy.state != ProxyState::Stopped => draining(input),
        InstancePhase::Terminating if seen.stopping => wait(InstancePhase::Terminating, LOOK, "its processes end"),
        _ => act(InstancePhase::Terminating, Act::Stop, "its processes end"),
    }
}

/// Every caller has acknowledged, counted from the moment at which this unpublishing began.
fn callers_know(input: Input<'_>) -> bool {
    holds(&input.instance.status.conditions, UNPUBLISHED)
}

fn runs_as_wanted(input: Input<'_>, seen: &Status) -> bool {
    let wanted = &input.instance.spec.proxy_version;
    seen.proxy.wanted == *wanted && seen.proxy.version == *wanted && seen.proxy.state == ProxyState::Ready
}

/// The wanted proxy says so itself, and the registry has heard it say so.
fn serves_as_wanted(input: Input<'_>, seen: &Status) -> bool {
    let status = &input.instance.status;
    let registered = status.proxy_version == input.instance.spec.proxy_version && holds(&status.conditions, ALIVE);
    runs_as_wanted(input, seen) && registered && status.self_check.as_ref().is_some_and(|check| check.passed)
}

fn awaited(input: Input<'_>, seen: &Status) -> String {
    if runs_as_wanted(input, seen) {
        return "its proxy is ready; waits for it to register".into();
    }
    if seen.proxy.message.is_empty() { "its proxy starts".into() } else { seen.proxy.message.clone() }
}

fn since_phase(input: Input<'_>) -> Duration {
    let since = input.instance.status.phase_since.unwrap_or(input.now);
    Duration::try_from(input.now.duration_since(since)).unwrap_or_default()
}

fn gone() -> Step {
    fail("its supervisor or its program has ended")
}

fn fail(message: &str) -> Step {
    Step { phase: InstancePhase::Failed, message: message.to_owned(), act: None, again: Duration::ZERO }
}

fn go(phase: InstancePhase, message: &str) -> Step {
    Step { phase, message: message.to_owned(), act: None, again: Duration::ZERO }
}

fn act(phase: InstancePhase, act: Act, message: &str) -> Step {
    Step { phase, message: message.to_owned(), act: Some(act), again: LOOK }
}

fn wait(phase: InstancePhase, again: Duration, message: &str) -> Step {
    Step { phase, message: message.to_owned(), act: None, again }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::supervisor::AppStatus;
    use weir_model::health::SelfCheck;
    use weir_model::instance::{InstanceSpec, ManagedBy};
    use weir_model::meta::{Condition, ConditionStatus, set_condition};

    pub(crate) fn spec(version: &str) -> InstanceSpec {
        InstanceSpec {
            app: "stock".into(),
            unit: "east".into(),
            zone: String::new(),
            group: String::new(),
            stack: String::new(),
            managed_by: ManagedBy::Weir,
            workload: None,
            address: "127.16.0.1".parse().unwrap(),
            port: 8080,
            app_port: 9000,
            app_address: None,
            protocol: Default::default(),
            upstreams: Vec::new(),
            proxy_version: version.into(),
            app_version: String::new(),
            weight: 100,
            config_revision: String::new(),
            retire: false,
        }
    }

    fn instance(wanted: &str, phase: InstancePhase) -> Instance {
        let mut instance = Instance::new("stock-1", spec(wanted));
        instance.status.phase = phase;
        instance
    }

    fn proxy(version: &str, state: ProxyState) -> Status {
        let proxy = crate::supervisor::ProxyStatus {
            state,
            version: version.into(),
            wanted: version.into(),
            ..Default::default()
        };
        Status { instance: "stock-1".into(), pid: 1, app: None, proxy, stopping: false }
    }

    fn set(instance: &mut Instance, r#type: &str) {
        let condition = Condition {
            r#type: r#type.into(),
            status: ConditionStatus::True,
            reason: "Test".into(),
            message: String::new(),
            last_transition_time: Timestamp::UNIX_EPOCH,
        };
        set_condition(&mut instance.status.conditions, condition);
    }

    fn registered(mut instance: Instance, version: &str) -> Instance {
        set(&mut instance, ALIVE);
        instance.status.proxy_version = version.into();
        instance.status.self_check = Some(SelfCheck { passed: true, checks: Vec::new() });
        instance
    }

    fn step(instance: &Instance, seen: Option<&Status>) -> Step {
        decide(Input { instance, seen, release: Ok(()), now: Timestamp::UNIX_EPOCH })
    }

    use InstancePhase::*;

    #[test]
    fn a_serving_instance_rests_until_another_proxy_is_wanted() {
        let ready = proxy("A", ProxyState::Ready);
        assert_eq!(step(&instance("A", Serving), Some(&ready)).phase, Serving);
        let next = step(&instance("B", Serving), Some(&ready));
        assert_eq!((next.phase, next.act), (Unpublishing, None));
    }

    #[test]
    fn nothing_is_drained_before_callers_know() {
        let ready = proxy("A", ProxyState::Ready);
        let mut leaving = instance("B", Unpublishing);
        assert_eq!(step(&leaving, Some(&ready)).phase, Unpublishing);
        set(&mut leaving, UNPUBLISHED);
        assert_eq!(step(&leaving, Some(&ready)).phase, Draining);
    }

    #[test]
    fn the_swap_waits_for_the_old_proxy_and_serving_for_the_new_one() {
        let draining = instance("B", Draining);
        assert_eq!(step(&draining, Some(&proxy("A", ProxyState::Ready))).act, Some(Act::Drain));
        assert_eq!(step(&draining, Some(&proxy("A", ProxyState::Draining))).act, None);
        let mut stopped = proxy("A", ProxyState::Stopped);
        stopped.proxy.wanted = String::new();
        assert_eq!(step(&draining, Some(&stopped)).phase, Swapping);

        let swapping = instance("B", Swapping);
        assert_eq!(step(&swapping, Some(&stopped)).act, Some(Act::Swap));
        let ready = proxy("B", ProxyState::Ready);
        assert_eq!(step(&swapping, Some(&ready)).phase, Swapping, "not registered yet");
        assert_eq!(step(&registered(swapping, "B"), Some(&ready)).phase, Serving);
    }

    #[test]
    fn what_the_old_proxy_registered_does_not_count_for_the_new_one() {
        let stale = registered(instance("B", Swapping), "A");
        assert_eq!(step(&stale, Some(&proxy("B", ProxyState::Ready))).phase, Swapping);
    }

    #[test]
    fn a_failed_swap_is_left_when_the_version_is_taken_back() {
        let broken = proxy("C", ProxyState::Failed);
        assert_eq!(step(&instance("C", Swapping), Some(&broken)).phase, Failed);
        assert_eq!(step(&instance("C", Failed), Some(&broken)).phase, Failed);
        assert_eq!(step(&instance("A", Failed), Some(&broken)).phase, Draining);
    }

    #[test]
    fn a_change_taken_back_while_unpublishing_is_over() {
        let ready = proxy("A", ProxyState::Ready);
        let mut taken_back = instance("A", Unpublishing);
        set(&mut taken_back, ALIVE);
        assert_eq!(step(&taken_back, Some(&ready)).phase, Serving);
    }

    #[test]
    fn one_that_leaves_of_its_own_accord_is_not_taken_back() {
        let leaving = instance("A", Unpublishing);
        let step = step(&leaving, Some(&proxy("A", ProxyState::Ready)));
        assert_eq!((step.phase, step.act), (Unpublishing, None));
    }

    #[test]
    fn one_whose_proxy_came_back_unfit_is_not_given_to_callers() {
        let mut unfit = instance("A", Serving);
        let memory = weir_model::health::CheckResult { name: "memory".into(), ..Default::default() };
        unfit.status.self_check = Some(SelfCheck { passed: false, checks: vec![memory] });
        let step_of = |state| step(&unfit, Some(&proxy("A", state)));
        let failed = step_of(ProxyState::Starting);
        assert_eq!(failed.phase, InstancePhase::Failed);
        assert_eq!(failed.message, "proxy A failed its start-up self-check: memory");
        let gave_up = step(&instance("A", Serving), Some(&proxy("A", ProxyState::Failed)));
        assert_eq!(gave_up.phase, InstancePhase::Failed);
    }

    #[test]
    fn another_program_starts_when_the_old_one_has_ended() {
        let mut wanted = instance("A", Serving);
        wanted.spec.app_version = "2".into();
        let mut seen = proxy("A", ProxyState::Ready);
        let app =
            |version: &str| AppStatus { pid: 1, started_at: Timestamp::UNIX_EPOCH, version: Some(version.into()) };
        seen.app = Some(app("1"));
        assert_eq!(step(&wanted, Some(&seen)).phase, Unpublishing);
        wanted.status.phase = Swapping;
        wanted.status.app_version = "1".into();
        assert_eq!(step(&wanted, Some(&seen)).act, Some(Act::Stop));
        assert_eq!(step(&wanted, Some(&Status { stopping: true, ..seen.clone() })).act, None);
        assert_eq!(step(&wanted, None).act, Some(Act::Start));
        seen.app = Some(app("2"));
        assert_eq!(step(&registered(wanted.clone(), "A"), Some(&seen)).phase, Serving);
        wanted.status.app_version = "2".into();
        assert_eq!(step(&wanted, None).phase, Failed, "the new one has ended by itself");
    }

    #[test]
    fn a_supervisor_that_does_not_tell_its_programs_release_is_left_alone() {
        let mut wanted = instance("A", Serving);
        wanted.spec.app_version = "2".into();
        let mut seen = proxy("A", ProxyState::Ready);
        seen.app = Some(AppStatus { pid: 1, started_at: Timestamp::UNIX_EPOCH, version: None });
        assert_eq!(step(&wanted, Some(&seen)).phase, Serving);
    }

    #[test]
    fn a_release_that_cannot_be_used_takes_nothing_out_of_service() {
        let instance = instance("B", Serving);
        let ready = proxy("A", ProxyState::Ready);
        let input = Input { instance: &instance, seen: Some(&ready), release: Err("no"), now: Timestamp::UNIX_EPOCH };
        assert_eq!(decide(input).phase, Serving);
    }

    #[test]
    fn a_dead_instance_starts_again_after_a_growing_wait() {
        assert_eq!(step(&instance("A", Serving), None).phase, Failed);
        let mut dead = instance("A", Failed);
        dead.status.failures = 3;
        dead.status.phase_since = Some(Timestamp::UNIX_EPOCH);
        let after = |seconds| {
            let now = Timestamp::from_second(seconds).unwrap();
            decide(Input { instance: &dead, seen: None, release: Ok(()), now })
        };
        assert_eq!((after(3).phase, after(3).again), (Failed, Duration::from_secs(1)));
        assert_eq!(after(4).phase, Starting);
    }

    #[test]
    fn what_waits_for_a_release_starts_as_soon_as_there_is_one() {
        let mut waiting = instance("B", Failed);
        waiting.status.failures = 1;
        waiting.status.phase_since = Some(Timestamp::UNIX_EPOCH);
        let now = Timestamp::from_second(300).unwrap();
        let missing = decide(Input { instance: &waiting, seen: None, release: Err("there is no Release"), now });
        assert_eq!((missing.phase, missing.message.as_str()), (Failed, "there is no Release"));
        assert_eq!(missing.again, IDLE, "it does not wait longer each time");
        assert_eq!(decide(Input { instance: &waiting, seen: None, release: Ok(()), now }).phase, Starting);
    }

    #[test]
    fn a_start_that_hangs_has_failed() {
        let mut starting = instance("A", Starting);
        starting.status.phase_since = Some(Timestamp::UNIX_EPOCH);
        let seen = proxy("A", ProxyState::Starting);
        let now = Timestamp::from_second(61).unwrap();
        let next = decide(Input { instance: &starting, seen: Some(&seen), release: Ok(()), now });
        assert_eq!(next.phase, Failed);
    }

    #[test]
    fn retiring_unpublishes_drains_stops_and_removes() {
        let ready = proxy("A", ProxyState::Ready);
        let going = |phase| {
            let mut going = instance("A", phase);
            going.spec.retire = true;
            going
        };
        assert_eq!(step(&going(Serving), Some(&ready)).phase, Unpublishing);
        assert_eq!(step(&going(Unpublishing), Some(&ready)).phase, Unpublishing);
        assert_eq!(step(&going(Draining), Some(&ready)).act, Some(Act::Drain));
        let stopped = proxy("A", ProxyState::Stopped);
        assert_eq!(step(&going(Draining), Some(&stopped)).act, Some(Act::Stop));
        assert_eq!(step(&going(Terminating), None).act, Some(Act::Remove));
    }

    #[test]
    fn every_step_is_a_legal_transition() {
        let phases = [Pending, Starting, Serving, Unpublishing, Draining, Swapping, Failed, Terminating];
        let states =
            [ProxyState::Stopped, ProxyState::Starting, ProxyState::Ready, ProxyState::Draining, ProxyState::Failed];
        let seen = || states.iter().flat_map(|s| [proxy("A", *s), proxy("B", *s)]).map(Some).chain([None]);
        for phase in phases {
            for seen in seen() {
                for (retire, unpublished) in [(false, false), (false, true), (true, false), (true, true)] {
                    let mut from = registered(instance("B", phase), "B");
                    from.spec.retire = retire;
                    if unpublished {
                        set(&mut from, UNPUBLISHED);
                    }
                    let next = step(&from, seen.as_ref());
                    assert!(phase.may_become(next.phase), "{phase:?} -> {:?} with {seen:?}", next.phase);
                }
            }
        }
    }
}
