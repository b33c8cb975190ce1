//! What a seed decides before anything happens.

use std::time::Duration;

use clap::ValueEnum;
use sessionmesh::{AckLevel, Config};

use crate::faults::{CUT, FAULTS, PAUSE, SLOW};

/// What a seed stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Anything may happen.
    #[default]
    Any,
    /// Clusters that are cut in two and whole again, all the time.
    Merging,
    /// Clusters to which nothing happens but that nodes stand still, at times for longer than the horizon.
    Pausing,
    /// The same, all of them past a short horizon, and what they say to each other is long on its way.
    Distant,
}

impl Kind {
    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().unwrap().get_name().to_owned()
    }

    /// The scenario of a seed.
    pub(crate) fn of(self, seed: u64) -> Scenario {
        match self {
            Kind::Any => Scenario::of(seed),
            Kind::Merging => Scenario::merging(seed),
            Kind::Pausing => Scenario::pausing(seed),
            Kind::Distant => Scenario::distant(seed),
        }
    }
}

/// One simulation's parameters.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) backup_only: bool,
    pub(crate) copies: u8,
    pub(crate) by_seeds: bool,
    pub(crate) frequency: Duration,
    pub(crate) drop_time: Duration,
    pub(crate) idle: Duration,
    pub(crate) horizon: Duration,
    pub(crate) session_bytes: u64,
    /// Values are long: outboxes overflow.
    pub(crate) heavy: bool,
    pub(crate) users: usize,
    pub(crate) think: Duration,
    /// How long there is load and trouble.
    pub(crate) trouble: Duration,
    /// Between faults; none at all in some.
    pub(crate) calm: Option<Duration>,
    pub(crate) lost_per_mille: u32,
    pub(crate) jitter: Duration,
    /// Only one kind of fault, again and again: nothing else mends what it breaks.
    pub(crate) focus: Option<u32>,
    /// Sessions that are there before anything happens: passes take their time.
    pub(crate) stock: usize,
    /// Routine passes come too seldom to mend anything.
    pub(crate) rare_passes: bool,
    /// Each start runs this protocol version or the next.
    pub(crate) skew: bool,
}

