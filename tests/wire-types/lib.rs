//! Nothing but the test beside it, which must build when the message types do not.
