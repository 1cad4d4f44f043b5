//! The consumer's promises as checks: one function each, in virtual time, for any backend that
//! takes a clock.
//!
//! A check that is not in the table is dead code, which the compiler reports.

use std::{any::Any, future::Future, pin::Pin, process::ExitCode, sync::Arc, time::Duration};

use libtest_mimic::{Arguments, Trial};
use queue_api::{Clock, QueueAdmin, QueueBackend, TokioClock};

use self::fixture::Fixture;

mod errors;
mod faulty;
mod fixture;
mod lease;
mod listener;
mod observing;
mod renewal;
mod shutdown;
mod stop;
mod worker;

/// A fresh store, empty and in nobody else's hands.
pub(crate) struct Opened {
    pub(crate) backend: Arc<dyn QueueBackend>,
    pub(crate) admin: Arc<dyn QueueAdmin>,
    /// Tears the store down when it is dropped.
    pub(crate) guard: Box<dyn Any>,
}

type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Opens a fresh store on a clock.
pub(crate) type Open = fn(Arc<dyn Clock>) -> LocalFuture<Opened>;

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
    listener: it_gives_what_is_enqueued it_is_a_stream it_holds_no_more_leases_than_it_may
        it_claims_nothing_for_a_stream_that_nobody_polls it_claims_in_batches
        it_claims_only_what_can_start_now
        verdicts_on_their_way_take_no_room it_does_not_ask_while_the_queue_is_empty
        an_enqueue_wakes_it a_delayed_message_comes_when_it_is_due
        it_pauses_where_others_are_faster ten_thousand_messages_take_few_calls
        wrong_options_are_refused;
    stop: it_ends_the_stream it_gives_back_what_was_not_handed_out
        it_gives_back_what_a_call_under_way_leases dropping_the_listener_gives_back_too
        leases_handed_out_live_on draining_waits_for_every_lease
        a_failing_store_does_not_keep_it_forever listen_and_stop_listen_as_the_ancestor_had_them;
    lease: it_shows_what_was_enqueued ack_ends_the_message nack_holds_it_back
        dead_letter_keeps_the_reason a_long_reason_is_cut give_back_takes_the_attempt_back
        a_dropped_lease_is_released_soon_and_counts
        it_may_be_dropped_on_a_thread_without_a_runtime
        a_verdict_stands_when_its_future_is_dropped verdicts_share_calls
        a_wrong_verdict_is_refused_and_the_lease_released
        a_superseded_lease_is_lost_to_its_holder a_dismissed_lease_is_settled_by_its_receipt
        it_outlives_its_runtime_without_hanging;
    renewal: a_long_handler_keeps_its_message leases_are_renewed_in_one_call
        leases_of_different_age_come_to_be_renewed_together
        it_goes_on_when_nobody_reads it_bridges_a_failing_store
        a_lease_that_cannot_be_renewed_is_lost a_purged_message_is_lost
        it_stops_at_the_limit extending_goes_beyond_the_limit a_short_extension_is_renewed
        a_renewal_does_not_cut_an_extension_short
        a_renewal_that_waits_with_an_extension_does_not_either a_refused_extension_does_not_end_renewal
        it_counts_from_before_the_call a_lease_that_ran_out_on_its_way_is_not_handed_out
        it_does_not_care_for_the_wall_clock a_settled_lease_is_not_renewed
        a_buffered_lease_at_its_limit_goes_back a_renewal_behind_the_verdict_does_not_lose_it;
    errors: a_failing_store_is_asked_again_after_growing_pauses it_recovers_when_a_denial_ends
        a_failing_wait_is_survived a_panicking_backend_is_survived a_panicking_hook_is_survived
        a_verdict_is_repeated_while_the_lease_lasts a_lost_answer_is_not_a_lost_lease
        a_verdict_that_cannot_be_given_is_an_error a_late_claim_does_not_keep_it_busy
        a_late_claim_without_room_does_not_either a_verdict_that_hangs_ends_with_its_lease
        a_worker_stops_though_its_verdict_hangs;
    worker: what_is_handled_is_acked it_handles_so_many_at_a_time
        handlers_that_end_about_together_share_a_call
        what_fails_is_tried_again_after_the_policys_delay the_default_policy_doubles_with_jitter
        the_error_may_choose_the_delay the_error_may_give_up
        the_last_attempt_ends_in_a_dead_letter_with_the_error
        a_panic_is_a_failure_and_the_worker_goes_on a_panic_of_the_policy_is_survived
        what_does_not_decode_is_a_dead_letter a_codec_that_panics_is_survived
        a_handler_over_its_time_limit_is_cancelled a_long_handler_keeps_its_message
        a_handler_learns_that_its_lease_is_lost
        a_store_that_is_down_too_long_leaves_it_unsettled
        until_idle_includes_what_handlers_enqueue
        until_idle_leaves_the_delayed_and_the_held_alone until_idle_on_nothing_asks_once
        json_is_the_default;
    shutdown: handlers_come_to_their_end
        at_the_deadline_they_are_cancelled_and_cost_no_attempt
        nothing_that_still_runs_is_given_back a_cancellation_token_stops_it
        handlers_learn_of_it dropping_the_run_releases_its_messages it_may_be_run_again
        durations_without_an_end_are_taken;
    observing: every_metric_says_what_happened a_repeated_ack_is_counted_as_one
        a_trace_goes_from_the_sender_to_the_handler
        a_header_that_is_no_trace_context_is_not_logged;
}

/// Runs every check, each on a fresh store and in a paused runtime of its own.
pub(crate) fn run(open: Open) -> ExitCode {
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
                // In virtual time; what hangs fails.
                let year = Duration::from_secs(365 * 24 * 3600);
                let in_time = tokio::time::timeout(year, checked).await;
                drop(guard);
                in_time.map_err(|_| "it hangs")
            })?;
            Ok(())
        })
    };
    let trials = CHECKS.iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
