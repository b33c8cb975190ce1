//! What both sides of a connection said of themselves, when one of them has become something else since.

use core::time::Duration;
use std::format;

use super::world::{World, address};
use super::*;
use crate::wire::{Absent, Contact, Hello, PROTOCOL_VERSIONS, Refusal, Side};
use crate::{BootId, Instant, NodeName};

/// When founders are ready, and everything here is said.
const NOW: Instant = Instant::from_nanos(4_000_000_000);

fn joiner(boot: u64, mode: Mode) -> Node {
    let me = Identity {
        boot: BootId::new(boot).unwrap(),
        name: NodeName::new(&format!("n{boot}")).unwrap(),
        address: address(4_000 + boot as u16),
        mode,
        zone: None,
        versions: PROTOCOL_VERSIONS,
    };
    Node::new(me, MembershipConfig::default(), Instant::ZERO)
}

/// Ready, and alone.
pub(super) fn founder(boot: u64, mode: Mode) -> Node {
    let mut node = joiner(boot, mode);
    node.handle_timeout(NOW);
    assert_eq!(node.state(), MemberState::Ready);
    node
}

/// Its Hello, of one that has forgotten the other in a long cut.
fn forgotten(node: &Node, other: &Node) -> Hello {
    let mut hello = node.hello();
    hello.forgotten.insert(other.me().boot, 0);
    hello
}

/// What it decides of the other side; `None`: it is admitted.
fn refusal(node: &mut Node, hello: Hello, dialed: bool, said: Said) -> Option<Refusal> {
    let address = hello.address;
    while node.poll_action().is_some() {}
    node.handle_hello(1, hello, dialed.then_some(address), said, NOW);
    let verdict = core::iter::from_fn(|| node.poll_action()).find_map(|action| match action {
        Action::Admit { .. } => Some(None),
        Action::Refuse { refusal, .. } => Some(Some(refusal)),
        _ => None,
    });
    verdict.unwrap()
}

/// Each side could think that the other drives the first pass, or that it does itself, and all sessions would travel twice.
#[test]
fn who_drives_the_first_pass_is_what_both_hellos_said() {
    let (mut ready, mut joins) = (founder(10, Mode::AllPeers), joiner(20, Mode::AllPeers));
    let said = joins.hello();
    joins.handle_timeout(NOW);
    assert_eq!((said.state, joins.state()), (MemberState::Joining, MemberState::Ready));
    let answer = ready.hello();
    assert_eq!(refusal(&mut ready, said.clone(), true, Said::from(&answer)), None);
    assert_eq!(refusal(&mut joins, answer, false, Said::from(&said)), None);
    let drives = |node: &mut Node| {
        node.handle_link_up(1, NOW);
        core::iter::from_fn(|| node.poll_action()).any(|action| matches!(action, Action::StartPass { .. }))
    };
    assert_eq!((drives(&mut ready), drives(&mut joins)), (false, true));
}

/// The other would know it as what it was: forget that one at the horizon, and take the one of now for somebody who has
/// nothing left that could come back.
#[test]
fn one_that_has_started_empty_since_it_said_hello_is_not_admitted_as_what_it_was() {
    for dialed in [false, true] {
        let (mut node, other) = (founder(10, Mode::AllPeers), founder(20, Mode::AllPeers));
        let said = Said::from(&node.hello());
        let larger = Side { size: 3, ..other.side() };
        let long_cut = Hello { side: larger, ..forgotten(&founder(30, Mode::AllPeers), &node) };
        assert!(refusal(&mut node, long_cut, true, said).is_some());
        assert_eq!((node.state(), node.hello().incarnation), (MemberState::Joining, 1));
        let refused = refusal(&mut node, other.hello(), dialed, said).unwrap();
        assert!(refused.detail.contains("n10 has started empty"), "{refused:?}");
        let said = Said::from(&node.hello());
        assert_eq!(refusal(&mut node, other.hello(), dialed, said), None);
    }
}

