//! What was measured, round by round, and what that comes to.

use serde::Serialize;

/// The figure of each round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn one(figure: f64) -> Self {
        Self(vec![figure])
    }

    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Smallest and largest: with a handful of rounds, quartiles would say less.
    pub(crate) fn spread(&self) -> (f64, f64) {
        (self.quantile(0.0), self.quantile(1.0))
    }

    /// The figure below which `share` of the rounds are, between two of them by proportion.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else {
            return f64::NAN;
        };
        let place = share * last as f64;
        let (below, above) = (
            sorted[place.floor() as usize],
            sorted[place.ceil() as usize],
        );
        below + (above - below) * place.fract()
    }

    /// How many times the baseline each round was. Noise that lasted for a round was in both, so
    /// the ratio of a round says more than the ratio of two medians.
    pub(crate) fn ratio_to(&self, baseline: &Self) -> Self {
        assert_eq!(self.len(), baseline.len(), "rounds come in pairs");
        let pairs = self.0.iter().zip(&baseline.0);
        Self(
            pairs
                .map(|(measured, baseline)| measured / baseline)
                .collect(),
        )
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(figures: &[f64]) -> Samples {
        figures.iter().copied().collect()
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(samples(&[9.0, 1.0, 5.0]).median(), 5.0);
        assert_eq!(samples(&[4.0, 1.0, 3.0, 2.0]).median(), 2.5);
        assert_eq!(Samples::one(7.0).median(), 7.0);
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn quantiles_lie_between_the_extremes() {
        let hundred: Samples = (0..=100).map(f64::from).collect();
        assert_eq!(hundred.spread(), (0.0, 100.0));
        assert_eq!(hundred.quantile(0.99), 99.0);
        assert_eq!(samples(&[0.0, 10.0]).quantile(0.25), 2.5);
    }

    #[test]
    fn a_ratio_is_that_of_each_round() {
        // The second round was twice as slow for both.
        let ratio = samples(&[30.0, 15.0]).ratio_to(&samples(&[10.0, 5.0]));
        assert_eq!(ratio, samples(&[3.0, 3.0]));
    }
}
