//! What is done to hosts and cables.

use std::time::Duration;

use sessionmesh::simulation::{Cable, HostId};

use crate::cluster::{Node, Run};

/// Kinds of faults, the frequent ones several times.
pub(crate) const FAULTS: u32 = 20;
/// The one of cables that carry nothing.
pub(crate) const CUT: u32 = 11;
/// And one of those that make a node stand still.
pub(crate) const PAUSE: u32 = 8;
/// The one of slow receivers.
pub(crate) const SLOW: u32 = 14;
/// At least so long, if an outbox is to overflow.
const SLOW_FOR: Duration = Duration::from_secs(3);

/// Does something now and then, until the time of trouble is over.
///
/// `most`: so many things, then none.
pub(crate) async fn trouble(run: &Run, mut random: fastrand::Rng, most: usize) {
    let scenario = run.scenario().clone();
    let Some(calm) = scenario.calm else { return tokio::time::sleep(scenario.trouble).await };
    let mut done = 0;
    while run.elapsed() < scenario.trouble {
        let calm = calm.as_millis() as u64;
        tokio::time::sleep(Duration::from_millis(random.u64(calm / 2..=calm * 2))).await;
        if done == most {
            continue;
        }
        done += 1;
        run.count("faults");
        let host = random.usize(0..run.hosts());
        let long = Duration::from_millis(random.u64(50..=8_000));
        let any = random.u32(0..FAULTS);
        match scenario.focus.unwrap_or(any) {
            0..=2 => kill(run, host, long.min(Duration::from_secs(4)), random.u32(0..4) == 0).await,
            3 => power_off(run, host, long).await,
            4..=5 => leave(run, host),
            6..=7 if scenario.heavy => slow(run, host, random.u64(500..10_000), long.max(SLOW_FOR)),
            6..=8 => pause(run, host, long),
            9..=11 => cut(run, &mut random, long),
            12 if scenario.has_short_horizon() => {
                run.count("cuts longer than the horizon");
                // By then ends are forgotten, too.
                let longer = Duration::from_millis(random.u64(0..=3_000)) + scenario.drop_time * 6;
                cut(run, &mut random, scenario.horizon + longer);
                // Nothing else mends it.
                tokio::time::sleep(scenario.horizon + longer).await;
            }
            12 => cut(run, &mut random, long),
            16 => join_storm(run, &mut random, long.min(Duration::from_secs(3))).await,
            17..=18 => lose_donor(run, &mut random).await,
            19 => flap(run, &mut random, long),
            13 => {
                // An hour either way; but ends are aged by wall clocks, so less than a shortened horizon.
                let most = (scenario.horizon.as_millis() as i64 / 4).min(3_600_000);
                let to_ms = random.i64(-most..=most);
                run.say(format_args!("host {host}: the clock steps to {to_ms} ms off"));
                run.step_clock_to(host, to_ms);
                run.host(host).drift_clock(random.i64(-200..=200));
                run.count("clock steps");
            }
            SLOW => {
                let most = if scenario.heavy { 10_000 } else { 200_000 };
                let long = if scenario.heavy { long.max(SLOW_FOR) } else { long };
                slow(run, host, random.u64(500..most), long);
            }
            _ => swizzle(run, &mut random, long),
        }
    }
}

/// Some die, and all that are down start at the same moment.
async fn join_storm(run: &Run, random: &mut fastrand::Rng, down: Duration) {
    let stays = random.usize(0..run.hosts());
    run.count("join storms");
    for host in (0..run.hosts()).filter(|host| *host != stays) {
        if random.bool() {
            kill(run, host, down, false).await;
        }
    }
}

/// A node joins, and one that has sessions for it dies meanwhile.
async fn lose_donor(run: &Run, random: &mut fastrand::Rng) {
    let (joiner, donor) = (random.usize(0..run.hosts()), random.usize(0..run.hosts()));
    if joiner == donor || run.node(donor).is_none() {
        return;
    }
    run.count("donors lost");
    kill(run, joiner, Duration::from_millis(random.u64(1..500)), false).await;
    tokio::time::sleep(Duration::from_millis(random.u64(500..1_500))).await;
    kill(run, donor, Duration::from_millis(random.u64(100..4_000)), false).await;
}

/// Changes cables later, unless all is mended before.
fn rewire_later(run: &Run, after: Duration, change: impl Fn(HostId, HostId, &mut Cable) + 'static) {
    later(run, after, async move |run: Run| {
        if !run.is_healed() {
            run.cables(change);
        }
    });
}

/// The cables between two hosts come and go.
fn flap(run: &Run, random: &mut fastrand::Rng, long: Duration) {
    let (one, two) = (random.usize(0..run.hosts()), random.usize(0..run.hosts()));
    run.say(format_args!("hosts {one} and {two}: their cable flaps for {long:?}"));
    run.count("flapping links");
    let mut at = Duration::ZERO;
    let mut is_cut = true;
    while at < long {
        let cut_now = is_cut;
        rewire_later(run, at, move |from, to, cable| {
            if (from, to) == (one, two) || (from, to) == (two, one) {
                cable.tcp_cut = cut_now;
                cable.udp_cut = cut_now;
            }
        });
        is_cut = !is_cut;
        at += Duration::from_millis(random.u64(20..800));
    }
    rewire_later(run, long, move |from, to, cable| {
        if (from, to) == (one, two) || (from, to) == (two, one) {
            cable.tcp_cut = false;
            cable.udp_cut = false;
        }
    });
}

/// Everything is well again: what runs goes on, what does not is started, cables carry.
pub(crate) async fn heal(run: &Run) {
    run.say("everything is mended");
    run.set_healed();
    run.cables(|_, _, cable| *cable = Cable::default());
    for host in 0..run.hosts() {
        resume(run, host);
        if run.node(host).is_none() {
            run.start(host, false).await;
        }
    }
}

