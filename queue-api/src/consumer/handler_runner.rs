//! Runs the handler for one message and settles it.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    Context, FailedAttempt, Failure, FailureKind, Handler, Lease, Report, Retry, RetryPolicy,
    lease::SettleFuture, listener_task::after,
};
use crate::{
    Clock, Codec, CodecError, LeaseOutcome, Queue, TokioClock,
    catch_panic::caught,
    metrics,
    telemetry::{
        log,
        trace::{self, GuardedSpan},
    },
};

/// Shared by all handler tasks of a worker.
pub(super) struct HandlerRunner<H, C> {
    queue: Queue,
    handler: Arc<H>,
    codec: Arc<C>,
    clock: Arc<dyn Clock>,
    pub(super) retry: RetryPolicy,
    pub(super) time_limit: Option<Duration>,
}

/// How a handler ended.
enum HandlerEnd {
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

    /// Decodes the message, runs the handler, and settles.
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
            span.link(propagator, lease.headers());
        }
        let started = self.clock.now();
        let running = self.run_handler::<T>(&lease, stopping, cancelled);
        let end = span.instrument(running).await;
        let outcome = match end {
            HandlerEnd::Handled => "handled",
            HandlerEnd::Failed(_) => "failed",
            HandlerEnd::Cancelled => "cancelled",
        };
        let took = self.clock.now().duration_since(started);
        metrics::handling_time(self.queue.name(), outcome, took.unwrap_or_default());
        span.instrument(self.settle(lease, end, &span)).await
    }

    async fn run_handler<T>(
        &self,
        lease: &Lease,
        stopping: watch::Receiver<bool>,
        mut cancelled: watch::Receiver<bool>,
    ) -> HandlerEnd
    where
        T: Send + 'static,
        H: Handler<T>,
        C: Codec<T>,
    {
        let decoded = caught(|| async { self.codec.decode(lease.payload()) }).await;
        let message = match decoded {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return failed(FailureKind::Undecodable, error),
            Err(panic) => return failed(FailureKind::Undecodable, panic),
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
            // The handler first: if it finished in time, a late poll must not time it out.
            biased;
            handled = handled => match handled {
                Ok(Ok(())) => HandlerEnd::Handled,
                Ok(Err(failure)) => HandlerEnd::Failed(failure),
                Err(panic) => failed(FailureKind::Panicked, panic),
            },
            limit = time_limit => {
                let error = format!("the handler exceeded its time limit of {limit:?}");
                failed(FailureKind::TimedOut, error)
            }
            _ = cancelled.wait_for(|cancelled| *cancelled) => HandlerEnd::Cancelled,
        }
    }

    async fn settle(&self, lease: Lease, end: HandlerEnd, span: &GuardedSpan) -> Report {
        match end {
            HandlerEnd::Handled => tally(lease.ack(), |report| &mut report.handled).await,
            HandlerEnd::Cancelled => tally(lease.release(), |report| &mut report.released).await,
            HandlerEnd::Failed(failure) => {
                let failed = FailedAttempt::new(lease.delivery(), &failure);
                let retry = self.retry.decide(&failed);
                let attempt = lease.attempt();
                span.record("error.type", "handler");
                let error = failure.to_string();
                log::handler_failed(&error, attempt, retry);
                match retry {
                    Retry::After(delay) => {
                        let delay = delay.min(self.queue.limits().max_delay);
                        tally(lease.nack(delay), |report| &mut report.failed).await
                    }
                    Retry::GiveUp => {
                        let dead = lease.dead_letter(error);
                        tally(dead, |report| &mut report.dead_lettered).await
                    }
                }
            }
        }
    }
}

fn failed(kind: FailureKind, error: impl Into<CodecError>) -> HandlerEnd {
    HandlerEnd::Failed(Failure::new(kind, error))
}

/// The report on one message. `applied` is the field that counts it if the settlement succeeds.
async fn tally(settled: SettleFuture, applied: fn(&mut Report) -> &mut u64) -> Report {
    let mut report = Report::default();
    *match settled.await {
        Ok(LeaseOutcome::Applied) => applied(&mut report),
        Ok(LeaseOutcome::Lost) => &mut report.lost,
        Err(error) => {
            log::not_settled(&error);
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
