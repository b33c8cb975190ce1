//! Deliberate defects, one at a time: a simulator that does not find them proves nothing. They are compiled only
//! with `--cfg sessionmesh_simulation`; in every other build `mutated!` is `false`.

/// Whether a defect is in force, by its name.
#[cfg(not(sessionmesh_simulation))]
#[doc(hidden)]
#[macro_export]
macro_rules! mutated {
    ($mutant:ident) => {
        false
    };
}

/// Whether a defect is in force, by its name.
#[cfg(sessionmesh_simulation)]
#[doc(hidden)]
#[macro_export]
macro_rules! mutated {
    ($mutant:ident) => {
        $crate::mutants::is_chosen($crate::mutants::Mutant::$mutant)
    };
}

#[cfg(sessionmesh_simulation)]
pub use switch::{Mutant, choose, is_chosen};

#[cfg(sessionmesh_simulation)]
mod switch {
    use core::sync::atomic::{AtomicU8, Ordering};

    macro_rules! mutants {
        ($($mutant:ident: $what:literal,)*) => {
            /// A deliberate defect.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Mutant {
                $(#[doc = $what] $mutant,)*
            }

            impl Mutant {
                /// All.
                pub const ALL: &[Self] = &[$(Self::$mutant,)*];

                /// What is wrong with it.
                pub fn what(self) -> &'static str {
                    match self {
                        $(Self::$mutant => $what,)*
                    }
                }
            }
        };
    }

    mutants! {
        EndIgnored: "a logout that another node tells of is ignored",
        LateWriteRevives: "a write that comes after the logout begins the session anew",
        EndForgottenAtOnce: "ends are forgotten by the next sweep",
        SidesMerge: "two sides merge after a cut longer than the horizon",
        HelloOutlived: "a node that has started empty is admitted as what its Hello said before",
        IdKept: "a change of id does not end the old id",
        AckWithoutApply: "a write to a session that is not here is acknowledged and dropped",
        AckOfPart: "a write is acknowledged though the rest of its session is missing",
        AckAcrossEpochs: "an acknowledgement of an earlier stream counts for this one",
        MergeByArrival: "of two writes to an attribute the one that came last wins",
        ClockNotObserved: "stamps of other nodes do not move the clock",
        RemovalNotMarked: "a removal leaves no mark",
        VectorOverGap: "the version goes on over a gap",
        TokenByLargestStamp: "versions are compared by their largest stamp",
        PassSkipsRange: "a pass leaves out ids that begin with 7",
        PassSendsAll: "a pass moves what is the same on both sides, too",
        OverflowIgnored: "an outbox grows without a bound",
        StrayDroppedEarly: "a copy is dropped when one of its holders has it",
        ReadyBeforeCompared: "a joiner serves before it has compared with anybody, and says that it has",
        DenialUnsettled: "a holder denies a session before it has compared with all",
        ExpiryWithoutGrace: "a session expires as soon as its first holder has not heard of an access, and nobody is asked",
        ExpiryInDoubt: "a node that stood still lets sessions expire before it has compared, and asks nobody",
        AnnouncedTwice: "an end that was announced is announced again",
    }

    static CHOSEN: AtomicU8 = AtomicU8::new(u8::MAX);

    /// Puts one in force, in the whole program; `None`: none.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.store(mutant.map_or(u8::MAX, |mutant| mutant as u8), Ordering::Relaxed);
    }

    /// Whether this one is in force.
    pub fn is_chosen(mutant: Mutant) -> bool {
        CHOSEN.load(Ordering::Relaxed) == mutant as u8
    }
}
