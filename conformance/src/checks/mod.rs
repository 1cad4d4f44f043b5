//! The checks: one function each, in a file for each part of the contract, and the one table
//! that every backend runs.
//!
//! A check that is not in the table is dead code, which the compiler reports.

use std::future::Future;

use futures::future::LocalBoxFuture;

use crate::{contract::Line, fixture::Fixture, harness::Capability};

mod cancel;
mod concurrent;
mod dead_letter;
mod durable;
mod enqueue;
mod lease;
mod manage;
mod settle;
mod wait;

/// The text of the checks, for failures to quote: whoever reads one may not have it at hand.
const SOURCES: [(&str, &str); 9] = [
    ("cancel.rs", include_str!("cancel.rs")),
    ("concurrent.rs", include_str!("concurrent.rs")),
    ("dead_letter.rs", include_str!("dead_letter.rs")),
    ("durable.rs", include_str!("durable.rs")),
    ("enqueue.rs", include_str!("enqueue.rs")),
    ("lease.rs", include_str!("lease.rs")),
    ("manage.rs", include_str!("manage.rs")),
    ("settle.rs", include_str!("settle.rs")),
    ("wait.rs", include_str!("wait.rs")),
];

/// The text of a file of checks, by the name that a panic's place gives.
pub(crate) fn source(file: &str) -> Option<&'static str> {
    let folder = file!().strip_suffix("mod.rs")?;
    let name = file.strip_prefix(folder)?;
    let source = SOURCES.iter().find(|(known, _)| *known == name)?;
    Some(source.1)
}

/// One check of one line of the contract.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    pub(crate) line: Line,
    pub(crate) name: &'static str,
    pub(crate) time: CheckTime,
    /// What a backend must offer for this check to be about it.
    pub(crate) capability: Option<Capability>,
    pub(crate) run: fn(Fixture) -> LocalBoxFuture<'static, ()>,
}

/// Which clock a check needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckTime {
    /// One that it moves itself.
    Manual,
    /// The backend's own, with real waiting: for the few checks whose point that is.
    Real,
}

