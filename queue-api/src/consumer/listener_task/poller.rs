//! Decides when to call the backend for messages.

use std::{
    future::pending,
    mem,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use super::{
    batcher::{BoxFuture, boxed_call},
    leases::after,
};
use crate::{
    Clock, Delivery, Error, ErrorKind, LeaseOptions, Queue, Result, TokioClock,
    consumer::backoff::Backoff,
};

/// The longest wait of an idle listener, from 20 to 30 seconds. A wake-up is only a hint, so this
/// bounds the delay after a lost one. The jitter spreads the calls of listeners that started together.
fn longest_wait() -> Duration {
    Duration::from_secs(20) + Duration::from_secs(10).mul_f64(fastrand::f64())
}

/// A call that takes longer is overdue, or the process was suspended. It is twice the longest
/// documented one: one through `Batching` may take three times the operation timeout of 10 s.
pub(crate) const LONGEST_CALL: Duration = Duration::from_secs(60);

/// An overdue call is given up after this time. After a suspension, its answer may be there already.
pub(crate) const CALL_GRACE: Duration = Duration::from_secs(10);

/// Gets the result of a lease call that begins after the probe was sent.
pub(crate) type Probe = oneshot::Sender<ProbeAnswer>;

/// The result of a lease call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeAnswer {
    NothingReady,
    SomethingLeased,
}

/// Makes lease and wait calls, at most one at a time.
pub(crate) struct Poller {
    state: State,
    /// Pauses after errors.
    after_error: Backoff,
    /// Pauses after wake-ups that led to no message, because other consumers were faster.
    after_miss: Backoff,
    /// The last wait ended early, so a message may be ready.
    woken: bool,
    pub(crate) probe: Option<Probe>,
}

enum State {
    Idle,
    Leasing {
        sent: SystemTime,
        /// When it is given up. `None` until it is overdue.
        deadline: Option<SystemTime>,
        probe: Option<Probe>,
        call: BoxFuture<Result<Vec<Delivery>>>,
    },
    Waiting {
        until: SystemTime,
        deadline: Option<SystemTime>,
        call: BoxFuture<Result<()>>,
    },
    /// By the listener's clock and by real time, whichever is first: the listener's may stand still.
    Pausing {
        until: SystemTime,
        pause: BoxFuture<()>,
    },
}

/// A call of the poller that has returned.
pub(crate) enum Polled {
    Leased {
        sent: SystemTime,
        probe: Option<Probe>,
        answer: Result<Vec<Delivery>>,
    },
    Waited {
        until: SystemTime,
        answer: Result<()>,
    },
    Paused,
}

impl Poller {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Idle,
            after_error: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            after_miss: Backoff::new(Duration::from_millis(5), Duration::from_secs(1)),
            woken: false,
            probe: None,
        }
    }

    pub(crate) fn is_leasing(&self) -> bool {
        matches!(self.state, State::Leasing { .. })
    }

    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        match self.state {
            State::Idle => None,
            State::Pausing { until, .. } => Some(until),
            State::Leasing { sent, deadline, .. } => {
                Some(deadline.unwrap_or_else(|| after(sent, LONGEST_CALL)))
            }
            State::Waiting {
                until, deadline, ..
            } => Some(deadline.unwrap_or(until)),
        }
    }

    /// Gives up a call that hangs, because nothing would be claimed again. It may still take effect:
    /// then its messages come back after their visibility timeout.
    pub(crate) fn take_overdue(&mut self, now: SystemTime) -> Option<Polled> {
        if self.next_due()? > now {
            return None;
        }
        let (State::Leasing { deadline, .. } | State::Waiting { deadline, .. }) = &mut self.state
        else {
            return None;
        };
        if deadline.is_none() {
            *deadline = Some(after(now, CALL_GRACE));
            return None;
        }
        let hangs = |operation| {
            let message = "the store did not answer in time";
            Error::new(ErrorKind::TimedOut, operation, message)
        };
        match mem::replace(&mut self.state, State::Idle) {
            State::Leasing { sent, probe, .. } => Some(Polled::Leased {
                sent,
                probe,
                answer: Err(hangs("lease")),
            }),
            State::Waiting { until, .. } => Some(Polled::Waited {
                until,
                answer: Err(hangs("wait")),
            }),
            State::Idle | State::Pausing { .. } => None,
        }
    }

    /// Ends a pause that is over. Returns whether a lease call can be sent now.
    pub(crate) fn can_lease(&mut self, now: SystemTime) -> bool {
        if matches!(self.state, State::Pausing { until, .. } if until <= now) {
            self.state = State::Idle;
        }
        matches!(self.state, State::Idle)
    }

    pub(crate) fn lease(&mut self, queue: &Queue, options: LeaseOptions, now: SystemTime) {
        let queue = queue.clone();
        self.state = State::Leasing {
            sent: now,
            deadline: None,
            probe: self.probe.take(),
            call: boxed_call("lease", async move { queue.lease_batch(&options).await }),
        };
    }

    /// Makes the next lease call answer `probe`.
    pub(crate) fn set_probe(&mut self, probe: Probe) {
        self.probe = Some(probe);
        self.end_wait();
    }

    /// Ends a wait or a pause. A lease call goes on, because its leases must be released.
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

    /// Waits for the call in flight. Dropping this future does not drop the call.
    pub(crate) async fn completed(&mut self) -> Polled {
        let polled = match &mut self.state {
            State::Idle => pending().await,
            State::Pausing { pause, .. } => {
                pause.await;
                Polled::Paused
            }
            State::Leasing {
                sent, probe, call, ..
            } => {
                let answer = call.await;
                let (sent, probe) = (*sent, probe.take());
                Polled::Leased {
                    sent,
                    probe,
                    answer,
                }
            }
            State::Waiting { until, call, .. } => {
                let answer = call.await;
                let until = *until;
                Polled::Waited { until, answer }
            }
        };
        self.state = State::Idle;
        polled
    }

    pub(crate) fn leased_some(&mut self) {
        self.after_error.reset();
        self.after_miss.reset();
        self.woken = false;
    }

    /// Waits until a message may be ready. If the last wait ended early and led to no message, there
    /// are more consumers than messages, so this pauses instead, longer each time.
    pub(crate) fn leased_none(&mut self, queue: &Queue, now: SystemTime) {
        if self.probe.is_some() {
            // The probe was sent after the lease call, so it needs another one.
            return;
        }
        if mem::take(&mut self.woken) {
            let pause = self.after_miss.next();
            return self.pause(now, pause);
        }
        let (queue, at_most) = (queue.clone(), longest_wait());
        self.state = State::Waiting {
            until: after(now, at_most),
            deadline: None,
            call: boxed_call("wait", async move { queue.wait(at_most).await }),
        };
    }

    /// A wait succeeded. An empty lease call does not reset the pause after errors: if leases work
    /// and waits fail, an empty queue must not be polled without a pause.
    pub(crate) fn waited(&mut self, until: SystemTime, now: SystemTime) {
        self.after_error.reset();
        self.woken = now < until;
    }

    /// Pauses after an error: longer each time, or the longest pause at once if the error does not
    /// pass by itself.
    pub(crate) fn failed(&mut self, error: &Error, now: SystemTime) {
        let pause = if error.is_retryable() {
            self.after_error.next()
        } else {
            self.after_error.longest()
        };
        self.pause(now, pause);
    }

    fn pause(&mut self, now: SystemTime, time: Duration) {
        let clock = TokioClock::new();
        self.state = State::Pausing {
            until: after(now, time),
            pause: Box::pin(async move { clock.sleep_until(after(clock.now(), time)).await }),
        };
    }
}
