//! The loop's promises, on a memory store and in paused time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use weir_model::{App, AppSpec, Author, Key, Kind};
use weir_reconcile::{Context, Controller, Failure, Next, Options, Runner, Stats};
use weir_store::{EventQuery, MemoryStore, Retention, SharedStore, tokio_clock, typed};

const S: Duration = Duration::from_secs(1);

type Act = Box<dyn Fn(Key, Context) -> BoxFuture<'static, Result<Next, Failure>> + Send + Sync>;

/// Notes each call and then does what the test says.
struct Scripted {
    calls: Mutex<Vec<(Duration, String)>>,
    called: Notify,
    since: Instant,
    act: Act,
}

impl Scripted {
    fn new<F>(act: impl Fn(Key, Context) -> F + Send + Sync + 'static) -> Arc<Scripted>
    where
        F: Future<Output = Result<Next, Failure>> + Send + 'static,
    {
        let act: Act = Box::new(move |key, context| Box::pin(act(key, context)));
        Arc::new(Scripted { calls: Mutex::default(), called: Notify::new(), since: Instant::now(), act })
    }

    fn at_rest() -> Arc<Scripted> {
        Scripted::new(|_, _| async { Ok(Next::OnChange) })
    }

    fn calls(&self) -> Vec<(Duration, String)> {
        self.calls.lock().unwrap().clone()
    }

    fn names(&self) -> Vec<String> {
        self.calls().into_iter().map(|(_, name)| name).collect()
    }

    async fn until(&self, calls: usize) {
        while self.calls().len() < calls {
            self.called.notified().await;
        }
    }
}

#[async_trait]
impl Controller for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::App]
    }

    async fn reconcile(&self, key: &Key, context: &Context) -> Result<Next, Failure> {
        self.calls.lock().unwrap().push((self.since.elapsed(), key.name.clone()));
        self.called.notify_one();
        (self.act)(key.clone(), context.clone()).await
    }
}

fn memory() -> SharedStore {
    MemoryStore::with(Retention::default(), tokio_clock(Timestamp::UNIX_EPOCH)).shared()
}

fn options(holder: &str) -> Options {
    let random = fastrand::Rng::with_seed(7);
    let clock = tokio_clock(Timestamp::UNIX_EPOCH);
    Options { holder: holder.into(), random, clock, resync: 3_600 * S, ..Options::default() }
}

struct Running {
    stats: Arc<Stats>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(store: &SharedStore, controller: &Arc<Scripted>, options: Options) -> Running {
        let runner = Runner::new(store.clone(), controller.clone(), options);
        let (stop, stopped) = oneshot::channel::<()>();
        let stats = runner.stats();
        let task = tokio::spawn(runner.run(async { drop(stopped.await) }));
        Running { stats, stop, task }
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.task.await.expect("it ends in order");
    }

