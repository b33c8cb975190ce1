//! `kill -9` right after a write was acknowledged, again and again.

use std::fmt;

use cluster_tests::{Browser, NodeProcess, Processes, eventually, figure};
use tokio::task::JoinSet;

use crate::{MODES, Size, Story, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    Story::one("kills::what_was_acknowledged_survives_a_kill_at_once", size, rounds_in_all_modes_and_levels)
}

const USERS: usize = 4;

/// What became of the writes of one cluster.
#[derive(Debug, Default)]
struct Tally {
    rounds: usize,
    acknowledged: usize,
    /// Written, and no answer: may be there or not.
    unanswered: usize,
    lost: usize,
    /// Reads at once, on the others, that said themselves that they are older than what the user saw.
    marked: usize,
    undecided: usize,
    reads: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, acknowledged, unanswered, lost, marked, undecided, reads } = self;
        write!(
            f,
            "{rounds} kills, {acknowledged} writes acknowledged just before ({unanswered} more not answered), {lost} lost; of {reads} \
             reads elsewhere at once {marked} were marked stale and {undecided} undecided (503), none older and unmarked"
        )
    }
}

/// All at once: they wait most of the time.
async fn rounds_in_all_modes_and_levels(size: Size) {
    let mut clusters = JoinSet::new();
    for mode in MODES {
        for level in ["async", "one", "all"] {
            clusters.spawn(async move { (mode, level, play(mode, level, size.pick(6, 500)).await) });
        }
    }
    let mut told = Vec::new();
    while let Some(played) = clusters.join_next().await {
        told.push(played.unwrap());
    }
    told.sort_by_key(|(mode, level, _)| (*mode, *level));
    for (mode, level, tally) in told {
        figure(&format!("kill -9, {mode}, {level}"), &tally);
        assert!(tally.acknowledged >= tally.rounds, "{tally}");
        assert!(level == "async" || tally.lost == 0, "{mode}, {level}: {tally}");
    }
}

/// A user, and what was last written to its session.
struct User {
    browser: Browser,
    value: Option<String>,
}

async fn play(mode: &str, level: &str, rounds: usize) -> Tally {
    let mut cluster = processes(mode).with(&format!("--ack={level}")).start(3).await;
    let mut users: Vec<User> = (0..USERS).map(|_| User { browser: Browser::new(), value: None }).collect();
    let story = format!("{mode}, {level}");
    let mut tally = Tally { rounds, ..Tally::default() };
    // Anybody's multiplier; the same order in each run.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..rounds {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let victim = (random >> 33) as usize % 3;
        // One begins anew each time: sessions are lost as wholes, too.
        users[round % USERS] = User { browser: Browser::new(), value: None };
        let survivors: Vec<usize> = (0..3).filter(|index| *index != victim).collect();

        let value = format!("r{round}");
        let acknowledged = write_and_kill(&mut cluster, victim, &mut users, &value).await;
        for index in &survivors {
            for (user, acknowledged) in users.iter().zip(&acknowledged) {
                if *acknowledged {
                    read_at_once(&story, &cluster.nodes[*index], user, &value, &mut tally).await;
                }
            }
        }

        for index in &survivors {
            cluster.nodes[*index].sees(1).await;
        }
        cluster.settled().await;
        for (user, acknowledged) in users.iter_mut().zip(acknowledged) {
            let found = agreed(&cluster, &survivors, user).await;
            match (acknowledged, found.as_deref() == Some(&value)) {
                (true, true) => tally.acknowledged += 1,
                (true, false) => {
                    tally.acknowledged += 1;
                    tally.lost += 1;
                }
                (false, is_new) => {
                    tally.unanswered += 1;
                    // It may be there or not; what was there before must be.
                    tally.lost += usize::from(!is_new && found != user.value);
                }
            }
            if found.is_none() {
                *user = User { browser: Browser::new(), value: None };
            }
            user.value = found;
        }
        cluster.restart(victim).await;
        cluster.formed().await;
    }
    tally
}

/// All users write on one node, which is killed as soon as one of them has its answer. Which had theirs.
async fn write_and_kill(
    cluster: &mut Processes,
    victim: usize,
    users: &mut [User],
    value: &str,
) -> Vec<bool> {
    let mut writes = JoinSet::new();
    let url = cluster.nodes[victim].url("");
    for (number, user) in users.iter().enumerate() {
        let (mut browser, url, value) = (user.browser.clone(), url.clone(), value.to_owned());
        writes.spawn(async move {
            let answer = browser.try_post_to(&url, &format!("/put?k=k&v={value}")).await;
            (number, browser, answer)
        });
    }
    let mut acknowledged = vec![false; users.len()];
    let mut killed = false;
    while let Some(written) = writes.join_next().await {
        let (number, browser, answer) = written.unwrap();
        let Some(answer) = answer else { continue };
        assert_eq!(answer.status, 200, "{}", answer.body);
        if !killed {
            cluster.nodes[victim].signal(cluster_tests::Signal::KILL);
            killed = true;
        }
        acknowledged[number] = true;
        users[number].browser = browser;
    }
    cluster.nodes[victim].ended().await;
    acknowledged
}

/// With all that the user's cookie says: never older than what it has seen, unless that is said.
async fn read_at_once(story: &str, node: &NodeProcess, user: &User, value: &str, tally: &mut Tally) {
    let answer = user.browser.clone().get(node, "/get?k=k").await;
    tally.reads += 1;
    match answer.status {
        503 => tally.undecided += 1,
        _ if answer.headers.contains_key("sessionmesh-stale") => tally.marked += 1,
        status => assert_eq!((status, &*answer.body), (200, value), "{story}: {answer:?}"),
    }
}

/// What both survivors say, once they say the same. Without the token: what there is.
async fn agreed(cluster: &Processes, survivors: &[usize], user: &User) -> Option<String> {
    let bare = user.browser.bare();
    bare.cookie.as_ref()?;
    eventually("both survivors say the same", || async {
        let mut said = Vec::new();
        for index in survivors {
            let answer = bare.clone().get(&cluster.nodes[*index], "/get?k=k").await;
            said.push(match answer.status {
                200 => Some(answer.body),
                404 => None,
                _ => return None,
            });
        }
        (said[0] == said[1]).then(|| said.swap_remove(0))
    })
    .await
}
