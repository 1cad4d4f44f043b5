//! Counts the commands that are sent, and bounds them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use queue_docdb::mongodb::event::{EventHandler, command::CommandEvent};
use tokio::time::Instant;

use crate::commands::pause;

const WINDOW: Duration = Duration::from_secs(1);

/// The most that one look at a queue takes: stats, and what a call looks at once a minute.
pub(super) const LARGEST_LOOK: usize = 12;

/// What the program itself sends in a second. The driver's checks of the servers are not commands.
pub(super) struct Meter {
    pub(super) budget: usize,
    sent: Mutex<VecDeque<Instant>>,
}

impl Meter {
    pub(super) fn new(budget: usize) -> Arc<Self> {
        Arc::new(Self {
            budget,
            sent: Mutex::default(),
        })
    }

    pub(super) fn handler(self: &Arc<Self>) -> EventHandler<CommandEvent> {
        let meter = Arc::clone(self);
        EventHandler::callback(move |event| {
            if let CommandEvent::Started(_) = event {
                meter.count(Instant::now());
            }
        })
    }

    fn count(&self, at: Instant) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push_back(at);
    }

    pub(super) fn in_last_second(&self, now: Instant) -> usize {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        while sent
            .front()
            .is_some_and(|at| now.duration_since(*at) > WINDOW)
        {
            sent.pop_front();
        }
        sent.len()
    }

    /// Returns once a look fits into the budget, so no second has more than that.
    pub(super) async fn room(&self) {
        while self.in_last_second(Instant::now()) + LARGEST_LOOK > self.budget {
            pause(Duration::from_millis(10)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_second_counts() {
        let (meter, began) = (Meter::new(20), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        for ms in [0, 500, 900] {
            meter.count(at(ms));
        }
        assert_eq!(meter.in_last_second(at(1000)), 3);
        assert_eq!(meter.in_last_second(at(1001)), 2);
        assert_eq!(meter.in_last_second(at(5000)), 0);
    }
}
