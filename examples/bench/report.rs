//! The results: rows of a table, and the progress while they are measured.

use std::fmt::Debug;

use anyhow::Result;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

/// A line of the table. All figures are one per round.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) figures: Vec<f64>,
    pub(crate) baseline: Option<(String, Vec<f64>)>,
    pub(crate) target: Target,
    /// The figure that counts: the median, unless the row is about the slowest.
    pub(crate) quantile: f64,
    /// Whether the chart shows this row and its baseline.
    pub(crate) is_charted: bool,
}

/// Applies to the ratio if there is a baseline, else to the figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    None,
    AtLeast(f64),
    AtMost(f64),
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, target: Target) -> Self {
        Self {
            what: what.into(),
            unit,
            figures: Vec::new(),
            baseline: None,
            target,
            quantile: 0.5,
            is_charted: false,
        }
    }

    /// The ratio of each round. Noise that lasts for a round is in both figures, so this is
    /// steadier than the ratio of the medians.
    pub(crate) fn ratios(&self) -> Option<Vec<f64>> {
        let (_, baseline) = self.baseline.as_ref()?;
        let rounds = self.figures.iter().zip(baseline);
        Some(rounds.map(|(figure, baseline)| figure / baseline).collect())
    }

    fn cells(&self) -> [String; 6] {
        let show = |figures: &[f64]| {
            let [figure, least, most] =
                [self.quantile, 0.0, 1.0].map(|share| number(quantile(figures, share)));
            match figures.len() {
                1 => figure,
                _ => format!("{figure} ({least}–{most})"),
            }
        };
        let ratios = self.ratios();
        let judged = quantile(ratios.as_ref().unwrap_or(&self.figures), self.quantile);
        let (target, is_met) = match self.target {
            Target::None => (String::new(), ""),
            Target::AtLeast(bound) => (format!("≥ {}", number(bound)), yes(judged >= bound)),
            Target::AtMost(bound) => (format!("≤ {}", number(bound)), yes(judged <= bound)),
        };
        let baseline = self.baseline.as_ref();
        [
            self.what.clone(),
            format!("{} {}", show(&self.figures), self.unit),
            baseline.map_or_else(String::new, |(name, it)| format!("{name}: {}", show(it))),
            ratios.map_or_else(String::new, |ratios| show(&ratios)),
            target,
            is_met.to_owned(),
        ]
    }
}

fn yes(is_met: bool) -> &'static str {
    if is_met { "yes" } else { "**no**" }
}

/// Interpolates between the two nearest rounds.
pub(crate) fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let position = share * (sorted.len() - 1) as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

/// Three digits at least: `0.28`, `13.6`, `1,234`.
pub(crate) fn number(figure: f64) -> String {
    match figure {
        100.0.. => HumanCount(figure.round() as u64).to_string(),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    rounds: usize,
    progress: ProgressBar,
}

impl Report {
    pub(crate) fn new(sections: usize, rounds: usize) -> Self {
        let style = ProgressStyle::with_template("[{pos}/{len} {elapsed}] {msg}");
        let progress = ProgressBar::new(sections as u64);
        progress.set_style(style.expect("the template is valid"));
        Self {
            rows: Vec::new(),
            rounds,
            progress,
        }
    }

    /// Shown on a terminal and in a log.
    pub(crate) fn section(&self, name: &str) {
        self.progress.suspend(|| eprintln!("measuring {name}"));
        self.progress.inc(1);
    }

    /// Shown on a terminal only.
    pub(crate) fn step(&self, message: impl Into<String>) {
        self.progress.set_message(message.into());
    }

    /// Measures `variants` in turn, round by round, so that noise hits all of them alike.
    /// Returns the figures of each.
    pub(crate) async fn rounds<V: Copy + Debug>(
        &self,
        variants: &[V],
        mut measure: impl AsyncFnMut(V) -> Result<f64>,
    ) -> Result<Vec<Vec<f64>>> {
        let mut figures = vec![Vec::new(); variants.len()];
        for round in 1..=self.rounds {
            for (&variant, figures) in variants.iter().zip(&mut figures) {
                self.step(format!("{variant:?}, round {round} of {}", self.rounds));
                figures.push(measure(variant).await?);
            }
        }
        Ok(figures)
    }

    /// Measures a row without a baseline.
    pub(crate) async fn measure(
        &mut self,
        mut row: Row,
        mut measure: impl AsyncFnMut() -> Result<f64>,
    ) -> Result<()> {
        let name = row.what.clone();
        let measure = async |_: &str| measure().await;
        row.figures = self.rounds(&[&*name], measure).await?.remove(0);
        self.rows.push(row);
        Ok(())
    }

    /// Measures a row and its baseline in turn.
    pub(crate) async fn compare(
        &mut self,
        mut row: Row,
        baseline: &str,
        mut of_baseline: impl AsyncFnMut() -> Result<f64>,
        mut of_queue: impl AsyncFnMut() -> Result<f64>,
    ) -> Result<()> {
        let measure = async |is_baseline| match is_baseline {
            true => of_baseline().await,
            false => of_queue().await,
        };
        let mut figures = self.rounds(&[true, false], measure).await?;
        row.figures = figures.remove(1);
        row.baseline = Some((baseline.to_owned(), figures.remove(0)));
        self.rows.push(row);
        Ok(())
    }

    /// The table in Markdown, which is readable on a terminal as well.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["what", "measured", "beside", "ratio", "target", "met"]);
        table.add_rows(self.rows.iter().map(Row::cells));
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated() {
        let quantiles = [0.0, 0.5, 1.0].map(|share| quantile(&[4.0, 1.0, 3.0, 2.0], share));
        assert_eq!(quantiles, [1.0, 2.5, 4.0]);
    }

    #[test]
    fn a_row_shows_the_median_the_spread_and_the_ratio_per_round() {
        let mut row = Row::new("lease", "messages/s", Target::AtLeast(3.0));
        row.figures = vec![12_000.0, 15_000.0, 36_000.0];
        row.baseline = Some(("raw".to_owned(), vec![4000.0, 5000.0, 9000.0]));
        let expected = [
            "lease",
            "15,000 (12,000–36,000) messages/s",
            "raw: 5,000 (4,000–9,000)",
            "3.00 (3.00–4.00)",
            "≥ 3.00",
            "yes",
        ];
        assert_eq!(row.cells(), expected);
    }

    #[test]
    fn a_row_about_the_slowest_is_judged_by_them() {
        let mut row = Row::new("wake-up", "ms", Target::AtMost(60.0));
        row.figures = (0..=100).map(f64::from).collect();
        assert_eq!(row.cells()[5], "yes");
        row.quantile = 0.99;
        assert_eq!(row.cells()[5], "**no**");
    }
}
