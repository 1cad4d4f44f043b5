//! Checks of listeners and workers, in virtual time, for any backend that takes a clock.
//!
//! A check that is not in the table is dead code, and the compiler reports it.

use std::{any::Any, future::Future, pin::Pin, process::ExitCode, sync::Arc, time::Duration};

use libtest_mimic::{Arguments, Trial};
use queue_api::{Clock, QueueAdmin, QueueBackend, TokioClock};

use self::fixture::Fixture;

mod errors;
mod fixture;
mod hold;
mod lease;
mod listener;
mod renewal;
mod retry;
mod settings;
mod short_leases;
mod shutdown;
mod stop;
mod telemetry;
mod worker;
mod workers;

/// An empty store that one check uses alone.
#[derive(Debug)]
pub struct Opened {
    /// The backend under test.
    pub backend: Arc<dyn QueueBackend>,
    /// Its administration.
    pub admin: Arc<dyn QueueAdmin>,
    /// Removes the store when it is dropped.
    pub guard: Box<dyn Any>,
}

type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

struct Check {
    name: &'static str,
    run: fn(Fixture) -> LocalFuture<()>,
}

macro_rules! table {
    ($($module:ident: $($name:ident)*;)*) => {
        const CHECKS: &[Check] = &[$($(
            Check {
                name: concat!(stringify!($module), "::", stringify!($name)),
                run: |fixture| Box::pin($module::$name(fixture)),
            },
        )*)*];
    };
}

