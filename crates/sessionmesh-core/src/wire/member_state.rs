//! The wire's names of the states, for [`crate::membership::MemberState`].

use super::generated as pb;

pub(crate) type WireState = pb::MemberState;
pub(crate) const JOINING: WireState = pb::MemberState::Joining;
pub(crate) const READY: WireState = pb::MemberState::Ready;
pub(crate) const LEAVING: WireState = pb::MemberState::Leaving;