/// One stands still after its Hello, and knows nothing of its side when it goes on: if it judged by that, it would yield to
/// one that has yielded to what it said, and the sessions of both would be gone.
#[test]
fn of_two_sides_of_a_long_cut_only_one_starts_empty_though_the_other_stood_still_meanwhile() {
    let (mut lower, mut higher) = (founder(10, Mode::AllPeers), founder(20, Mode::AllPeers));
    // Who is alone has nobody to doubt.
    let third = joiner(30, Mode::AllPeers);
    let hello = Said::from(&lower.hello());
    assert_eq!(refusal(&mut lower, third.hello(), true, hello), None);
    lower.handle_link_up(1, NOW);
    let (said, answer) = (forgotten(&lower, &higher), forgotten(&higher, &lower));
    lower.handle_timeout(NOW + Duration::from_secs(60));
    assert!(lower.is_doubting() && lower.side().yields_to(answer.side));
    for (node, theirs, own) in [(&mut lower, &answer, &said), (&mut higher, &said, &answer)] {
        assert!(refusal(node, theirs.clone(), true, Said::from(own)).is_some());
    }
    assert_eq!((lower.state(), higher.state()), (MemberState::Ready, MemberState::Joining));
}

/// It was awake in the cut, and knows only for a moment not how large its side is: if it started empty, what the others of its
/// side did after it would leave that side with nothing.
#[test]
fn one_that_counted_a_long_cut_and_stood_still_for_a_moment_does_not_start_empty() {
    let config = MembershipConfig { horizon: Duration::from_secs(30), ..MembershipConfig::default() };
    let mode = Mode::AllPeers;
    let mut world = World::new(mode);
    for n in 1..=3 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
    world.cut(0, 1);
    world.cut(0, 2);
    world.run(Duration::from_secs(50));
    let answer = world.processes[0].node.hello();
    let now = world.now + Duration::from_secs(1);
    let node = &mut world.processes[1].node;
    node.handle_timeout(now);
    assert!(node.is_doubting());
    let said = Said::from(&node.hello());
    let address = answer.address;
    node.handle_hello(99, answer.clone(), Some(address), said, now);
    assert_eq!(node.state(), MemberState::Ready, "it says hello again when it knows its side");
    // One that slept through the cut has counted nothing of it.
    let slept = &mut founder(30, mode);
    let answer = Hello { forgotten: [(slept.me().boot, 0)].into(), ..answer };
    let third = joiner(40, mode);
    let hello = Said::from(&slept.hello());
    assert_eq!(refusal(slept, third.hello(), true, hello), None);
    slept.handle_link_up(1, NOW);
    slept.handle_timeout(NOW + Duration::from_secs(60));
    assert!(slept.is_doubting());
    let said = Said::from(&slept.hello());
    assert!(refusal(slept, answer, true, said).is_some());
    assert_eq!(slept.state(), MemberState::Joining);
}

/// Its process is there: this node has a link with it under another address. Without one the other connection may still come to
/// nothing, and a cluster be behind the seed.
#[test]
fn a_seed_that_refuses_a_second_link_is_met_once_there_is_a_first() {
    for linked in [false, true] {
        let mut node = joiner(20, Mode::AllPeers);
        if linked {
            let other = joiner(10, Mode::AllPeers).hello();
            let said = Said::from(&node.hello());
            assert_eq!(refusal(&mut node, other, true, said), None);
            node.handle_link_up(1, Instant::ZERO);
        }
        let (seed, start) = (address(4_900), Instant::ZERO + Duration::from_millis(1));
        node.handle_seeds(&[seed], &[], start);
        let dials = core::iter::from_fn(|| node.poll_action());
        assert!(
            dials.into_iter().any(|action| matches!(action, Action::Dial { address, .. } if address == seed))
        );
        let refusal = Refusal { reason: RefusalReason::Duplicate, detail: "a link already".into() };
        node.handle_link_closed(7, Some(seed), Some(refusal), start);
        let reason = node.unready_reason(Instant::ZERO + Duration::from_secs(60)).unwrap_or_default();
        assert_eq!(reason.contains("127.0.0.1:4900"), !linked, "{reason}");
    }
}