impl Scenario {
    fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5ce9_a210);
        let backup_only = random.bool();
        // Small clusters find most; now and then a large one.
        let nodes = if random.u32(0..12) == 0 { random.usize(6..=12) } else { random.usize(2..=5) };
        let short_horizon = random.u32(0..8) == 0;
        // Values are long, users quick: what waits for a slow member overflows.
        let heavy = random.u32(0..6) == 0;
        // Cuts longer than a short horizon must have their time.
        let frequency = Duration::from_millis(random.u64(50..=if short_horizon { 100 } else { 300 }));
        let drop_time = frequency * random.u32(4..=if short_horizon { 5 } else { 10 });
        Self {
            seed,
            nodes,
            backup_only,
            copies: if backup_only { random.u8(1..=2) } else { 1 },
            by_seeds: random.u32(0..3) == 0,
            frequency,
            drop_time,
            idle: if random.u32(0..4) == 0 {
                Duration::from_millis(random.u64(2_000..8_000))
            } else {
                Duration::from_secs(1_800)
            },
            horizon: if short_horizon { drop_time * 20 } else { Duration::from_secs(86_400) },
            session_bytes: if heavy || random.u32(0..3) > 0 { 64 << 10 } else { 8 << 10 },
            heavy,
            users: random.usize(1..=6),
            think: Duration::from_millis(random.u64(5..=if heavy { 40 } else { 120 })),
            trouble: Duration::from_secs(random.u64(5..=25) * if short_horizon { 2 } else { 1 }),
            calm: (random.u32(0..10) > 0).then(|| Duration::from_millis(random.u64(100..=4_000))),
            lost_per_mille: if random.bool() { random.u32(0..=300) } else { 0 },
            jitter: {
                let most = if random.bool() { 500 } else { 20_000 };
                Duration::from_micros(random.u64(50..=most))
            },
            focus: match random.u32(0..6) {
                0 => Some(random.u32(0..FAULTS)),
                1..=3 if heavy => Some(SLOW),
                _ => None,
            },
            stock: if random.u32(0..6) == 0 { random.usize(50..=400) } else { 0 },
            skew: random.u32(0..4) == 0,
            rare_passes: random.bool(),
        }
    }

    /// With sessions enough that comparing takes a while, and users who do not wait.
    fn merging(seed: u64) -> Self {
        let of = Self::of(seed);
        Self {
            nodes: of.nodes.max(4),
            backup_only: true,
            copies: 1,
            users: 6,
            think: Duration::from_millis(5),
            heavy: false,
            calm: Some(Duration::from_secs(1)),
            lost_per_mille: 0,
            focus: Some(CUT),
            stock: 200,
            ..of
        }
    }

    /// With sessions that end soon, so that their ends are forgotten soon.
    fn pausing(seed: u64) -> Self {
        let of = Self::of(seed);
        // Half of them forget each other soon.
        let (frequency, drop_time, horizon) = match seed % 2 {
            0 => (of.frequency / 3, of.frequency * 2, of.frequency * 40),
            _ => (of.frequency, of.drop_time, of.horizon),
        };
        Self {
            frequency,
            drop_time,
            horizon,
            trouble: Duration::from_secs(30),
            idle: Duration::from_secs(2),
            heavy: false,
            calm: Some(Duration::from_secs(1)),
            focus: Some(PAUSE),
            ..of
        }
    }

    /// Whoever starts empty has often said before who it was, to one who hears it after.
    fn distant(seed: u64) -> Self {
        let of = Self::pausing(seed);
        let drop_time = Duration::from_millis(200);
        Self {
            frequency: Duration::from_millis(30),
            drop_time,
            horizon: drop_time * 20,
            nodes: of.nodes.clamp(3, 5),
            jitter: Duration::from_millis(40),
            lost_per_mille: 0,
            ..of
        }
    }

    /// A large cluster to which nothing happens.
    pub(crate) fn large(seed: u64, nodes: usize, backup_only: bool) -> Self {
        Self {
            nodes,
            backup_only,
            copies: 1,
            by_seeds: false,
            frequency: Duration::from_millis(500),
            drop_time: Duration::from_secs(3),
            idle: Duration::from_secs(1_800),
            horizon: Duration::from_secs(86_400),
            session_bytes: 64 << 10,
            heavy: false,
            users: 0,
            calm: None,
            lost_per_mille: 0,
            jitter: Duration::from_micros(300),
            focus: None,
            stock: 0,
            skew: false,
            rare_passes: true,
            ..Self::of(seed)
        }
    }

    /// The configuration of the node on this host.
    pub(crate) fn config(&self, name: &str) -> Config {
        let mut config = Config::new();
        let ms = |duration: Duration| format!("{}ms", duration.as_millis());
        let bytes = self.session_bytes;
        let mut options = vec![
            ("name", name.to_owned()),
            ("secret", "0123456789abcdef".into()),
            ("frequency", ms(self.frequency)),
            ("drop_time", ms(self.drop_time)),
            ("join_wait", ms(self.frequency * 4)),
            ("idle", ms(self.idle)),
            ("horizon", ms(self.horizon)),
            ("session_bytes", bytes.to_string()),
            ("frame_bytes", self.outbox_bytes().to_string()),
            ("outbox_bytes", self.outbox_bytes().to_string()),
            ("pass_interval", if self.rare_passes { "60s" } else { "5s" }.into()),
            ("max_members", if self.nodes > 64 { "224" } else { "64" }.into()),
            ("mode", if self.backup_only { "backup-only" } else { "all-peers" }.into()),
        ];
        if self.backup_only {
            options.push(("copies", self.copies.to_string()));
        }
        if self.by_seeds {
            let seeds: Vec<String> =
                (1..=self.nodes.min(3)).map(|host| format!("10.0.0.{host}:4000")).collect();
            options.push(("seeds", seeds.join(",")));
            // What is off may be off for good: the operator knows better than to wait for it.
            options.push(("found", "true".into()));
        }
        for (key, value) in options {
            config.set(key, &value).unwrap();
        }
        config
    }

    /// Cuts longer than the horizon can happen.
    pub(crate) fn has_short_horizon(&self) -> bool {
        self.horizon < self.trouble
    }

    /// Sessions end by idleness while it lasts.
    pub(crate) fn has_short_idle(&self) -> bool {
        self.idle < Duration::from_secs(60)
    }

    /// How long after its idle limit a session may live on a node that hears all others, and be found: the touch
    /// interval, `drop_time`, and the pauses between two sweeps and two looks of this program.
    pub(crate) fn latest_end(&self) -> Duration {
        self.idle / 10 + self.drop_time + self.idle / 10 + Duration::from_secs(1)
    }

    /// The least that a node takes.
    pub(crate) fn outbox_bytes(&self) -> u64 {
        (self.session_bytes * 2).max(256 << 10)
    }

    /// How many nodes hold each session, if so many are ready.
    pub(crate) fn holders(&self, ready: usize) -> usize {
        if self.backup_only { ready.min(usize::from(self.copies) + 1) } else { ready }
    }
}

/// Any level.
pub(crate) fn level(random: &mut fastrand::Rng) -> AckLevel {
    [AckLevel::Async, AckLevel::One, AckLevel::All][random.usize(0..3)]
}
