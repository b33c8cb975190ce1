//! One seed, from its beginning to its verdict.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sessionmesh::SessionId;
use tokio::runtime::{Builder, RngSeed};
use tokio::task::JoinHandle;

use crate::cluster::Run;
use crate::invariants::convergence::Copies;
use crate::invariants::{convergence, durability, expiry, memory, provenance, resurrection, transfer};
use crate::scenario::Scenario;
use crate::{faults, users};

/// What came of a seed.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) log: String,
    pub(crate) simulated: Duration,
}

impl Verdict {
    /// Which invariant was violated first.
    pub(crate) fn invariant(&self) -> Option<&str> {
        self.violations.first()?.split(':').next()
    }
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A panic in a task of a node ends that task and nothing else: it must be noticed.
pub(crate) fn note_panics() {
    std::panic::set_hook(Box::new(|panic| PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()))));
}

/// Plays a scenario, with at most so many faults.
pub(crate) fn play(scenario: Scenario, faults: usize) -> Verdict {
    let verdict = std::panic::catch_unwind(|| on_virtual_time(scenario.seed, story(scenario, faults)));
    let panics = PANICS.take().into_iter().map(|panic| format!("panic: {}", panic.replace('\n', " ")));
    let mut verdict = verdict.unwrap_or_else(|_| Verdict {
        violations: Vec::new(),
        counts: BTreeMap::new(),
        log: String::new(),
        simulated: Duration::ZERO,
    });
    verdict.violations.extend(panics);
    verdict
}

/// Plays a scenario twice: both times the same must happen, or a seed proves nothing to who replays it.
pub(crate) fn play_twice(scenario: Scenario) -> Verdict {
    let (mut verdict, again) = (play(scenario.clone(), usize::MAX), play(scenario, usize::MAX));
    verdict.counts.insert("seeds played twice", 1);
    if again.log != verdict.log {
        let same = verdict.log.lines().zip(again.log.lines()).take_while(|(one, other)| one == other).count();
        verdict.violations.push(format!("replay: line {} of the log is another the second time", same + 1));
    }
    verdict
}

/// Runs a story in this thread; its seed decides the order of what is ready at once.
pub(crate) fn on_virtual_time<F: Future>(seed: u64, story: F) -> F::Output {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_be_bytes()))
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, story)
}

async fn story(scenario: Scenario, most_faults: usize) -> Verdict {
    let mut random = fastrand::Rng::with_seed(scenario.seed);
    let run = Run::new(&scenario);
    run.say(format_args!("{scenario:?}"));
    // Together, or one after the other.
    let storm = random.bool();
    for host in 0..run.hosts() {
        if storm {
            let run = run.clone();
            tokio::task::spawn_local(async move { run.start(host, false).await });
        } else {
            run.start(host, false).await;
            tokio::time::sleep(Duration::from_millis(random.u64(0..1_500))).await;
        }
    }
    let stop = Rc::new(RefCell::new(false));
    users::stock(&run).await;
    let mut tabs = users::start(&run, &mut random, &stop);
    let watching = tokio::task::spawn_local(watch(run.clone(), stop.clone()));
    faults::trouble(&run, random.fork(), most_faults).await;

    // Some go on working while it heals.
    let works_on = random.bool();
    let mut before = None;
    if !works_on {
        rest(&stop, &mut tabs).await;
        before = transfer::Before::note(&run);
    }
    faults::heal(&run).await;
    if works_on {
        tokio::time::sleep(Duration::from_millis(random.u64(0..2_000))).await;
        rest(&stop, &mut tabs).await;
    }
    let _ = watching.await;
    settle(&run).await;
    if let Some(before) = before {
        before.check(&run);
    }
    conclude(&run);
    expiry::quiet(&run, &mut random).await;
    expiry::at_the_end(&run).await;
    for node in run.nodes() {
        run.tally(&node);
    }
    let violations = run.history(|history| std::mem::take(&mut history.violations));
    let simulated = run.elapsed();
    Verdict { violations, counts: run.counts(), log: run.take_log(), simulated }
}

/// Looks at all nodes now and then.
async fn watch(run: Run, stop: Rc<RefCell<bool>>) {
    while !*stop.borrow() {
        tokio::time::sleep(Duration::from_millis(73)).await;
        run.listen();
        resurrection::look(&run);
        expiry::look(&run);
        memory::look(&run);
    }
}

/// Nobody asks for anything any more.
async fn rest(stop: &RefCell<bool>, tabs: &mut Vec<JoinHandle<()>>) {
    *stop.borrow_mut() = true;
    for tab in tabs.drain(..) {
        let _ = tab.await;
    }
}

/// Waits until all is as it must be, but not for ever. What leaves or was killed just before is started again.
async fn settle(run: &Run) {
    // G4's two seconds, and what it takes to notice who is gone; then visitors' copies rest.
    let begun = run.elapsed();
    // What ends by idleness just now does so everywhere a moment later.
    let mut late_looks = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        run.listen();
        resurrection::look(run);
        expiry::look(run);
        let lacks = |which| convergence::lacks(run, run.hosts(), which);
        let at_home = lacks(Copies::AtHome);
        // After a long cut some start empty, and join anew.
        let since = begun.max(run.lost_at()).min(begun + Duration::from_secs(10));
        let in_time = since + Duration::from_secs(2) + run.scenario().drop_time * 3;
        let until = if at_home.is_some() { in_time } else { in_time + Duration::from_secs(7) };
        let Some(lacks) = at_home.or_else(|| lacks(Copies::All)) else {
            return run.say("all is as it must be");
        };
        late_looks = if run.elapsed() > until { late_looks + 1 } else { 0 };
        if late_looks > 5 {
            return run.history(|history| history.violated("convergence", lacks));
        }
    }
}

fn conclude(run: &Run) {
    let mut left: BTreeMap<SessionId, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for node in run.nodes() {
        let mut live = Vec::new();
        node.cluster.for_each_copy(|id, copy| live.extend(copy.end.is_none().then_some(*id)));
        for id in live {
            let values = node.cluster.values_of(&id);
            for (attribute, value) in &values {
                provenance::check(run, &id, attribute, value);
            }
            left.insert(id, values);
        }
    }
    durability::at_the_end(run, &left);
    resurrection::at_the_end(run);
}
