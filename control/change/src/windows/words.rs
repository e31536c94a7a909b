//! A protection window in words.

use jiff::Timestamp;
use weir_model::Freeze;
use weir_model::freeze::{Effect, Moment};

/// Whether it holds now and until when, or when it holds next, and for whom.
pub fn explain(freeze: &Freeze, now: Timestamp) -> String {
    let spec = &freeze.spec;
    let (does, else_does) = match spec.effect {
        Effect::Suppress => ("nothing in its scope changes", "it holds nobody"),
        Effect::Permit => ("what is in its scope may change", "what is in its scope may not change by it"),
    };
    let key = freeze.key();
    let moment = match spec.at(now) {
        Moment::Within(Some(until)) => format!("{key} holds now, until {until:.0}: {does}."),
        Moment::Within(None) => format!("{key} holds now, until it is deleted: {does}."),
        Moment::Outside(Some(next)) => format!("{key} does not hold now: {else_does}. It holds next from {next:.0}."),
        Moment::Outside(None) => format!("{key} is over and never holds again: it can be deleted."),
    };
    [Some(moment), Some(scope(freeze)), schedule(freeze), Some(format!("The reason: {}.", spec.reason))]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n")
}

fn scope(freeze: &Freeze) -> String {
    let spec = &freeze.spec;
    let lists = [("apps", &spec.apps), ("business lines", &spec.lines), ("units", &spec.units)];
    let named: Vec<String> =
        lists.iter().filter(|(_, l)| !l.is_empty()).map(|(what, l)| format!("{what} {}", l.join(", "))).collect();
    let whom = if named.is_empty() { "everything".to_owned() } else { named.join("; ") };
    let back = match (spec.effect, spec.roll_backs_too) {
        (Effect::Permit, _) => "",
        (Effect::Suppress, true) => " Roll-backs wait too.",
        (Effect::Suppress, false) => " Roll-backs do not wait.",
    };
    format!("Its scope: {whom}.{back}")
}

fn schedule(freeze: &Freeze) -> Option<String> {
    let schedule = freeze.spec.schedule.as_ref()?;
    let (cron, zone) = (&schedule.cron, &schedule.time_zone);
    Some(format!("It comes again by {cron:?} ({zone}), for {} s each time.", schedule.duration_seconds))
}

#[cfg(test)]
mod tests {
    use weir_model::FreezeSpec;
    use weir_model::freeze::Schedule;

    use super::*;

    #[test]
    fn it_says_when_it_holds_next() {
        let schedule = Schedule { cron: "0 22 * * *".into(), duration_seconds: 3600, time_zone: "UTC".into() };
        let spec = FreezeSpec {
            schedule: Some(schedule),
            lines: vec!["trade".into()],
            reason: "batch runs".into(),
            ..FreezeSpec::default()
        };
        let freeze = Freeze::new("nights", spec);
        let told = explain(&freeze, "2026-01-01T10:00:00Z".parse().expect("a moment"));
        assert!(
            told.starts_with(
                "freeze/nights does not hold now: it holds nobody. It holds next from 2026-01-01T22:00:00Z."
            ),
            "{told}"
        );
        assert!(told.contains("business lines trade") && told.contains("\"0 22 * * *\" (UTC)"), "{told}");
        let told = explain(&freeze, "2026-01-01T22:30:00Z".parse().expect("a moment"));
        assert!(told.starts_with("freeze/nights holds now, until 2026-01-01T23:00:00Z: nothing"), "{told}");
    }
}
