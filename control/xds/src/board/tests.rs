use std::time::Duration;

use super::*;

const APP: &str = "stock";
const SEQ: u64 = 10;

/// A board at a time, with an instance of [`APP`] leaving since second 100 that callers know of from world 10 on.
struct Scene {
    board: Board,
    started: Instant,
    /// Second at which the instance was seen to leave.
    noticed: u64,
    options: Options,
}

impl Scene {
    fn new() -> Scene {
        Scene { board: Board::default(), started: Instant::now(), noticed: 100, options: Options::default() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.started + Duration::from_secs(seconds)
    }

    fn caller(&self, stream: u64, node: &str, since: u64) {
        self.board.join(stream, node, true, false, self.at(since));
        self.board.calls(stream, BTreeSet::from([APP.to_owned()]));
    }

    fn has(&self, stream: u64, cluster: &str, seq: u64) {
        self.board.acknowledge(stream, vec![(cluster.into(), Some(seq))]);
    }

    fn decide_with(&self, second: u64, has_left: impl Fn(&str) -> Option<bool>) -> Verdict {
        let need = BTreeMap::from([(APP.to_owned(), SEQ), (format!("{APP}|gray"), SEQ)]);
        let leaving = Leaving { app: APP.to_owned(), since: None, need: Some(need), settled: false };
        let times = Times { now: self.at(second), started: self.started, noticed: self.at(self.noticed.min(second)) };
        self.board.decide(&leaving, times, &self.options, has_left)
    }

    fn decide(&self, second: u64) -> Verdict {
        self.decide_with(second, |_| Some(false))
    }
}

#[test]
fn it_is_known_once_every_caller_has_acknowledged_every_cluster_it_asks_for() {
    let scene = Scene::new();
    for stream in 1..=2 {
        scene.caller(stream, &format!("front-{stream}"), 0);
        scene.has(stream, APP, SEQ - 1);
    }
    scene.has(2, "stock|gray", SEQ - 1);
    assert_eq!(scene.decide(101), Verdict::Waiting);
    scene.has(1, APP, SEQ);
    scene.has(2, APP, SEQ + 3);
    assert_eq!(scene.decide(101), Verdict::Waiting, "the group's endpoints are not acknowledged yet");
    scene.has(2, "stock|gray", SEQ);
    assert_eq!(scene.decide(101), Verdict::Acknowledged(2));
}

#[test]
fn who_no_longer_asks_or_never_called_need_not_answer() {
    let scene = Scene::new();
    scene.caller(1, "front-1", 0);
    scene.has(1, APP, 1);
    scene.board.acknowledge(1, vec![(APP.into(), None)]);
    scene.board.calls(1, BTreeSet::new());
    scene.board.join(2, "other", true, false, scene.at(0));
    scene.has(2, "order", 1);
    scene.has(2, "stock-v2", 1);
    assert_eq!(scene.decide(101), Verdict::Acknowledged(0));
}

#[test]
fn a_caller_whose_stream_broke_is_waited_for_until_it_is_back_and_has_acknowledged() {
    let scene = Scene::new();
    scene.caller(1, "front-1", 0);
    scene.has(1, APP, SEQ - 1);
    scene.board.leave(1, scene.at(100));
    assert_eq!(scene.decide(101), Verdict::Waiting);
    scene.caller(2, "front-1", 102);
    assert_eq!(scene.decide(102), Verdict::Waiting, "it has not said what it has");
    scene.has(2, APP, 0);
    assert_eq!(scene.decide(103), Verdict::Waiting);
    scene.has(2, APP, SEQ);
    assert_eq!(scene.decide(103), Verdict::Acknowledged(1));
}

#[test]
fn a_departed_caller_is_not_waited_for_if_it_had_acknowledged_or_has_left() {
    let broken = || {
        let scene = Scene::new();
        scene.caller(1, "front-1", 0);
        scene.has(1, APP, SEQ - 1);
        scene.board.leave(1, scene.at(100));
        scene
    };
    assert_eq!(broken().decide(101), Verdict::Waiting);
    assert_eq!(broken().decide_with(101, |_| Some(true)), Verdict::Acknowledged(0), "it said goodbye");
    assert_eq!(broken().decide_with(101, |_| None), Verdict::Acknowledged(0), "its record is gone");
    let scene = broken();
    scene.caller(2, "front-2", 0);
    scene.has(2, APP, SEQ);
    scene.board.leave(2, scene.at(100));
    assert_eq!(scene.decide_with(101, |node| Some(node != "front-2")), Verdict::Acknowledged(0));
}

#[test]
fn a_caller_that_stays_away_is_given_up_after_the_grace_and_named() {
    let scene = Scene::new();
    scene.caller(1, "front-1", 0);
    scene.has(1, APP, SEQ - 1);
    scene.board.leave(1, scene.at(100));
    assert_eq!(scene.decide(114), Verdict::Waiting, "though its lease lapsed long ago");
    assert_eq!(scene.decide(115), Verdict::TimedOut(vec!["front-1".to_owned()]));
    assert_eq!(scene.decide(129), Verdict::TimedOut(vec!["front-1".to_owned()]), "no matter when it is looked at");
}

#[test]
fn a_caller_given_up_before_the_instance_began_to_leave_is_no_longer_a_caller() {
    let scene = Scene::new();
    scene.caller(1, "front-1", 0);
    scene.has(1, APP, SEQ - 1);
    scene.board.leave(1, scene.at(80));
    assert_eq!(scene.decide(100), Verdict::Acknowledged(0));
}

#[test]
fn a_departed_client_without_an_instance_is_waited_for_too() {
    let scene = Scene::new();
    scene.board.join(1, "grpc-client", false, false, scene.at(0));
    scene.has(1, APP, SEQ - 1);
    scene.board.leave(1, scene.at(100));
    assert_eq!(scene.decide_with(101, |_| None), Verdict::Waiting);
}

#[test]
fn after_a_restart_those_the_store_knows_as_callers_are_waited_for() {
    let scene = Scene::new();
    let calls = |apps: &[&str]| apps.iter().map(|app| app.to_string()).collect();
    let known = [("front-1".to_owned(), calls(&[APP])), ("order-1".to_owned(), calls(&["order"]))];
    scene.board.expect(known, scene.started);
    assert_eq!(scene.decide(1), Verdict::Waiting, "too early for anybody to be back");
    assert_eq!(scene.decide(3), Verdict::Waiting, "front-1 is not back");
    scene.caller(1, "front-1", 4);
    assert_eq!(scene.decide(5), Verdict::Waiting, "front-1 has not acknowledged");
    scene.has(1, APP, SEQ);
    assert_eq!(scene.decide(5), Verdict::Acknowledged(1));
}

#[test]
fn after_a_restart_who_does_not_come_back_is_given_up() {
    let scene = Scene { noticed: 1, ..Scene::new() };
    scene.board.expect([("front-1".to_owned(), BTreeSet::from([APP.to_owned()]))], scene.started);
    assert_eq!(scene.decide(14), Verdict::Waiting);
    assert_eq!(scene.decide(15), Verdict::TimedOut(vec!["front-1".to_owned()]));
}

#[test]
fn a_stream_that_has_only_just_opened_gets_a_moment_to_say_what_it_asks_for() {
    let scene = Scene::new();
    scene.board.join(1, "grpc-client", false, false, scene.at(100));
    assert_eq!(scene.decide(101), Verdict::Waiting);
    assert_eq!(scene.decide(102), Verdict::Acknowledged(0));
}

#[test]
fn who_does_not_answer_is_named_when_time_is_up() {
    let scene = Scene::new();
    for stream in 1..=3 {
        scene.caller(stream, &format!("front-{stream}"), 0);
        scene.has(stream, APP, if stream == 2 { SEQ } else { SEQ - 1 });
    }
    assert_eq!(scene.decide(129), Verdict::Waiting);
    assert_eq!(scene.decide(130), Verdict::TimedOut(vec!["front-1".to_owned(), "front-3".to_owned()]));
}

#[test]
fn nothing_is_decided_before_a_world_without_the_instance_is_published() {
    let scene = Scene::new();
    let leaving = Leaving { app: APP.to_owned(), since: None, need: None, settled: false };
    let times = Times { now: scene.at(200), started: scene.started, noticed: scene.at(0) };
    assert_eq!(scene.board.decide(&leaving, times, &scene.options, |_| None), Verdict::Waiting);
}
