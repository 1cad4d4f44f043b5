//! What a worker does with one message.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{Instrument, Span};

use super::{
    Context, Failure, Handler, Lease, Report, Retry, RetryPolicy, lease::SettleFuture,
    listener_task::after, panic::caught,
};
use crate::{Clock, Codec, LeaseOutcome, Queue, TokioClock, metrics, trace};

/// What all jobs of a worker share.
pub(super) struct HandlerRunner<H, C> {
    queue: Queue,
    handler: Arc<H>,
    codec: Arc<C>,
    clock: Arc<dyn Clock>,
    pub(super) retry: RetryPolicy,
    pub(super) time_limit: Option<Duration>,
}

/// How a job ended.
enum Ended {
    Handled,
    Failed(Failure),
    Cancelled,
}

impl<H, C> HandlerRunner<H, C> {
    pub(super) fn new(queue: Queue, handler: H, codec: C) -> Self {
        Self {
            queue,
            handler: Arc::new(handler),
            codec: Arc::new(codec),
            clock: Arc::new(TokioClock::new()),
            retry: RetryPolicy::default(),
            time_limit: None,
        }
    }

    pub(super) fn with_codec<D>(self, codec: D) -> HandlerRunner<H, D> {
        HandlerRunner {
            queue: self.queue,
            handler: self.handler,
            codec: Arc::new(codec),
            clock: self.clock,
            retry: self.retry,
            time_limit: self.time_limit,
        }
    }

    pub(super) fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Handles one message from its decoding to the outcome of its settlement.
    pub(super) async fn handle<T>(
        &self,
        lease: Lease,
        stopping: watch::Receiver<bool>,
        cancelled: watch::Receiver<bool>,
    ) -> Report
    where
        T: Send + 'static,
        H: Handler<T>,
        C: Codec<T>,
    {
        let span = trace::process_span(self.queue.name(), lease.delivery());
        if let Some(propagator) = self.queue.propagator() {
            propagator.link(&span, lease.headers());
        }
        let started = self.clock.now();
        let work = self.work::<T>(&lease, stopping, cancelled);
        let ended = work.instrument(span.clone()).await;
        let outcome = match ended {
            Ended::Handled => "handled",
            Ended::Failed(_) => "failed",
            Ended::Cancelled => "cancelled",
        };
        let took = self.clock.now().duration_since(started);
        metrics::handling_time(self.queue.name(), outcome, took.unwrap_or_default());
        self.settle(lease, ended, &span)
            .instrument(span.clone())
            .await
    }

    async fn work<T>(
        &self,
        lease: &Lease,
        stopping: watch::Receiver<bool>,
        mut cancelled: watch::Receiver<bool>,
    ) -> Ended
    where
        T: Send + 'static,
        H: Handler<T>,
        C: Codec<T>,
    {
        let decoded = caught(|| async { self.codec.decode(lease.payload()) }).await;
        let message = match decoded {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return undecodable(Failure::give_up(error)),
            Err(panic) => return undecodable(Failure::give_up(panic)),
        };
        let context = Context::new(lease, stopping);
        let handled = caught(|| self.handler.handle(message, context));
        let time_limit = async {
            match self.time_limit {
                Some(limit) => {
                    let deadline = after(self.clock.now(), limit);
                    self.clock.sleep_until(deadline).await;
                    limit
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What has come to its end in time has, even if nobody looked in time.
            biased;
            handled = handled => match handled {
                Ok(Ok(())) => Ended::Handled,
                Ok(Err(failure)) => Ended::Failed(failure),
                Err(panic) => Ended::Failed(Failure::retry(panic)),
            },
            limit = time_limit => {
                Ended::Failed(Failure::retry(format!("it took longer than {limit:?}")))
            }
            _ = cancelled.wait_for(|cancelled| *cancelled) => Ended::Cancelled,
        }
    }

    async fn settle(&self, lease: Lease, ended: Ended, span: &Span) -> Report {
        match ended {
            Ended::Handled => tally(lease.ack(), |report| &mut report.handled).await,
            Ended::Cancelled => tally(lease.release(), |report| &mut report.returned).await,
            Ended::Failed(failure) => {
                let (attempt, most) = (lease.attempt(), lease.max_attempts());
                let retry = self.retry.decide(attempt, most, &failure);
                span.record("error.type", "handler");
                tracing::warn!(error = %failure, attempt, ?retry, "a message was not handled");
                match retry {
                    Retry::After(delay) => {
                        let delay = delay.min(self.queue.limits().max_delay);
                        tally(lease.nack(delay), |report| &mut report.failed).await
                    }
                    Retry::GiveUp => {
                        let dead = lease.dead_letter(failure.to_string());
                        tally(dead, |report| &mut report.dead_lettered).await
                    }
                }
            }
        }
    }
}

fn undecodable(failure: Failure) -> Ended {
    Ended::Failed(Failure::give_up(format!(
        "the payload cannot be decoded: {failure}"
    )))
}

/// A report of one message: `applied` counts it if the settlement was the last word.
async fn tally(answer: SettleFuture, applied: fn(&mut Report) -> &mut u64) -> Report {
    let mut report = Report::default();
    *match answer.await {
        Ok(LeaseOutcome::Applied) => applied(&mut report),
        Ok(LeaseOutcome::Lost) => &mut report.lost,
        Err(error) => {
            tracing::error!(%error, "the store was not told what became of a message");
            &mut report.unsettled
        }
    } += 1;
    report
}

impl<H, C> Clone for HandlerRunner<H, C> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            handler: self.handler.clone(),
            codec: self.codec.clone(),
            clock: self.clock.clone(),
            retry: self.retry.clone(),
            time_limit: self.time_limit,
        }
    }
}

impl<H, C: fmt::Debug> fmt::Debug for HandlerRunner<H, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerRunner")
            .field("codec", &self.codec)
            .field("retry", &self.retry)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}
