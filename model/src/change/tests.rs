//! What may be written, and what may become of a change.

use super::*;
use crate::parse;

fn errors(spec: &ChangeSpec) -> Vec<String> {
    let mut validator = Validator::new();
    spec.validate(&mut validator);
    validator.finish().err().map_or(Vec::new(), |e| e.0.into_iter().map(|e| e.path).collect())
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(errors(&ChangeSpec::proxy_upgrade("b")), Vec::<String>::new());
}

#[test]
fn a_ladder_rises_to_a_hundred() {
    let rung = |percent| Rung { percent, bake_seconds: 0, min_requests: 0 };
    let with = |percents: &[f64]| ChangeSpec {
        ladder: percents.iter().copied().map(rung).collect(),
        ..ChangeSpec::proxy_upgrade("b")
    };
    assert_eq!(errors(&with(&[0.0, 10.0, 100.0])), Vec::<String>::new());
    assert_eq!(errors(&with(&[])), ["ladder"]);
    assert_eq!(errors(&with(&[10.0, 10.0, 100.0])), ["ladder"]);
    assert_eq!(errors(&with(&[0.0, 50.0])), ["ladder"]);
    assert_eq!(errors(&with(&[-1.0, 100.0])), ["ladder[0].percent"]);
    assert_eq!(errors(&with(&[f64::NAN])), ["ladder", "ladder[0].percent"]);
}

#[test]
fn a_change_reads_as_people_write_it() {
    let text = "apiVersion: weir.dev/v1\nkind: Change\nmetadata: {name: to-b}\nspec:\n  action: {proxyUpgrade: \
                {version: b}}\n  scope: {apps: [order]}\n";
    let change: Change = parse::objects(text).unwrap().remove(0).try_into().unwrap();
    assert_eq!(change.spec.target(), "b");
    assert_eq!((change.spec.level, change.spec.ladder.len()), (Level::L4, 6));
    let wrong = parse::objects(&text.replace("apps:", "app:")).unwrap_err();
    assert_eq!(wrong.to_string(), "spec.scope.app: unknown field \"app\" (did you mean \"apps\"?)");
}

#[test]
fn what_has_begun_keeps_its_course() {
    let spec = ChangeSpec::proxy_upgrade("b");
    let begun = ChangeStatus { started_at: Some(Timestamp::UNIX_EPOCH), ..ChangeStatus::default() };
    let paths = |next: &ChangeSpec, status: &ChangeStatus| -> Vec<String> {
        let refused = spec.may_be_edited_to(next, status).err();
        refused.map_or(Vec::new(), |e| e.0.into_iter().map(|e| e.path).collect())
    };
    let mut other = ChangeSpec::proxy_upgrade("c");
    other.scope.apps.push("order".into());
    other.ladder.remove(0);
    other.budget.max_unavailable_percent += 1.0;
    assert_eq!(paths(&other, &ChangeStatus::default()), Vec::<String>::new(), "not begun: all is open");
    assert_eq!(paths(&other, &begun), ["spec.action", "spec.scope", "spec.ladder", "spec.budget"]);
    let commanded = ChangeSpec { command: Command::Pause, retries: 1, level: Level::L2, ..spec.clone() };
    assert_eq!(paths(&commanded, &begun), Vec::<String>::new());
    let ended = ChangeStatus { phase: ChangePhase::Aborted, ..begun };
    assert_eq!(paths(&commanded, &ended), ["spec"]);
    assert_eq!(paths(&spec, &ended), Vec::<String>::new(), "nothing is edited");
}

#[test]
fn an_ended_change_stays_ended() {
    use ChangePhase::*;
    let all = [Pending, Running, Paused, Blocked, RollingBack, Succeeded, RolledBack, Aborted];
    for (from, to) in all.into_iter().flat_map(|from| all.map(|to| (from, to))) {
        assert!(!from.ended() || from == to || !from.may_become(to), "{from:?} became {to:?}");
    }
    assert!(!RollingBack.may_become(Running), "a roll-back is not turned round");
    assert!(all.into_iter().filter(|p| !p.ended()).all(|p| p.may_become(Aborted)));
}
