//! A few seeds of every campaign, at each build.

use weir_model::change::ChangePhase;
use weir_sim::campaign::{Plan, doubling, ordinary, run_all};
use weir_sim::flaw::Flaw;
use weir_sim::peers::Judge;
use weir_sim::report::summary;
use weir_sim::{large, run::Report};

fn reports(changes: usize) -> Vec<Report> {
    run_all(Plan { changes, seed: 7, threads: 2 }, |seed| ordinary(seed, Judge::Weir, None), |_| ())
}

#[test]
fn no_invariant_is_broken_in_spite_of_kills() {
    let summary = summary(Judge::Weir, &reports(24));
    assert_eq!(summary.violations_listed, [""; 0]);
    assert!(summary.kills > 0);
    assert_eq!(summary.good.all + summary.bad.all, 24);
}

#[test]
fn the_same_seed_gives_the_same_end() {
    let ends = || reports(3).into_iter().map(|r| (r.phase, r.seconds, r.harmed, r.message)).collect::<Vec<_>>();
    assert_eq!(ends(), ends());
}

#[test]
fn what_crashes_at_its_start_is_undone_after_one_box() {
    let crash = |seed| {
        let mut scenario = ordinary(seed, Judge::Weir, None);
        scenario.version.flaw = Flaw::CrashAtStart;
        (scenario.version.only_app, scenario.version.only_stack) = (None, None);
        scenario
    };
    for report in run_all(Plan { changes: 4, seed: 3, threads: 2 }, crash, |_| ()) {
        assert_eq!((report.phase, report.harmed), (ChangePhase::RolledBack, 0), "{}", report.message);
        assert_eq!(report.violations, [""; 0]);
    }
}

#[test]
fn twice_the_errors_are_found_on_a_small_share() {
    for report in run_all(Plan { changes: 2, seed: 1, threads: 2 }, doubling, |_| ()) {
        assert!(report.stopped() && report.exposed < 0.02, "{} {}", report.exposed, report.message);
    }
}

#[test]
fn own_windows_take_less_time_than_midnights() {
    let found = large::windows(3_000, 1).unwrap();
    assert_eq!((found.own_windows.findings, found.midnight_only.findings), (0, 0));
    assert!(found.own_windows.hours < 0.75 * found.midnight_only.hours, "{}", found.words());
}