table! {
    listener: it_yields_what_is_enqueued it_is_a_stream it_holds_at_most_its_concurrency
        it_claims_nothing_until_polled it_claims_in_batches
        it_claims_only_what_can_start_now
        settlements_in_flight_take_no_room it_rarely_polls_an_empty_queue
        idle_listeners_do_not_look_at_the_same_time
        an_enqueue_wakes_it a_delayed_message_comes_when_it_is_due
        it_pauses_when_waits_return_early ten_thousand_messages_take_few_calls
        invalid_options_are_refused a_batch_is_what_is_there
        dropping_a_wait_for_a_batch_loses_nothing;
    hold: it_runs_while_the_lease_is_renewed it_ends_with_the_lease_and_drops_the_work
        after_the_end_the_work_is_not_polled dropping_it_keeps_the_lease settling_the_lease_ends_it
        a_handler_can_hold_its_lease;
    stop: it_ends_the_stream it_releases_what_was_not_handed_out
        it_releases_what_a_call_in_flight_leases dropping_the_listener_releases_too
        leases_handed_out_stay_renewed draining_waits_for_every_lease
        a_failing_store_does_not_block_it a_task_can_feed_a_channel_and_close_it;
    lease: it_shows_what_was_enqueued ack_ends_the_message nack_delays_it
        dead_letter_keeps_the_reason a_long_reason_is_cut release_takes_the_attempt_back
        a_dropped_lease_is_nacked_soon
        it_may_be_dropped_on_a_thread_without_a_runtime
        a_settlement_stands_when_its_future_is_dropped settlements_share_calls
        an_invalid_settlement_is_refused_and_the_lease_nacked
        settling_a_superseded_lease_says_lost a_detached_lease_is_settled_by_its_receipt
        it_outlives_its_runtime_without_hanging;
    renewal: a_long_handler_keeps_its_message leases_are_renewed_in_one_call
        leases_of_different_age_end_up_renewed_together
        it_goes_on_while_the_stream_is_not_polled it_survives_a_failing_store
        a_lease_that_cannot_be_renewed_expires a_purge_ends_the_lease
        it_stops_at_the_limit extending_goes_beyond_the_limit
        a_short_extension_is_renewed an_extension_by_zero_ends_it
        a_renewal_does_not_shorten_an_extension
        a_renewal_queued_with_an_extension_does_not_either a_refused_extension_does_not_end_renewal
        a_refused_extension_does_not_shorten_the_lease
        a_refused_renewal_holds_up_no_others a_refused_extension_fails_alone
        a_renewal_repeated_alone_is_still_wanted
        it_counts_from_before_the_call a_lease_that_expired_in_a_suspended_process_is_not_handed_out
        it_ignores_the_wall_clock a_settled_lease_is_not_renewed
        a_buffered_lease_at_its_limit_is_released a_renewal_before_the_settlement_does_not_end_it
        the_store_decides_whether_an_extension_is_lost
        an_extension_of_a_settled_lease_is_an_error
        a_context_that_outlives_its_message_cannot_extend_it;
    errors: calls_to_a_failing_store_pause_longer_each_time it_recovers_when_a_denial_ends
        a_failing_wait_is_survived
        a_settlement_is_repeated_while_the_lease_lasts
        a_settlement_that_a_repeat_finds_lost_is_the_error
        a_lost_answer_of_an_extension_is_not_a_lost_lease
        a_worker_counts_a_settlement_that_a_repeat_finds_lost_as_unsettled
        a_settlement_that_keeps_failing_is_an_error an_expired_claim_causes_no_busy_loop
        an_expired_claim_without_room_does_not_either a_settlement_that_hangs_ends_with_its_lease
        a_settlement_that_hangs_holds_up_no_others_for_long
        a_worker_stops_although_its_settlement_hangs a_refused_settlement_fails_alone
        a_settlement_of_a_failed_batch_that_a_repeat_finds_lost_is_the_error
        settlements_repeated_alone_do_not_hang_one_after_another;
    worker: what_is_handled_is_acked it_handles_as_many_at_a_time_as_its_concurrency
        handlers_that_end_together_share_a_call
        a_handler_over_its_time_limit_is_cancelled a_long_handler_keeps_its_message
        a_handler_learns_that_its_lease_ended
        a_store_that_is_down_too_long_leaves_it_unsettled
        until_idle_includes_what_handlers_enqueue
        until_idle_ignores_delayed_and_leased_messages until_idle_on_an_empty_queue_polls_once
        json_is_the_default a_handler_may_have_state_and_be_shared_or_boxed;
    retry: what_fails_is_retried_after_the_policys_delay the_default_policy_doubles_with_jitter
        the_error_may_choose_the_delay the_error_may_give_up
        the_last_attempt_ends_in_a_dead_letter_with_the_error
        a_panic_is_a_failure_and_the_worker_goes_on
        what_does_not_decode_is_retried_as_the_policy_says
        the_policy_is_told_the_message_and_the_failure;
    shutdown: handlers_may_finish
        at_the_deadline_they_are_cancelled_and_cost_no_attempt
        running_handlers_keep_their_leases a_cancellation_token_stops_it
        handlers_learn_of_it dropping_the_run_nacks_its_messages it_may_be_run_again
        endless_durations_are_accepted a_store_that_is_away_delays_it_by_the_grace;
    workers: they_run_together_and_shut_down_together the_first_failure_ends_all
        a_shutdown_that_panics_is_an_error_of_each without_workers_it_waits_for_the_shutdown;
    settings: every_setting_works_or_is_refused_at_the_ends_of_its_range;
    short_leases: each_is_handled_once_by_one_worker
        each_attempt_that_counts_reaches_a_handler_of_two_workers;
    telemetry: every_metric_is_recorded a_settlement_that_may_have_taken_effect_is_not_counted
        settlements_repeated_alone_are_counted_once
        a_trace_goes_from_the_sender_to_the_handler
        an_invalid_trace_context_is_not_logged;
}

/// Runs every check, each in its own paused runtime, on a store that `open` opens on that clock.
pub fn run(open: fn(Arc<dyn Clock>) -> LocalFuture<Opened>) -> ExitCode {
    let trial = |check: &'static Check| {
        Trial::test(check.name, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()?;
            runtime.block_on(async {
                let clock = Arc::new(TokioClock::new());
                let Opened {
                    backend,
                    admin,
                    guard,
                } = open(clock.clone()).await;
                let checked = (check.run)(Fixture::new(backend, admin, clock));
                // Virtual time: a check that hangs fails at once.
                let year = Duration::from_secs(365 * 24 * 3600);
                let finished = tokio::time::timeout(year, checked).await;
                drop(guard);
                finished.map_err(|_| "the check hangs")
            })?;
            Ok(())
        })
    };
    let trials = CHECKS.iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
