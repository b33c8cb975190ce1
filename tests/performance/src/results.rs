//! Figures by what they are of.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    figures: BTreeMap<(String, String), Figure>,
    targets: Vec<Target>,
    floors: Vec<Floor>,
    left_out: Vec<String>,
    /// In the order in which they came.
    tables: Vec<Table>,
}

/// One thing, measured some times.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figure {
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
}

/// A figure that is to be reached, as a ratio to another of the same run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) what: String,
    /// How it comes about, with the numbers.
    pub(crate) shown: String,
    pub(crate) met: bool,
}

/// What a target's arithmetic gives on this machine for something that does none of sessionmesh's work.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Floor {
    /// Of which target.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) shown: String,
}

/// Rows for the report.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) systems: Vec<String>,
    pub(crate) note: &'static str,
}

impl Figure {
    pub(crate) fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => values[n / 2],
            n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
        }
    }

    pub(crate) fn least(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn most(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The median with the least and the most.
    pub(crate) fn shown(&self) -> String {
        if self.values.is_empty() {
            return "-".into();
        }
        let one = |value: f64| number(value);
        if self.values.len() == 1 {
            return format!("{} {}", one(self.median()), self.unit).trim_end().to_owned();
        }
        format!("{} {} ({}..{})", one(self.median()), self.unit, one(self.least()), one(self.most()))
    }
}

/// With as many digits as mean something.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        let digits = format!("{value:.0}");
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
        let mut out = String::new();
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n) % 3 == 0 {
                out.push(',');
            }
            out.push(digit);
        }
        format!("{sign}{out}")
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

impl Results {
    /// One more measurement.
    pub(crate) fn add(&mut self, system: &str, what: &str, unit: &'static str, value: f64) {
        let figure = self.figures.entry((system.into(), what.into())).or_default();
        figure.unit = unit;
        figure.values.push(value);
        eprintln!("   {system}: {what} {} {unit}", number(value));
    }

    pub(crate) fn figure(&self, system: &str, what: &str) -> Option<&Figure> {
        self.figures.get(&(system.to_owned(), what.to_owned()))
    }

    /// Its median; NaN if it was not measured.
    pub(crate) fn median(&self, system: &str, what: &str) -> f64 {
        self.figure(system, what).map_or(f64::NAN, Figure::median)
    }

    /// `value` must be at most `bound`; what was not measured is no target.
    pub(crate) fn at_most(&mut self, name: &'static str, what: &str, value: f64, bound: f64, unit: &str) {
        self.target(name, what, value, bound, unit, value <= bound, "at most");
    }

    /// `value` must be at least `bound`.
    pub(crate) fn at_least(&mut self, name: &'static str, what: &str, value: f64, bound: f64, unit: &str) {
        self.target(name, what, value, bound, unit, value >= bound, "at least");
    }

    #[expect(clippy::too_many_arguments, reason = "of two callers, both above")]
    fn target(
        &mut self,
        name: &'static str,
        what: &str,
        value: f64,
        bound: f64,
        unit: &str,
        met: bool,
        is: &str,
    ) {
        if value.is_nan() || bound.is_nan() {
            self.leave_out(&format!("{name}, {what}: a figure that it needs was not measured"));
            return;
        }
        let shown = format!("{} {unit}, {is} {} {unit}", number(value), number(bound));
        let shown = shown.replace(" ,", ",").trim_end().to_owned();
        eprintln!("   {} {name} {what}: {shown}", if met { "met" } else { "NOT MET" });
        self.targets.push(Target { name, what: what.into(), shown, met });
    }

    /// The median of what `of` makes of the figures of each round: those of one round lie seconds apart, and a shared
    /// machine is not as fast all the time.
    pub(crate) fn by_round<const N: usize>(
        &self,
        what: &str,
        systems: [&str; N],
        of: impl Fn([f64; N]) -> f64,
    ) -> f64 {
        self.of_rounds(systems.map(|system| (system, what)), of)
    }

    /// As [`Self::by_round`], of any figures: systems and what was measured of them.
    pub(crate) fn of_rounds<const N: usize>(
        &self,
        figures: [(&str, &str); N],
        of: impl Fn([f64; N]) -> f64,
    ) -> f64 {
        let figures =
            figures.map(|(system, what)| self.figure(system, what).map_or(&[][..], |figure| &figure.values));
        let rounds = figures.iter().map(|values| values.len()).min().unwrap_or(0);
        let values = (0..rounds).map(|round| of(figures.map(|values| values[round]))).collect();
        Figure { unit: "", values }.median()
    }

    pub(crate) fn leave_out(&mut self, what: &str) {
        eprintln!("   LEFT OUT: {what}");
        if !self.left_out.iter().any(|left| left == what) {
            self.left_out.push(what.into());
        }
    }

    pub(crate) fn table(
        &mut self,
        title: &str,
        columns: &[&'static str],
        systems: &[&str],
        note: &'static str,
    ) {
        let measured = |system: &&&str| columns.iter().any(|column| self.figure(system, column).is_some());
        let systems: Vec<String> =
            systems.iter().filter(measured).map(|system| (*system).to_owned()).collect();
        self.tables.push(Table { title: title.into(), columns: columns.to_vec(), systems, note });
    }

    /// What a target can't be better than here, if it was measured.
    pub(crate) fn floor(&mut self, name: &'static str, what: &'static str, value: f64, unit: &str) {
        if value.is_nan() {
            return;
        }
        let shown = format!("{} {unit}", number(value));
        eprintln!("   floor of {name}, {what}: {shown}");
        self.floors.push(Floor { name, what, shown });
    }

    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub(crate) fn floors(&self) -> &[Floor] {
        &self.floors
    }

    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    pub(crate) fn tables(&self) -> &[Table] {
        &self.tables
    }

    pub(crate) fn figures(&self) -> impl Iterator<Item = (&str, &str, &Figure)> {
        self.figures.iter().map(|((system, what), figure)| (system.as_str(), what.as_str(), figure))
    }
}
