//! Seeds that once broke an invariant, and what was behind it: every band plays them, too.
//!
//! A change of what a seed decides (`scenario`, `faults`, `users`) makes them other ones, that prove no more than any
//! seed: then those of the newest bands take their place. What was mended has its own story where it can be told without a seed.

/// In the order in which they were found.
pub(crate) const KEPT: [(u64, &str); 7] = [
    (
        16_400,
        "a visitor wrote on over an older copy when all who had its writes were dead (guarantees.md says so)",
    ),
    (19_350, "an end was announced by two, each the first holder in the moment when a node joined"),
    (
        25_087,
        "one that slept was taken for one beyond a cut, because it still missed whom the other had forgotten",
    ),
    (
        26_401,
        "two nodes in the midst of the same others refused each other for ever, each waiting for the other to yield",
    ),
    (30_648, "a node that had started empty kept its boot: who had seen what it lost was shown less"),
    (
        309,
        "a node that had started beside one who slept brought its sessions back where it had been forgotten",
    ),
    (53_022, "a holder that had not compared yet denied a session that was on its way to it"),
];

/// Seeds that break an invariant today, and what is known of it: played with every band that has them, told apart, and
/// no failure of it, unless they hold. Then they belong above.
pub(crate) const NOT_MENDED: [(u64, &str); 0] = [];
