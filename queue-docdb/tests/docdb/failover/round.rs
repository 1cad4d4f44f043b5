//! One scenario and what came of it.

use std::time::Duration;

use mongodb_test_server::MemberError;
use queue_conformance::record::Moment;

use super::scenario::Scenario;

pub(crate) struct Round {
    pub(crate) scenario: Scenario,
    /// Whether a secondary was still restarting.
    pub(crate) is_noisy: bool,
    pub(crate) began: Moment,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// Cuts need containers.
    Unavailable(MemberError),
    Measured(Times),
}

/// How long things took.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// From the failure until there is a primary, another one if the scenario replaces it.
    pub(crate) election: Duration,
    /// From then until the last consumer has acked a message.
    pub(crate) back: Duration,
    /// The longest time in which no consumer acked a message.
    pub(crate) stall: Duration,
}

impl Round {
    pub(crate) fn summary(&self) -> String {
        let noise = if self.is_noisy { ", noise" } else { "" };
        let outcome = match &self.outcome {
            Outcome::Unavailable(error) => format!("not available: {error}"),
            Outcome::Measured(times) => format!(
                "primary after {:.1} s, all consumers after {:.1} s more, longest stall {:.1} s",
                times.election.as_secs_f64(),
                times.back.as_secs_f64(),
                times.stall.as_secs_f64(),
            ),
        };
        format!("{}{noise}: {outcome}", self.scenario)
    }
}
