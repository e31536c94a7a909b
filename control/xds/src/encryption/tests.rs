use super::EncryptionMode::{Disabled, Permissive, Strict};
use super::*;

fn server(name: &str, tls: Option<bool>) -> Server {
    Server { name: name.to_owned(), tls, is_up_to_date: true }
}

fn caller(name: &str, speech: Speech) -> Caller {
    Caller { name: name.to_owned(), speech }
}

fn standing(effective: EncryptionMode, wanted: EncryptionMode) -> Standing {
    let servers = vec![server("order-1", Some(true)), server("order-2", Some(true))];
    Standing { effective, wanted, servers, callers: vec![caller("front-1", Speech::Tls)] }
}

#[test]
fn what_is_so_stays() {
    for mode in [Disabled, Permissive, Strict] {
        assert_eq!(decide(&standing(mode, mode), false).next, mode);
    }
}

#[test]
fn taking_both_is_always_allowed() {
    assert_eq!(decide(&standing(Disabled, Strict), false).next, Permissive);
    let mut strict = standing(Strict, Disabled);
    strict.servers[0].is_up_to_date = false;
    strict.callers[0].speech = Speech::Away;
    assert_eq!(decide(&strict, false).next, Permissive);
}

#[test]
fn plaintext_is_refused_only_when_nobody_speaks_it_and_a_moment_later() {
    let clear = standing(Permissive, Strict);
    let settling = decide(&clear, false);
    assert!(settling.is_settling && settling.next == Permissive && settling.held_by.is_empty());
    assert_eq!(decide(&clear, true).next, Strict);
    for speech in [Speech::Plaintext, Speech::Away, Speech::Behind("has not acknowledged")] {
        let mut held = clear.clone();
        held.callers.push(caller("late-1", speech));
        let decision = decide(&held, true);
        assert_eq!((decision.next, decision.is_settling), (Permissive, false));
        assert_eq!(decision.held_by.keys().collect::<Vec<_>>(), ["late-1"]);
        assert_eq!((decision.callers.ready, decision.callers.total), (1, 2));
    }
    for tls in [None, Some(false)] {
        let mut held = clear.clone();
        held.servers.push(server("order-3", tls));
        let decision = decide(&held, true);
        assert_eq!(decision.next, Permissive);
        assert_eq!(decision.instances.not_ready.keys().collect::<Vec<_>>(), ["order-3"]);
    }
}

#[test]
fn plaintext_is_spoken_only_when_every_server_takes_it() {
    let mut held = standing(Permissive, Disabled);
    held.servers[1].is_up_to_date = false;
    let decision = decide(&held, true);
    assert_eq!(decision.next, Permissive);
    assert_eq!(decision.held_by.keys().collect::<Vec<_>>(), ["order-2"]);
    held.servers[1].tls = Some(false); // Nobody speaks TLS to it.
    assert_eq!(decide(&held, true).next, Disabled);
}

#[test]
fn strict_stays_when_somebody_comes_who_cannot() {
    let mut strict = standing(Strict, Strict);
    strict.callers.push(caller("old-1", Speech::Plaintext));
    let decision = decide(&strict, true);
    assert_eq!(decision.next, Strict);
    assert_eq!(decision.callers.not_ready["old-1"], "its proxy can't do TLS");
}

#[test]
fn only_the_first_are_named() {
    let mut many = standing(Permissive, Strict);
    many.callers = (0..100).map(|n| caller(&format!("c-{n:03}"), Speech::Plaintext)).collect();
    let decision = decide(&many, true);
    assert_eq!((decision.callers.total, decision.callers.ready, decision.callers.not_ready.len()), (100, 0, MAX_NAMED));
    assert!(named(&decision.held_by).ends_with(" and 95 more"));
}

#[test]
fn roots_are_missing_where_they_are_not_taken_and_where_nobody_is_connected() {
    let stream = |node: &str, tls, roots: &str| Connected {
        node: node.to_owned(),
        tls,
        taken: crate::board::Taken { roots: Some(roots.into()), ..Default::default() },
        calls: BTreeSet::new(),
        clusters: BTreeMap::new(),
    };
    let streams = [stream("a", true, "new"), stream("b", true, "old"), stream("c", false, "old")];
    let missing = without_roots(&streams, ["a", "d"].map(str::to_owned).into_iter(), "new");
    assert_eq!(missing.into_iter().collect::<Vec<_>>(), ["b", "d"]);
}
