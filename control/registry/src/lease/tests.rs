use super::*;

fn options() -> Options {
    Options::default()
}

struct Clock {
    start: Instant,
    leases: Leases,
}

impl Clock {
    fn new() -> Clock {
        Clock { start: Instant::now(), leases: Leases::default() }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn open(&mut self, instance: &str, at: Instant) -> u64 {
        self.leases.open("stock", instance, "proxy", at, &options()).expect("nobody else has it")
    }

    fn open_at(&mut self, instance: &str, seconds: f64) -> u64 {
        self.open(instance, self.at(seconds))
    }

    /// Sweeps each half second up to `to`, renewing `reporting` all along; returns what was decided.
    fn run(&mut self, from: f64, to: f64, reporting: &[(&str, u64)]) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut at = from;
        while at <= to {
            for (instance, session) in reporting {
                self.leases.renew(instance, *session, self.at(at));
            }
            decisions.extend(self.leases.sweep(self.at(at), &options()));
            at += 0.5;
        }
        decisions
    }
}

fn expired(decisions: &[Decision]) -> Vec<&str> {
    let mut names = Vec::new();
    for decision in decisions {
        if let Decision::Expire { instance, .. } = decision {
            names.push(instance.as_str());
        }
    }
    names
}

fn held(decisions: &[Decision]) -> Vec<&str> {
    let mut names = Vec::new();
    for decision in decisions {
        if let Decision::Hold { instance, .. } = decision {
            names.push(instance.as_str());
        }
    }
    names
}

#[test]
fn who_reports_stays_and_who_stops_is_taken_out_after_the_lease() {
    let mut c = Clock::new();
    let a = c.open_at("a", 0.0);
    let b = c.open_at("b", 0.0);
    let _silent = c.open_at("c", 0.0);
    assert!(expired(&c.run(0.0, 9.5, &[("a", a), ("b", b)])).is_empty());
    assert_eq!(expired(&c.run(10.0, 60.0, &[("a", a), ("b", b)])), ["c"]);
}

#[test]
fn an_ended_stream_shortens_the_wait_and_a_return_within_it_changes_nothing() {
    let mut c = Clock::new();
    let start = c.start;
    let reporting: Vec<(&str, u64)> = ["a", "b"].map(|i| (i, c.open(i, start))).to_vec();
    let gone = c.open_at("c", 0.0);
    c.leases.close("c", gone, c.at(1.0));
    assert!(expired(&c.run(1.0, 3.5, &reporting)).is_empty());
    let back = c.open_at("c", 3.8);
    c.leases.close("c", gone, c.at(3.9)); // the end of the older stream comes late and means nothing
    assert!(expired(&c.run(4.0, 13.0, &reporting)).is_empty());
    c.leases.close("c", back, c.at(13.2));
    assert_eq!(expired(&c.run(13.5, 20.0, &reporting)), ["c"]);
}

#[test]
fn more_than_half_of_an_app_is_never_taken_out_within_a_window() {
    let mut c = Clock::new();
    let a = c.open_at("a", 0.0);
    for other in ["b", "c", "d"] {
        c.open_at(other, 0.0);
    }
    let decisions = c.run(0.0, 60.0, &[("a", a)]);
    assert_eq!(held(&decisions), ["b", "c", "d"]);
    assert!(expired(&decisions).is_empty());
    assert!(decisions.contains(&Decision::Hold { instance: "b".into(), overdue: 3, total: 4 }));
}

#[test]
fn losses_one_after_the_other_count_together() {
    let mut c = Clock::new();
    let start = c.start;
    let sessions: Vec<(&str, u64)> = ["a", "b", "c", "d"].map(|i| (i, c.open(i, start))).to_vec();
    assert_eq!(expired(&c.run(0.0, 12.0, &sessions[1..])), ["a"]);
    assert_eq!(expired(&c.run(12.5, 24.0, &sessions[2..])), ["b"]);
    let last = c.run(24.5, 36.0, &sessions[3..]);
    assert!(expired(&last).is_empty());
    assert_eq!(held(&last), ["c"]);
}

#[test]
fn the_held_come_back_or_go_once_enough_others_have_come_back() {
    let mut c = Clock::new();
    let a = c.open_at("a", 0.0);
    c.open_at("b", 0.0);
    c.open_at("c", 0.0);
    assert_eq!(held(&c.run(0.0, 12.0, &[("a", a)])), ["b", "c"]);
    let b = c.open_at("b", 12.2);
    assert!(!c.leases.is_overdue("b"));
    assert_eq!(expired(&c.run(12.5, 14.0, &[("a", a), ("b", b)])), ["c"]);
}