/// It has started empty on the other side of a long cut, and this side does not know yet that it is gone.
#[test]
fn two_sides_of_a_long_cut_do_not_share_one_that_has_changed_sides() {
    for (incarnation, emptied) in [(0, false), (1, true)] {
        let mode = Mode::AllPeers;
        let (mut node, shared, mut other) = (founder(20, mode), founder(10, mode), founder(30, mode));
        for (node, incarnation) in [(&mut node, 0), (&mut other, incarnation)] {
            let said = Said::from(&node.hello());
            assert_eq!(refusal(node, Hello { incarnation, ..shared.hello() }, true, said), None);
            node.handle_link_up(1, NOW);
        }
        assert_eq!(node.side(), other.side());
        // A third node makes the other side the larger one.
        let side = Side { size: 3, ..other.side() };
        let theirs = Hello { side, ..forgotten(&other, &node) };
        let said = Said::from(&node.hello());
        assert_eq!(refusal(&mut node, theirs, true, said).is_some(), emptied);
        assert_eq!(node.state() == MemberState::Joining, emptied);
    }
}

/// It has forgotten one that the other never met, and the other one that it never met: both through a member that they share.
#[test]
fn one_that_stood_still_for_seconds_and_shares_a_member_does_not_start_empty() {
    let mode = Mode::AllPeers;
    let (mut node, shared, mut other) = (founder(30, mode), founder(20, mode), founder(10, mode));
    for (node, lost) in [(&mut node, 40), (&mut other, 50)] {
        let said = Said::from(&node.hello());
        assert_eq!(refusal(node, forgotten(&shared, &founder(lost, mode)), true, said), None);
        node.handle_link_up(1, NOW);
    }
    node.handle_timeout(NOW + Duration::from_secs(5));
    assert!(node.is_doubting() && node.side().is_unknown());
    let (said, awake) = (node.hello(), other.hello());
    assert_eq!(refusal(&mut other, said.clone(), true, Said::from(&awake)), None);
    assert_eq!(refusal(&mut node, awake, true, Said::from(&said)), None);
    assert_eq!(node.state(), MemberState::Ready);
}

/// Of those who miss it some slept when it started empty, or when it was last heard.
#[test]
fn who_is_missed_is_missed_as_the_last_that_heard_it_says() {
    let mode = Mode::AllPeers;
    let seen = |incarnation, silent_s| (incarnation, Duration::from_secs(silent_s));
    for (first, then, last) in [
        (seen(0, 50), seen(1, 5), seen(1, 5)),
        (seen(1, 5), seen(0, 50), seen(1, 5)),
        (seen(0, 5), seen(1, 50), seen(1, 50)),
        (seen(1, 50), seen(1, 5), seen(1, 5)),
        (seen(1, 5), seen(1, 50), seen(1, 5)),
    ] {
        let mut node = founder(20, mode);
        let gone = founder(10, mode).me().clone();
        for (link, (incarnation, silent)) in [(30, first), (40, then)] {
            let said = Said::from(&node.hello());
            let absent = Absent { boot: gone.boot, incarnation, name: gone.name.clone(), silent };
            let hello = Hello { absent: Vec::from([absent]), ..founder(link, mode).hello() };
            assert_eq!(refusal(&mut node, hello, true, said), None);
            node.handle_link_up(1, NOW);
        }
        let missed: Vec<_> = node.hello().absent.iter().map(|gone| (gone.incarnation, gone.silent)).collect();
        assert_eq!(missed, [last], "{first:?}, {then:?}");
    }
}

/// One of those who tell of it slept when it started empty.
#[test]
fn whom_members_tell_of_is_missed_as_the_newest_of_what_they_say() {
    for told in [[0, 1], [1, 0]] {
        let mut node = founder(20, Mode::AllPeers);
        let gone = founder(10, Mode::AllPeers).me().clone();
        for incarnation in told {
            let (boot, name, address) = (gone.boot, gone.name.clone(), gone.address);
            node.handle_told(&[Contact { boot, incarnation, name, address }], NOW);
        }
        for tick in 1..100 {
            node.handle_timeout(NOW + Duration::from_millis(100) * tick);
        }
        let missed: Vec<_> = node.hello().absent.iter().map(|gone| gone.incarnation).collect();
        assert_eq!(missed, [1], "told of {told:?}");
    }
}