fn later(run: &Run, after: Duration, f: impl AsyncFnOnce(Run) + 'static) {
    let run = run.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(after).await;
        f(run).await;
    });
}

async fn kill(run: &Run, host: HostId, down: Duration, renamed: bool) {
    if run.node(host).is_none() {
        return;
    }
    run.say(format_args!("host {host}: killed"));
    run.count("kills");
    run.host(host).kill();
    run.gone(host, true);
    later(run, down, async move |run: Run| {
        if run.node(host).is_none() {
            run.start(host, renamed).await;
        }
    });
}

async fn power_off(run: &Run, host: HostId, down: Duration) {
    if run.node(host).is_none() {
        return;
    }
    run.say(format_args!("host {host}: power off"));
    run.count("power failures");
    run.host(host).power_off();
    run.gone(host, true);
    later(run, down, async move |run: Run| {
        if run.node(host).is_none() {
            run.start(host, false).await;
        }
    });
}

fn leave(run: &Run, host: HostId) {
    let Some(node) = run.node(host).filter(|node| !node.paused) else { return };
    run.say(format_args!("host {host}: leaves"));
    run.set_leaving(host);
    // What only it has ends with it, if it sees nobody who stays.
    let sees_nobody = move |node: &Node| node.cluster.inspect().view.iter().all(|boot| *boot == node.boot);
    let was_alone = sees_nobody(&node);
    let leaving = node.cluster.clone();
    let left = run.host(host).spawn(async move { leaving.leave().await });
    later(run, Duration::ZERO, async move |run: Run| {
        // Killed meanwhile, it has not left.
        let Ok(left) = left.await else { return };
        run.say(format_args!("host {host}: has left, {left:?}"));
        run.count(if left.is_ok() { "leaves" } else { "leaves that gave up" });
        // The process ends.
        let alone = was_alone || sees_nobody(&node);
        run.host(host).kill();
        // One that has left has handed everything over, if there was anybody.
        run.gone(host, left.is_err() || alone);
        run.start(host, false).await;
    });
}

fn pause(run: &Run, host: HostId, long: Duration) {
    if run.node(host).is_none_or(|node| node.paused) {
        return;
    }
    run.say(format_args!("host {host}: stands still for {long:?}"));
    run.count("pauses");
    run.host(host).pause();
    run.set_paused(host, true);
    later(run, long, async move |run: Run| resume(&run, host));
}

fn resume(run: &Run, host: HostId) {
    if run.node(host).is_some_and(|node| node.paused) {
        run.say(format_args!("host {host}: goes on"));
        run.set_paused(host, false);
        run.host(host).resume();
    }
}

/// What of a cable is cut.
#[derive(Clone, Copy, Debug)]
enum What {
    Everything,
    Tcp,
    Udp,
}

fn cut(run: &Run, random: &mut fastrand::Rng, long: Duration) {
    let hosts = run.hosts();
    let side: Vec<bool> = (0..hosts).map(|_| random.bool()).collect();
    let one = random.usize(0..hosts);
    let bridge = random.usize(0..hosts);
    let what = [What::Everything, What::Everything, What::Tcp, What::Udp][random.usize(0..4)];
    let kind = random.u32(0..5);
    let is_cut = |from: HostId, to: HostId| match kind {
        // Two sides; one host alone; one that is not heard; one way between two sides; a host between both.
        0 => side[from] != side[to],
        1 => (from == one) != (to == one),
        2 => from == one,
        3 => side[from] && !side[to],
        _ => side[from] != side[to] && from != bridge && to != bridge,
    };
    run.say(format_args!(
        "cut of kind {kind} ({what:?}) for {long:?}: sides {side:?}, one {one}, bridge {bridge}"
    ));
    run.count("cuts");
    run.cables(|from, to, cable| {
        if is_cut(from, to) {
            cable.tcp_cut |= !matches!(what, What::Udp);
            cable.udp_cut |= !matches!(what, What::Tcp);
        }
    });
    later(run, long, async move |run: Run| run.say("cables are mended"));
    rewire_later(run, long, |_, _, cable| {
        cable.tcp_cut = false;
        cable.udp_cut = false;
    });
}

/// A receiver, and all on its way, is slow.
fn slow(run: &Run, host: HostId, bytes_per_s: u64, long: Duration) {
    run.say(format_args!("host {host}: gets {bytes_per_s} bytes a second for {long:?}"));
    run.count("slow receivers");
    run.cables(|_, to, cable| {
        if to == host {
            cable.bytes_per_s = bytes_per_s;
        }
    });
    rewire_later(run, long, move |_, to, cable| {
        if to == host {
            cable.bytes_per_s = 0;
        }
    });
}

/// Some hosts' cables are pulled one after the other, and plugged in again in another order.
fn swizzle(run: &Run, random: &mut fastrand::Rng, long: Duration) {
    let mut hosts: Vec<HostId> = (0..run.hosts()).filter(|_| random.bool()).collect();
    run.say(format_args!("swizzle of {hosts:?} over {long:?}"));
    run.count("swizzles");
    for pulled in [true, false] {
        random.shuffle(&mut hosts);
        for (index, host) in hosts.iter().copied().enumerate() {
            let part = long / 2 / (hosts.len() as u32 + 1) * (index as u32 + 1);
            let at = if pulled { part } else { long / 2 + part };
            rewire_later(run, at, move |from, to, cable| {
                if from == host || to == host {
                    cable.tcp_cut = pulled;
                    cable.udp_cut = pulled;
                }
            });
        }
    }
}