#[test]
fn an_app_of_one_instance_keeps_it_until_the_limit() {
    let mut c = Clock::new();
    c.open_at("only", 0.0);
    let decisions = c.run(0.0, 3600.0, &[]);
    assert_eq!(held(&decisions), ["only"]);
    assert!(expired(&decisions).is_empty());
    assert_eq!(expired(&c.run(3600.5, 3700.0, &[])), ["only"]);
}

#[test]
fn after_a_restart_the_known_stand_until_the_grace_is_over() {
    let mut c = Clock::new();
    let until = c.at(30.0);
    for instance in ["a", "b", "c"] {
        c.leases.stand("stock", instance, until);
    }
    let start = c.start;
    let back: Vec<(&str, u64)> = ["a", "b"].map(|i| (i, c.open(i, start))).to_vec();
    assert!(c.run(0.0, 29.5, &back).is_empty());
    assert_eq!(expired(&c.run(30.0, 31.0, &back)), ["c"]);
}

#[test]
fn a_restart_that_nobody_comes_back_from_empties_nothing() {
    let mut c = Clock::new();
    let until = c.at(30.0);
    for instance in ["a", "b", "c"] {
        c.leases.stand("stock", instance, until);
    }
    let decisions = c.run(0.0, 600.0, &[]);
    assert!(expired(&decisions).is_empty());
    assert_eq!(held(&decisions).len(), 3);
}

#[test]
fn a_control_plane_that_slept_judges_nobody_by_that_time() {
    let mut c = Clock::new();
    let start = c.start;
    let all: Vec<(&str, u64)> = ["a", "b", "c"].map(|i| (i, c.open(i, start))).to_vec();
    assert!(c.run(0.0, 2.0, &all).is_empty());
    assert!(c.leases.sweep(c.at(300.0), &options()).is_empty());
    assert!(c.run(300.5, 309.0, &[]).is_empty());
}

#[test]
fn a_report_after_all_revives_and_an_older_stream_is_superseded() {
    let mut c = Clock::new();
    let start = c.start;
    let all: Vec<(&str, u64)> = ["a", "b", "c"].map(|i| (i, c.open(i, start))).to_vec();
    assert_eq!(expired(&c.run(0.0, 12.0, &all[1..])), ["a"]);
    assert_eq!(c.leases.renew("a", all[0].1, c.at(12.1)), Renewal::Revived);
    assert_eq!(c.leases.renew("a", all[0].1, c.at(12.2)), Renewal::Renewed);
    let newer = c.open_at("a", 12.3);
    assert_eq!(c.leases.renew("a", all[0].1, c.at(12.4)), Renewal::Superseded);
    assert_eq!(c.leases.renew("a", newer, c.at(12.5)), Renewal::Renewed);
    assert!(!c.leases.remove("a", Some(all[0].1)));
    assert!(c.leases.remove("a", Some(newer)));
    assert_eq!(c.leases.renew("a", newer, c.at(12.6)), Renewal::Superseded);
}

#[test]
fn the_dead_are_forgotten_in_the_end() {
    let mut c = Clock::new();
    c.leases.bury("stock", "a", c.at(0.0));
    assert!(c.run(0.0, 599.5, &[]).is_empty());
    assert_eq!(c.run(600.0, 600.0, &[]), [Decision::Forget { instance: "a".into() }]);
    assert!(c.run(600.5, 700.0, &[]).is_empty());
}

#[test]
fn two_proxies_by_one_name_do_not_take_it_from_each_other() {
    let mut c = Clock::new();
    let one = c.open_at("a", 0.0);
    let other = |at: f64, c: &mut Clock| {
        let at = c.at(at);
        c.leases.open("stock", "a", "other", at, &options())
    };
    assert_eq!(other(1.0, &mut c), Err("proxy".to_owned()), "it reported just now");
    assert!(c.open_at("a", 1.5) > one, "the same proxy may come back on a new stream");
    let after_silence = other(5.0, &mut c).expect("the first has fallen silent");
    c.leases.leaves("a", after_silence);
    c.open_at("a", 5.1);
}
