//! Burn rates, budgets, and what a restart keeps.

use weir_model::health::{HealthWindow, latency_bucket};
use weir_model::instance::InstanceSpec;
use weir_model::slo::Sum;
use weir_model::{Author, Instance, Slo};
use weir_store::observed::{Observed, TimedWindow};
use weir_store::{MemoryStore, typed};

use std::sync::Arc;

use super::*;

const BEGINNING: i64 = 1_000_000_800;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(BEGINNING + second).expect("a moment in 2001")
}

fn spec(objective_percent: f64) -> SloSpec {
    SloSpec { app: "stock".into(), objective_percent, window_days: 30, indicator: Indicator::Errors, min_requests: 100 }
}

/// A hundred requests each ten seconds, of which `bad` are.
fn series(seconds: std::ops::Range<i64>, bad: u64) -> Series {
    let mut series = Series::default();
    seconds.step_by(10).for_each(|s| series.add(at(s), 100, bad));
    series
}

#[test]
fn a_burn_rate_of_one_spends_the_budget_over_the_window() {
    let series = series(0..30 * 86_400, 1);
    let status = measure(&spec(99.0), &series, &SloStatus::default(), at(30 * 86_400));
    let left = status.budget_left.expect("enough requests");
    assert!(left.abs() < 0.04, "{left}");
    assert!(status.burns.iter().all(|b| (b.rate - 1.0).abs() < 1e-9), "{:?}", status.burns);
    assert_eq!(status.alert, Alert::Ticket, "the slowest alert is at burn rate 1");
}

#[test]
fn both_windows_must_burn_for_an_alert() {
    let spec = spec(99.0);
    let mut burning = series(0..7_200, 20);
    let page = measure(&spec, &burning, &SloStatus::default(), at(7_200));
    assert_eq!((page.alert, page.alert_since), (Alert::Page, Some(at(7_200))));
    assert!(page.message.contains("paging speed"), "{}", page.message);
    let later = measure(&spec, &burning, &page, at(7_210));
    assert_eq!(later.alert_since, page.alert_since, "it began when it began");
    // The long window still burns, the short ones have calmed down.
    (7_200..7_200 + 2_400).step_by(10).for_each(|s| burning.add(at(s), 100, 0));
    let calm = measure(&spec, &burning, &page, at(9_600));
    assert!(calm.alert < Alert::Page, "{calm:?}");
}

#[test]
fn too_few_requests_say_nothing() {
    let mut series = Series::default();
    series.add(at(0), 20, 20);
    let status = measure(&spec(99.0), &series, &SloStatus::default(), at(10));
    assert_eq!((status.alert, status.budget_left), (Alert::None, None));
    assert!(status.message.contains("too few"), "{}", status.message);
}

#[test]
fn sums_are_bounded_and_survive_being_kept() {
    let series = series(0..40 * 86_400, 1);
    let kept: usize = series.sums().iter().map(Vec::len).sum();
    assert!(kept < 200, "{kept}");
    assert_eq!(Series::restore(&series.sums()), series);
    let nonsense = [vec![Sum(7, 1, 1), Sum(60, 1, 5)], vec![], vec![]];
    assert_eq!(Series::restore(&nonsense), Series::default());
}

#[test]
fn a_request_is_bad_if_it_took_longer() {
    let mut latency = vec![0; LATENCY_BUCKETS];
    for micros in [100, 250_000, 250_001, 20_000_000] {
        latency[latency_bucket(micros)] += 1;
    }
    let traffic = Traffic { requests: 4, errors: 0, latency };
    assert_eq!(count(Indicator::Latency { threshold_us: 250_000 }, &traffic), (4, 2));
    assert_eq!(count(Indicator::Latency { threshold_us: 250_000 }, &Traffic::default()), (0, 0));
}

/// One instance that reports each second.
struct Shop {
    store: MemoryStore,
    observed: Arc<Observed>,
    second: i64,
}

impl Shop {
    async fn open() -> Shop {
        let shop = Shop { store: MemoryStore::new(), observed: Arc::default(), second: 0 };
        let spec: InstanceSpec =
            serde_json::from_value(serde_json::json!({"app": "stock", "address": "127.0.0.1", "port": 1})).unwrap();
        typed::create(&shop.store, &Instance::new("stock-1", spec), &author()).await.unwrap();
        typed::create(&shop.store, &Slo::new("s", self::spec(99.0)), &author()).await.unwrap();
        shop
    }

    async fn run(&mut self, controller: &SloController, seconds: i64, errors: u64) -> SloStatus {
        for _ in 0..seconds {
            self.second += 1;
            let inbound = Traffic { requests: 10, errors, latency: Vec::new() };
            let window = HealthWindow { inbound, ..HealthWindow::default() };
            let timed = TimedWindow { received: at(self.second), proxy_version: "a".into(), window };
            self.observed.telemetry.record("stock-1", timed);
            assert!(controller.look(&self.store, "s", at(self.second)).await.unwrap());
        }
        typed::get::<SloSpec>(&self.store, "s").await.unwrap().unwrap().status
    }
}

fn author() -> Author {
    Author::new("test", "test")
}

#[tokio::test]
async fn what_was_counted_outlives_a_restart() {
    let mut shop = Shop::open().await;
    let controller = SloController::new(shop.observed.clone());
    let burning = shop.run(&controller, 130, 5).await;
    assert_eq!(burning.alert, Alert::Page, "{burning:?}");
    assert!(burning.requests > 500, "{burning:?}");
    drop(controller);
    shop.observed = Arc::default();
    let successor = SloController::new(shop.observed.clone());
    let after = shop.run(&successor, 61, 0).await;
    assert!(after.requests > burning.requests && after.bad >= burning.bad, "{after:?}");
    assert!(after.budget_left.is_some_and(|left| left < 0.0), "{after:?}");
}

#[tokio::test]
async fn another_indicator_begins_anew() {
    let mut shop = Shop::open().await;
    let controller = SloController::new(shop.observed.clone());
    shop.run(&controller, 70, 5).await;
    let mut slo = typed::get::<SloSpec>(&shop.store, "s").await.unwrap().unwrap();
    slo.spec.indicator = Indicator::Latency { threshold_us: 250_000 };
    typed::update(&shop.store, &slo, &author()).await.unwrap();
    let status = shop.run(&controller, 70, 5).await;
    assert_eq!((status.requests, status.alert), (0, Alert::None), "windows without a histogram say nothing");
    typed::get::<SloSpec>(&shop.store, "s").await.unwrap().unwrap();
}
