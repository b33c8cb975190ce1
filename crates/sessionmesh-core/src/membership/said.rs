use super::member::MemberState;
use crate::wire::{Hello, Side};

/// What this node's own Hello said on a connection: by the time the other side's is judged it may be something else,
/// and only what was said is known on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    pub(super) state: MemberState,
    pub(super) incarnation: u32,
    pub(super) side: Side,
    pub(super) dial: u64,
}

impl From<&Hello> for Said {
    fn from(hello: &Hello) -> Self {
        Self { state: hello.state, incarnation: hello.incarnation, side: hello.side, dial: hello.dial }
    }
}