    async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

fn author() -> Author {
    Author::new("user/test", "test")
}

async fn create(store: &SharedStore, name: &str) {
    typed::create(&**store, &App::new(name, AppSpec::default()), &author()).await.unwrap();
}

async fn touch(store: &SharedStore, name: &str) {
    let mut app = typed::get::<AppSpec>(&**store, name).await.unwrap().unwrap();
    app.spec.timeout_ms += 1;
    typed::update(&**store, &app, &author()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn wakes_for_what_is_there_for_changes_and_for_deletions() {
    let (store, controller) = (memory(), Scripted::at_rest());
    create(&store, "old").await;
    let running = Running::start(&store, &controller, options("a"));
    controller.until(1).await;
    create(&store, "new").await;
    controller.until(2).await;
    touch(&store, "old").await;
    controller.until(3).await;
    store.delete(&Key::new(Kind::App, "new"), None, &author()).await.unwrap();
    controller.until(4).await;
    assert_eq!(controller.names(), ["old", "new", "old", "new"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn comes_back_when_asked_and_at_the_resync() {
    let store = memory();
    create(&store, "x").await;
    let again = Scripted::new(|_, _| async { Ok(Next::After(5 * S)) });
    let running = Running::start(&store, &again, options("a"));
    again.until(3).await;
    running.stop().await;
    let times: Vec<u64> = again.calls().iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 5, 10]);

    let resting = Scripted::at_rest();
    let running = Running::start(&store, &resting, Options { resync: 60 * S, ..options("a") });
    resting.until(3).await;
    running.stop().await;
    let times: Vec<u64> = resting.calls().iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 60, 120]);
}

#[tokio::test(start_paused = true)]
async fn an_activator_wakes_it_without_a_change() {
    let (store, controller) = (memory(), Scripted::at_rest());
    let runner = Runner::new(store, controller.clone(), options("a"));
    let activator = runner.activator();
    let task = tokio::spawn(runner.run(std::future::pending()));
    activator.activate(Key::new(Kind::App, "woken"));
    controller.until(1).await;
    assert_eq!(controller.names(), ["woken"]);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn one_run_at_a_time_per_key_and_a_bound_over_keys() {
    let store = memory();
    for n in 0..20 {
        create(&store, &format!("app-{n}")).await;
    }
    let active: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let most = Arc::new(AtomicUsize::new(0));
    let controller = {
        let (active, most) = (active.clone(), most.clone());
        Scripted::new(move |key, _| {
            let (active, most) = (active.clone(), most.clone());
            async move {
                let before = active.lock().unwrap().insert(key.name.clone(), 1);
                assert_eq!(before, None, "{key} runs already");
                most.fetch_max(active.lock().unwrap().len(), SeqCst);
                sleep(S).await;
                active.lock().unwrap().remove(&key.name);
                Ok(Next::After(2 * S))
            }
        })
    };
    let running = Running::start(&store, &controller, Options { concurrency: 4, ..options("a") });
    for round in 1..=4 {
        controller.until(round * 20).await;
        touch(&store, "app-7").await;
    }
    assert_eq!(most.load(SeqCst), 4);
    assert_eq!(running.stats.totals().panics, 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_are_told() {
    let store = memory();
    create(&store, "x").await;
    let controller = Scripted::new(|_, _| async { Err("the provider is away".into()) });
    let running = Running::start(&store, &controller, options("a"));
    controller.until(12).await;
    running.stop().await;
    let times: Vec<Duration> = controller.calls().into_iter().map(|(at, _)| at).collect();
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (n, gap) in gaps.iter().enumerate() {
        let ceiling = (Duration::from_millis(200) * (1 << n)).min(60 * S) + Duration::from_millis(5);
        assert!(*gap <= ceiling, "failure {n}: {gap:?} > {ceiling:?}");
    }
    assert!(times[11] > 30 * S, "it backs off: {times:?}");
    let events = store.events(&EventQuery::default()).await.unwrap();
    let messages: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "the provider is away; it is tried again",
            "the provider is away (2 times in a row); it is tried again",
            "the provider is away (4 times in a row); it is tried again",
            "the provider is away (8 times in a row); it is tried again",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_notes_its_failure_does_not_run_hot_but_a_fix_is_seen_soon() {
    let store = memory();
    create(&store, "x").await;
    let controller = Scripted::new(|key, context: Context| async move {
        let mut app = typed::get::<AppSpec>(&*context.store, &key.name).await?.ok_or("gone")?;
        let failures: u64 = app.metadata.annotations.get("failures").map_or(0, |n| n.parse().unwrap());
        app.metadata.annotations.insert("failures".into(), (failures + 1).to_string());
        typed::update(&*context.store, &app, &author()).await?;
        Err("still broken".into())
    });
    let running = Running::start(&store, &controller, options("a"));
    sleep(20 * S).await;
    running.stop().await;
    let calls = controller.calls().len();
    assert!((15..=30).contains(&calls), "about once a second, not {calls} times");
}

#[tokio::test(start_paused = true)]
async fn success_forgets_the_failures() {
    let store = memory();
    create(&store, "x").await;
    let calls = Arc::new(AtomicUsize::new(0));
    let controller = Scripted::new(move |_, _| {
        let call = calls.fetch_add(1, SeqCst);
        async move { if call.is_multiple_of(2) { Err("odd".into()) } else { Ok(Next::After(S)) } }
    });
    let running = Running::start(&store, &controller, options("a"));
    controller.until(10).await;
    running.stop().await;
    let events = store.events(&EventQuery::default()).await.unwrap();
    assert!(events.iter().all(|event| event.message == "odd; it is tried again"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn panics_and_overruns_cost_one_run_and_not_the_loop() {
    let store = memory();
    for name in ["fine", "hangs", "panics"] {
        create(&store, name).await;
    }
    let controller = Scripted::new(|key, _| async move {
        match key.name.as_str() {
            "panics" => panic!("index out of bounds"),
            "hangs" => std::future::pending().await,
            _ => Ok(Next::After(30 * S)),
        }
    });
    let running = Running::start(&store, &controller, Options { concurrency: 2, ..options("a") });
    sleep(310 * S).await;
    let totals = running.stats.totals();
    running.stop().await;
    assert!(totals.panics >= 3 && totals.overruns >= 3, "{totals:?}");
    assert_eq!(controller.names().iter().filter(|name| *name == "fine").count(), 11, "at 0, 30, ... 300 s");
    let about = |name: &str| EventQuery { about: Some(Key::new(Kind::App, name)), limit: 1 };
    let panicked = store.events(&about("panics")).await.unwrap();
    assert!(panicked[0].message.contains("index out of bounds"), "{panicked:?}");
    let overran = store.events(&about("hangs")).await.unwrap();
    assert!(overran[0].message.contains("took longer than 60s"), "{overran:?}");
}

#[tokio::test(start_paused = true)]
async fn losing_a_race_is_no_failure_to_tell() {
    let store = memory();
    create(&store, "x").await;
    let raced = Arc::new(AtomicUsize::new(0));
    let controller = Scripted::new(move |key, context: Context| {
        let first = raced.fetch_add(1, SeqCst) == 0;
        async move {
            let app = typed::get::<AppSpec>(&*context.store, &key.name).await?.ok_or("gone")?;
            if first {
                touch(&context.store, &key.name).await;
            }
            let mut wanted = app.clone();
            wanted.spec.owner = "controller".into();
            typed::update(&*context.store, &wanted, &author()).await?;
            Ok(Next::OnChange)
        }
    });
    let running = Running::start(&store, &controller, options("a"));
    controller.until(3).await;
    assert_eq!(running.stats.totals().conflicts, 1);
    running.stop().await;
    assert!(store.events(&EventQuery::default()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_follows_an_orderly_end_at_once() {
    let store = memory();
    create(&store, "x").await;
    let again = || Scripted::new(|_, _| async { Ok(Next::After(S)) });
    let (first, second) = (again(), again());
    let a = Running::start(&store, &first, options("a"));
    first.until(1).await;
    let b = Running::start(&store, &second, options("b"));
    first.until(60).await;
    assert!(second.calls().is_empty(), "only one leads");
    assert!(a.stats.totals().leading && !b.stats.totals().leading);
    a.stop().await;
    let released = first.since.elapsed();
    second.until(1).await;
    assert!(first.since.elapsed() - released <= 5 * S, "the follower asks every third of the lease's time");
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crashed_leader_is_followed_when_its_lease_ends() {
    let store = memory();
    create(&store, "x").await;
    let (first, second) = (Scripted::at_rest(), Scripted::at_rest());
    let a = Running::start(&store, &first, options("a"));
    first.until(1).await;
    a.crash().await;
    let b = Running::start(&store, &second, options("b"));
    second.until(1).await;
    let after = second.since.elapsed();
    assert!((15 * S..=20 * S).contains(&after), "{after:?}");
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_stops_and_cannot_write() {
    let store = memory();
    create(&store, "x").await;
    let kept: Arc<Mutex<Option<Context>>> = Arc::default();
    let controller = {
        let kept = kept.clone();
        Scripted::new(move |_, context| {
            *kept.lock().unwrap() = Some(context);
            async { Ok(Next::After(S)) }
        })
    };
    let running = Running::start(&store, &controller, options("a"));
    controller.until(1).await;
    // As if this process had been frozen for longer than the lease: somebody else has it.
    store.release_lease("controller/scripted", "a").await.unwrap();
    let now = Timestamp::UNIX_EPOCH + 1_000_000 * S;
    store.acquire_lease("controller/scripted", "b", 15 * S, now).await.unwrap().unwrap();
    let frozen = kept.lock().unwrap().clone().unwrap();
    let app = App::new("y", AppSpec::default());
    let refused = typed::create(&*frozen.store, &app, &author()).await.unwrap_err();
    assert!(refused.to_string().contains("lease controller/scripted was taken over"), "{refused}");
    sleep(20 * S).await;
    assert!(!running.stats.totals().leading);
    let calls = controller.calls().len();
    sleep(60 * S).await;
    assert_eq!(controller.calls().len(), calls, "it works no more");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fell_behind_lists_again() {
    let retention = Retention { changes: 1, ..Retention::default() };
    let store = MemoryStore::with(retention, tokio_clock(Timestamp::UNIX_EPOCH)).shared();
    let controller = Scripted::at_rest();
    let running = Running::start(&store, &controller, options("a"));
    while running.stats.totals().resyncs == 0 {
        tokio::task::yield_now().await;
    }
    for n in 0..50 {
        create(&store, &format!("app-{n}")).await;
    }
    controller.until(50).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn running_reconciles_may_finish_at_shutdown_but_not_for_ever() {
    for (takes, finishes) in [(5 * S, 1), (50 * S, 0)] {
        let store = memory();
        create(&store, "x").await;
        let finished = Arc::new(AtomicUsize::new(0));
        let controller = {
            let finished = finished.clone();
            Scripted::new(move |_, _| {
                let finished = finished.clone();
                async move {
                    sleep(takes).await;
                    finished.fetch_add(1, SeqCst);
                    Ok(Next::OnChange)
                }
            })
        };
        let running = Running::start(&store, &controller, options("a"));
        controller.until(1).await;
        running.stop().await;
        assert!(controller.since.elapsed() <= 11 * S);
        assert_eq!(finished.load(SeqCst), finishes);
    }
}
