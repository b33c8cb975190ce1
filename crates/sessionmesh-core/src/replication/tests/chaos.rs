//! Random writes, losses and delays: what is left after a comparison must be the same everywhere.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::mesh::{Mesh, id};
use crate::SessionId;
use crate::replication::{Table, commit};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Create(u8, u8),
    Set(u8, u8, u8),
    Destroy(u8, u8),
    Touch(u8, u8),
    Expire(u8, u8),
    Flush(u8, u8),
    Deliver(u8, u8),
    Break(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0u8..3;
    let session = 0u8..4;
    prop_oneof![
        2 => (node.clone(), session.clone()).prop_map(|(n, s)| Step::Create(n, s)),
        6 => (node.clone(), session.clone(), 0u8..3).prop_map(|(n, s, k)| Step::Set(n, s, k)),
        1 => (node.clone(), session.clone()).prop_map(|(n, s)| Step::Destroy(n, s)),
        2 => (node.clone(), session.clone()).prop_map(|(n, s)| Step::Touch(n, s)),
        1 => (node.clone(), session).prop_map(|(n, s)| Step::Expire(n, s)),
        4 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Flush(a, b)),
        4 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Deliver(a, b)),
        1 => (node.clone(), node).prop_map(|(a, b)| Step::Break(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever is written, lost and delayed: after a pass between each two, all nodes hold the
    /// same, and what was destroyed is not there.
    #[test]
    fn nodes_that_compared_hold_the_same(steps in prop::collection::vec(step(), 1..120)) {
        let mesh = Mesh::new(3);
        let node = |n: u8| &mesh.0[usize::from(n)];
        let session = |s: u8| id(u128::from(s));
        let mut known = std::collections::BTreeSet::new();
        let mut destroyed = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                // An id is minted once in the world.
                Step::Create(n, s) if known.insert(s) => node(n).create(session(s)),
                Step::Set(n, s, k) => drop(node(n).set(session(s), &std::format!("k{k}"), "v")),
                Step::Destroy(n, s) if node(n).is_live(session(s)) => {
                    commit::destroy(&node(n).table, node(n), node(n).origin(), session(s), false).unwrap();
                    destroyed.insert(s);
                }
                Step::Touch(n, s) => drop(commit::touch(&node(n).table, node(n), node(n).origin(), session(s))),
                Step::Expire(n, s) => drop(commit::expire(&node(n).table, node(n), session(s), |_| true)),
                Step::Flush(a, b) if a != b => drop(mesh.flush(node(a), node(b))),
                Step::Deliver(a, b) if a != b => drop(mesh.deliver(node(a), node(b))),
                Step::Break(a, b) if a != b => mesh.relink(node(a), node(b)),
                _ => {}
            }
        }
        mesh.settle();
        for _ in 0..2 {
            for (a, b) in [(0, 1), (1, 2), (0, 2)] {
                mesh.pass(node(a), node(b));
            }
        }
        // Part of a session whose rest no node has is nothing that could be compared.
        let whole: Vec<BTreeMap<SessionId, u64>> = mesh.0.iter().map(|node| {
            let mut all = BTreeMap::new();
            node.table.for_each(|id, record| { if !record.is_partial() { all.insert(*id, record.digest()); } });
            all
        }).collect();
        prop_assert_eq!(&whole[0], &whole[1]);
        prop_assert_eq!(&whole[0], &whole[2]);
        for s in destroyed {
            for node in &mesh.0 {
                prop_assert!(!node.is_live(session(s)));
            }
        }
    }
}
