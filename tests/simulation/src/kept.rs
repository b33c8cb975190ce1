//! Seeds that once broke an invariant, and what was behind it: every band plays them, too.
//!
//! A change of what a seed decides (`scenario`, `faults`, `users`) makes them other ones, that prove no more than any
//! seed: then those of the newest bands take their place. What was mended has its own story where it can be told without a seed.

use crate::scenario::Kind;

/// Those of a kind, with what was behind each.
pub(crate) fn of(kind: Kind) -> &'static [(u64, &'static str)] {
    match kind {
        Kind::Any => &ANY,
        Kind::Pausing => &PAUSING,
        Kind::Distant => &DISTANT,
        // In the band that CI plays.
        Kind::Merging => &[],
    }
}

/// By their digits.
const PAUSING: [(u64, &str); 10] = [
    (13_608, "a logout took over that an end by idleness was announced which the session had outlived"),
    (
        18_372,
        "what a node that had slept still knew of a member that was gone stood for what others had heard of it later",
    ),
    (
        24_420,
        "a side's last node started empty, and nobody knew any more whom it had lost: that one brought back a logged-out session",
    ),
    (24_952, "the same as 13,608, of one that slept through the access and the logout"),
    (33_943, "a holder denied what another had just been asked for, and had not told of"),
    (35_455, "the same"),
    (3_618, "one that slept missed a member as what it had been before that started empty"),
    (3_629, "part of a session was given up, and its end with it"),
    (42_192, "what had lain in a socket was an access, and brought back a session that had expired"),
    (7_136, "one that started empty kept nothing of whom its former side had lost"),
];

const DISTANT: [(u64, &str); 3] = [
    (
        294,
        "one that founded alone did not learn whom a member had forgotten, and took a logged-out session from there",
    ),
    (3_025, "two that had not met since one of them started empty, past the horizon (guarantees.md says so)"),
    (805, "the same as 294"),
];

/// By their first digits.
const ANY: [(u64, &str); 39] = [
    (
        122_188,
        "a joiner and a node that had just become ready both drove the first pass: all travelled twice",
    ),
    (142_355, "a session ended on one side of a cut and lived on the other (guarantees.md says so)"),
    (153_929, "a node left that counted on a member which had died and was not dropped yet: both had had it"),
    (
        16_400,
        "a visitor wrote on over an older copy when all who had its writes were dead (guarantees.md says so)",
    ),
    (19_350, "an end was announced by two, each the first holder in the moment when a node joined"),
    (
        21_627,
        "who waited for a pass on a link that was replaced waited for ever, and a visitor's copy stayed",
    ),
    (
        210_332,
        "a read that was answered by one who holds no copy by right was no access, and the session expired",
    ),
    (219_177, "a session from beyond a cut was denied by its holders while only one other member had it yet"),
    (
        240_834,
        "both holders doubted, an older copy helped out, and its reader was shown less than it had written",
    ),
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
    (
        317_724,
        "a node that slept met one that had started without it, past the horizon: what had ended there was back (guarantees.md says so)",
    ),
    (
        324_826,
        "an access that nobody else heard of, since its node slept then, and the session expired in time",
    ),
    (343_215, "a node that was alone when it fell asleep woke alone, and let expire what was used elsewhere"),
    (
        353_285,
        "an end by idleness that did not come as a frame of its own stood, though its node had served the session since",
    ),
    (355_195, "a node behind a narrow link took what others used for idle, and said so without asking"),
    (
        356_823,
        "two that had never met, and a third that had both: one forgot a logout before the other could hear of it",
    ),
    (
        361_046,
        "a session was ended on both sides of a cut past the horizon: each kept the end that it had not forgotten",
    ),
    (
        373_508,
        "a session moved to its holders just before both were killed: who had handed it on dropped it by then",
    ),
    (
        413_832,
        "part of a session became whole where others held it by then, and its copy was dropped by nobody",
    ),
    (
        428_702,
        "who asked for an id that nobody knew kept its end for longer than the node that had left it there",
    ),
    (501_934, "a node was alone for a moment, and denied what a member had that was back when it said so"),
    (519_109, "sessions expired as nodes that had stood still went on, and passes moved their ends"),
    (
        531_565,
        "a look-up was answered after the view had changed, and nothing noted that the copy did not belong here",
    ),
    (
        553_226,
        "what had ended by idleness on one side of a cut was denied there before the sides had compared",
    ),
    (558_927, "part of a session remained where all others knew only that it had ended by idleness"),
    (582_361, "a login that came too late took its new id back just before all ends were waited for"),
    (53_022, "a holder that had not compared yet denied a session that was on its way to it"),
    (54_494, "one that slept past the horizon while it joined brought back what it had been given before"),
    (54_897, "all who knew an end were lost at once, and who had handed it on to them did not tell it again"),
    (
        57_786,
        "a visitor that knew of a logout dropped the end in the moment in which all holders that knew it died",
    ),
    (58_733, "a node denied a session that had come to it from beyond a cut and not yet to its holders"),
    (61_982, "an access on a node that was told of the session late was not told, and the session expired"),
    (71_044, "a node that left handed over one by one only once, and other members were ready since"),
    (73_859, "the end of an id that nobody on this side of a cut knew reached only those it met first"),
    (76_820, "the same: the node beyond the cut kept the session that it had been asked for"),
    (80_309, "a node that left waited for others to agree to an end by idleness, of which one knew better"),
];