fn boxed(future: impl Future<Output = ()> + 'static) -> LocalBoxFuture<'static, ()> {
    Box::pin(future)
}

macro_rules! capability {
    (core) => {
        None
    };
    (admin) => {
        Some(Capability::Admin)
    };
}

macro_rules! table {
    ($($line:ident $time:ident $capability:ident $module:ident: $($name:ident)*;)*) => {
        /// Every check, in the order of the contract.
        pub(crate) const CHECKS: &[Check] = &[$($(
            Check {
                line: Line::$line,
                name: stringify!($name),
                time: CheckTime::$time,
                capability: capability!($capability),
                run: |fixture| boxed($module::$name(fixture)),
            },
        )*)*];
    };
}

table! {
    E1 Manual core enqueue: what_is_stored_is_delivered what_nobody_acks_comes_back_again_and_again;
    E2 Manual core enqueue: a_stored_id_is_a_duplicate_in_every_state
        a_duplicate_changes_nothing equal_ids_in_one_batch_are_stored_once
        a_full_batch_of_duplicates an_acked_id_may_be_used_again
        ids_that_look_alike_are_kept_apart;
    E3 Manual core enqueue: payloads_come_back_as_sent headers_come_back_as_sent
        ids_of_any_text_work times_come_back_as_sent a_payload_at_the_limit_comes_back
        a_batch_of_large_payloads_comes_back a_redelivery_is_the_same_message;
    E4 Manual core enqueue: a_delay_is_kept_to_the_tick delays_in_one_batch_are_kept_apart
        the_longest_times_are_kept;
    E4 Real core enqueue: a_delay_passes_in_real_time;
    L1 Manual core lease: a_leased_message_is_given_to_nobody_else
        an_extended_lease_stays_exclusive;
    L2 Manual core lease: a_lease_runs_out_to_the_tick each_message_has_its_own_timeout
        the_lease_call_overrides_the_timeout the_override_ends_with_its_lease
        a_finer_duration_is_rounded_up;
    L2 Real core lease: a_lease_runs_out_in_real_time;
    L3 Manual core lease: attempts_count_from_one receipts_are_fresh
        every_way_back_counts_but_return;
    L4 Manual core lease: never_more_than_asked exactly_what_is_ready in_order_of_ready_time
        a_batch_of_the_largest_size nothing_asked_for_is_nothing_given;
    A1 Manual core settle: an_acked_message_is_gone acks_in_one_batch_end_each_its_own;
    A2 Manual core settle: a_superseded_receipt_acks_nothing a_superseded_receipt_changes_nothing
        a_receipt_is_not_made_again a_made_up_receipt_is_lost;
    A3 Manual core settle: a_late_ack_works a_late_change_works a_late_extend_hides_again;
    A4 Manual core settle: a_settled_receipt_is_lost a_receipt_twice_in_one_batch_works_once
        settled_and_live_receipts_in_one_batch changes_of_one_receipt_follow_each_other
        outcomes_are_in_order nothing_to_settle_is_no_outcome;
    A5 Manual core settle: extend_counts_from_now extend_may_shorten nack_delays_to_the_tick
        nack_without_delay_is_ready_at_once return_is_ready_at_once_and_does_not_count
        changes_in_one_batch_are_kept_apart;
    D1 Manual core dead_letter: after_max_attempts_it_is_buried_not_delivered
        a_nack_of_the_last_attempt_buries_nothing the_most_attempts_are_many
        burying_makes_way_for_the_next burying_stops_when_there_is_enough
        the_last_attempt_can_still_be_acked a_rejected_message_stays_dead;
    D1 Manual admin dead_letter: dead_letters_keep_everything dead_letters_keep_their_reason
        many_dead_letters_are_listed_and_redriven redrive_starts_afresh redrive_takes_only_what_was_named
        dead_letters_are_listed_in_pages;
    Q1 Manual core manage: queues_do_not_see_each_other queues_of_like_names_are_kept_apart
        a_receipt_is_worth_nothing_elsewhere
        an_unused_queue_is_empty;
    S1 Manual core manage: stats_follow_every_step stats_tell_the_age_of_the_oldest;
    W1 Manual core wait: wait_returns_at_once_when_something_is_ready
        wait_wakes_on_an_enqueue wait_wakes_when_a_delay_ends wait_wakes_when_a_lease_ends
        wait_wakes_when_a_shortened_lease_ends wait_wakes_on_a_nack
        wait_wakes_on_an_enqueue_elsewhere;
    W1 Manual admin wait: wait_wakes_on_a_redrive;
    W1 Real core wait: wait_ends_after_the_time_given wait_wakes_when_due_in_real_time;
    M1 Manual admin manage: peek_shows_and_changes_nothing
        peek_tells_the_state_by_the_clock purge_removes_the_live_alone
        purge_removes_the_dead_alone deleting_removes_one_queue
        queues_are_listed a_receipt_of_a_purged_message_is_lost
        looking_after_an_unused_queue_does_nothing;
    C1 Manual core cancel: a_dropped_enqueue_loses_nothing a_dropped_lease_loses_nothing
        a_dropped_ack_is_done_or_not a_dropped_change_is_done_or_not
        a_dropped_dead_lettering_is_done_or_not a_dropped_burial_loses_nothing
        a_dropped_wait_wakes_others;
    C1 Manual admin cancel: a_dropped_redrive_loses_nothing;
    C2 Manual core concurrent: each_message_is_acked_once_among_many_tasks
        no_two_leases_of_a_message_are_live an_id_is_stored_once_among_many_senders
        a_receipt_is_settled_once_among_many a_late_ack_and_a_lease_do_not_both_win
        a_late_change_and_a_lease_do_not_both_win an_id_used_again_is_another_message
        many_consumers_make_progress producers_and_consumers_balance;
    R1 Manual core durable: a_new_connection_finds_everything
        a_receipt_outlives_its_connection two_connections_share_leases;
    X1 Manual core cancel: a_broken_off_enqueue_may_be_repeated
        a_broken_off_settlement_may_be_repeated;
}
