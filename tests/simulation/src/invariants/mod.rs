//! What must hold. One a file.
//!
//! | invariant | guarantee | when it is checked |
//! |---|---|---|
//! | `provenance` | a value read was written to that attribute of that session | every read, and at the end |
//! | `durability` | G1: as many have a write as its answer says; G1, G5: it survives while one lives that has it | every answer, and at the end |
//! | `resurrection` | G3: what is over is never seen again where it was applied | every answer, now and then, at the end |
//! | `denial` | a session is not denied while a connected member has it | every "no such session" |
//! | `expiry` | G9: no session ends early or late by idleness; each end is announced, once if nothing happened | every announcement, now and then, at the end |
//! | `memory` | G6: what waits for one member is bounded | now and then |
//! | `monotonic` | G2: whoever shows its token sees nothing older, or is told | every read with a token |
//! | `convergence` | G4: in time all holders hold the same, nobody else anything; members agree; all are ready | at the end |
//! | `transfer` | G4: what passes move is bounded by what differed | at the end |

pub(crate) mod convergence;
pub(crate) mod denial;
pub(crate) mod durability;
pub(crate) mod expiry;
pub(crate) mod memory;
pub(crate) mod monotonic;
pub(crate) mod provenance;
pub(crate) mod resurrection;
pub(crate) mod transfer;
