//! When to ask for messages, and when not to.

use std::{
    future::pending,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use super::{
    batcher::{BoxFuture, unpanicked},
    leases::after,
};
use crate::{Delivery, Error, LeaseOptions, Queue, Result, consumer::backoff::Backoff};

/// How long one wait of an idle listener lasts. A backend that can be told of an enqueue ends it
/// then; this bounds how long a lost wake-up goes unnoticed (a wake-up is a hint).
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Asks who has asked whether anything is ready, and since when.
pub(crate) type Probe = oneshot::Sender<ProbeAnswer>;

/// What a lease call found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeAnswer {
    NothingReady,
    SomethingLeased,
}

/// The poller: at most one call at a time, whoever asks.
pub(crate) struct Claim {
    state: State,
    /// Pauses while the store fails.
    failing: Backoff,
    /// Pauses while others are faster, again and again.
    contended: Backoff,
    /// The last wait said before its time that something may be ready.
    called: bool,
    pub(crate) probe: Option<Probe>,
}

enum State {
    Idle,
    Leasing {
        sent: SystemTime,
        probe: Option<Probe>,
        call: BoxFuture<Result<Vec<Delivery>>>,
    },
    Waiting {
        since: SystemTime,
        call: BoxFuture<Result<()>>,
    },
    Pausing {
        until: SystemTime,
    },
}

/// What a call of the poller came to.
pub(crate) enum Claimed {
    Leased {
        sent: SystemTime,
        probe: Option<Probe>,
        answer: Result<Vec<Delivery>>,
    },
    Waited {
        since: SystemTime,
        answer: Result<()>,
    },
}

impl Claim {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Idle,
            failing: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            contended: Backoff::new(Duration::from_millis(5), Duration::from_secs(1)),
            called: false,
            probe: None,
        }
    }

    pub(crate) fn is_leasing(&self) -> bool {
        matches!(self.state, State::Leasing { .. })
    }

    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        match self.state {
            State::Pausing { until } => Some(until),
            _ => None,
        }
    }

    /// Whether a lease call may be sent now, if anybody wants one.
    pub(crate) fn is_open(&mut self, now: SystemTime) -> bool {
        if matches!(self.state, State::Pausing { until } if until <= now) {
            self.state = State::Idle;
        }
        matches!(self.state, State::Idle)
    }

    /// Sends a lease call for as many as there is room for.
    pub(crate) fn lease(&mut self, queue: &Queue, options: LeaseOptions, now: SystemTime) {
        let queue = queue.clone();
        self.state = State::Leasing {
            sent: now,
            probe: self.probe.take(),
            call: unpanicked("lease", async move { queue.lease_batch(&options).await }),
        };
    }

    /// Answers `probe` after a lease call that begins after now.
    pub(crate) fn ask(&mut self, probe: Probe) {
        self.probe = Some(probe);
        self.end_wait();
    }

    /// Ends a wait or a pause. A lease call goes on, because what it leases is to be given back;
    /// a wait leases nothing, so it may be dropped.
    pub(crate) fn stop(&mut self) {
        self.end_wait();
        if matches!(self.state, State::Pausing { .. }) {
            self.state = State::Idle;
        }
    }

    fn end_wait(&mut self) {
        if matches!(self.state, State::Waiting { .. }) {
            self.state = State::Idle;
        }
    }

    /// The end of the call that is under way. Dropping this leaves the call where it is.
    pub(crate) async fn claimed(&mut self) -> Claimed {
        let claimed = match &mut self.state {
            State::Idle | State::Pausing { .. } => pending().await,
            State::Leasing { sent, probe, call } => {
                let answer = call.await;
                let (sent, probe) = (*sent, probe.take());
                Claimed::Leased {
                    sent,
                    probe,
                    answer,
                }
            }
            State::Waiting { since, call } => {
                let answer = call.await;
                let since = *since;
                Claimed::Waited { since, answer }
            }
        };
        self.state = State::Idle;
        claimed
    }

    /// Something was leased.
    pub(crate) fn found_some(&mut self) {
        self.failing.reset();
        self.contended.reset();
        self.called = false;
    }

    /// Nothing was ready, or others were faster: waits until something may be ready. Whom a wait
    /// calls again and again to find nothing pauses, longer each time, because then there are
    /// more consumers than messages, and asking faster does not make messages.
    pub(crate) fn found_nothing(&mut self, queue: &Queue, now: SystemTime) {
        if self.probe.is_some() {
            // Somebody asked while the call was under way, and what it found is older.
            return;
        }
        if std::mem::take(&mut self.called) {
            let until = after(now, self.contended.next());
            self.state = State::Pausing { until };
            return;
        }
        let queue = queue.clone();
        self.state = State::Waiting {
            since: now,
            call: unpanicked("wait", async move { queue.wait(LONGEST_WAIT).await }),
        };
    }

    /// A wait came to its end. Only this and a find end the pauses for failures: where leasing
    /// works and waiting does not, an empty queue must not be asked without a pause.
    pub(crate) fn waited(&mut self, since: SystemTime, now: SystemTime) {
        self.failing.reset();
        self.called = now < after(since, LONGEST_WAIT);
    }

    /// Leaves the store alone for a while: shortly at first where it may recover by itself, long
    /// where somebody has to do something first.
    pub(crate) fn failed(&mut self, error: &Error, now: SystemTime) {
        let pause = if error.is_retryable() {
            self.failing.next()
        } else {
            self.failing.longest()
        };
        self.state = State::Pausing {
            until: after(now, pause),
        };
    }
}
