//! The checks: one function each, in a file for each part of the contract, and the table of all.
//!
//! If a check is not in the table, the compiler warns that it is never used.

use std::future::Future;

use futures::future::LocalBoxFuture;

use crate::{contract::Line, fixture::Fixture, harness::Capability};

mod cancel;
mod concurrent;
mod dead_letter;
mod durable;
mod enqueue;
mod far_times;
mod lease;
mod manage;
mod pages;
mod race;
mod race_admin;
mod race_dead;
mod race_wait;
mod separate_queues;
mod settle;
mod sizes;
mod wait;
mod zero;

/// One check of one line of the contract.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    pub(crate) line: Line,
    pub(crate) name: &'static str,
    pub(crate) time: CheckTime,
    /// The capability that the check needs.
    pub(crate) capability: Option<Capability>,
    pub(crate) run: fn(Fixture) -> LocalBoxFuture<'static, ()>,
}

/// The clock of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckTime {
    /// A clock that the check moves.
    Manual,
    /// The backend's own clock, with real waiting.
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

        /// The text of the file with this name. No file with a check is missing.
        pub(crate) fn source(file: &str) -> Option<&'static str> {
            const SOURCES: &[(&str, &str)] = &[$((
                concat!(stringify!($module), ".rs"),
                include_str!(concat!(stringify!($module), ".rs")),
            ),)*];
            Some(SOURCES.iter().find(|(known, _)| *known == file)?.1)
        }
    };
}

table! {
    E1 Manual core enqueue: what_is_stored_is_delivered an_unacked_message_comes_back_every_time;
    E2 Manual core enqueue: a_stored_id_is_a_duplicate_in_every_state
        a_duplicate_changes_nothing equal_ids_in_one_batch_are_stored_once
        a_full_batch_of_duplicates an_acked_id_may_be_used_again
        ids_that_look_alike_are_distinct;
    E2 Manual core sizes: duplicates_of_the_largest_batch_are_in_order the_longest_ids_are_distinct;
    E3 Manual core enqueue: payloads_come_back_as_sent headers_come_back_as_sent
        ids_of_any_text_work times_come_back_as_sent a_payload_at_the_limit_comes_back
        a_batch_of_large_payloads_comes_back a_redelivery_is_the_same_message
        a_message_that_sets_nothing_has_the_defaults;
    E3 Manual admin enqueue: dead_letters_keep_payloads_and_headers;
    E4 Manual core enqueue: a_delay_is_exact_to_the_millisecond delays_in_one_batch_are_independent;
    E4 Manual core far_times: the_longest_delays_are_exact;
    E4 Real core enqueue: a_delay_passes_in_real_time;
    L1 Manual core lease: a_leased_message_is_not_leased_again
        an_extended_lease_stays_exclusive;
    L2 Manual core lease: a_lease_expires_to_the_millisecond each_message_has_its_own_timeout
        the_lease_call_overrides_the_timeout the_override_ends_with_its_lease
        a_finer_duration_is_rounded_up;
    L2 Manual core zero: a_lease_of_no_time_counts_and_ends_at_once
        a_message_may_have_a_timeout_of_zero;
    L2 Manual core far_times: the_longest_leases_are_exact;
    L2 Real core lease: a_lease_expires_in_real_time;
    L3 Manual core lease: attempts_count_from_one receipts_are_fresh
        every_redelivery_counts_except_after_a_release;
    L4 Manual core lease: never_more_than_asked everything_ready_up_to_what_was_asked in_order_of_ready_time
        a_batch_of_the_largest_size a_large_batch_is_in_order_of_ready_time
        a_lease_of_zero_returns_nothing;
    L4 Manual core zero: a_call_meets_each_message_once;
    A1 Manual core settle: an_acked_message_is_gone a_batch_of_acks_ends_exactly_its_messages;
    A2 Manual core settle: a_superseded_receipt_acks_nothing a_superseded_receipt_changes_nothing
        a_receipt_is_not_repeated a_made_up_receipt_is_lost;
    A2 Manual core sizes: a_receipt_is_whole;
    A3 Manual core settle: a_late_ack_works a_late_change_works a_late_extend_hides_the_message_again;
    A3 Manual core zero: a_receipt_of_no_time_works_until_superseded;
    A4 Manual core settle: a_settled_receipt_is_lost a_receipt_twice_in_one_batch_works_once
        settled_and_live_receipts_in_one_batch changes_of_one_receipt_follow_each_other
        outcomes_are_in_order an_empty_batch_has_no_outcomes;
    A4 Manual core sizes: outcomes_of_the_largest_batch_are_in_order;
    A5 Manual core settle: extend_counts_from_now extend_may_shorten a_nack_delay_is_exact_to_the_millisecond
        nack_without_delay_is_ready_at_once a_released_message_is_ready_at_once_and_not_counted
        changes_in_one_batch_are_independent;
    A5 Manual core far_times: the_longest_changes_are_exact a_finer_duration_far_out_is_rounded_up;
    A5 Manual core zero: an_extension_by_zero_makes_the_message_ready;
    D1 Manual core dead_letter: after_max_attempts_a_message_becomes_a_dead_letter
        a_nack_of_the_last_attempt_makes_no_dead_letter the_largest_max_attempts_works
        exhausted_messages_do_not_hide_ready_ones a_lease_leaves_exhausted_messages_behind_the_last_one
        the_last_attempt_can_still_be_acked a_rejected_message_stays_dead;
    D1 Manual core sizes: exhausted_messages_of_more_than_a_batch_hide_nothing
        dead_letters_outlive_a_hundred_thousand_messages;
    D1 Manual core race_dead: an_exhausted_message_is_settled_or_dead
        an_exhausted_message_becomes_one_dead_letter;
    D1 Manual core zero: a_last_attempt_of_no_time_can_still_be_acked;
    D1 Manual admin dead_letter: dead_letters_keep_the_whole_message dead_letters_keep_their_reason
        redrive_counts_attempts_from_zero redrive_takes_only_the_named_ids
        dead_letters_are_listed_in_pages pages_go_on_while_dead_letters_come_and_go;
    D1 Manual admin sizes: ten_thousand_dead_letters_are_listed_and_redriven
        long_and_similar_ids_are_distinct_in_lists;
    D1 Manual admin race_admin: concurrent_redrives_take_each_dead_letter_once
        a_redrive_and_a_lease_lose_nothing a_stored_id_is_a_duplicate_while_it_moves;
    Q1 Manual core separate_queues: queues_are_separate queues_with_similar_names_are_separate
        an_odd_name_works_or_is_refused_by_every_call a_receipt_is_lost_in_another_queue
        an_unused_queue_is_empty;
    Q1 Manual admin separate_queues: admin_calls_spare_queues_with_similar_names;
    S1 Manual core manage: stats_are_exact_after_every_step stats_report_the_age_of_the_oldest;
    W1 Manual core wait: wait_returns_at_once_when_something_is_ready
        wait_wakes_on_an_enqueue wait_wakes_when_a_delay_ends wait_wakes_when_a_lease_ends
        wait_wakes_when_a_shortened_lease_ends
        wait_wakes_on_an_extension_by_zero wait_wakes_on_a_nack_or_release
        wait_wakes_on_an_enqueue_elsewhere wait_ends_while_the_clock_stands_still
        a_lease_that_waits_gets_what_is_enqueued_elsewhere a_lease_that_waits_ends_empty
        wait_wakes_after_a_delayed_enqueue wait_returns_when_an_exhausted_message_is_ready
        wait_goes_on_when_the_queue_is_emptied wait_for_ever_wakes_on_an_enqueue
        wait_waits_while_nothing_is_ready wait_ends_by_the_backends_clock;
    W1 Manual core race_wait: an_enqueue_wakes_a_wait_at_every_point
        a_change_wakes_a_wait_at_every_point;
    W1 Manual admin race_wait: a_redrive_wakes_a_wait_at_every_point;
    W1 Manual admin wait: wait_wakes_on_a_redrive wait_outlives_its_queue;
    W1 Real core wait: wait_ends_after_the_time_given wait_wakes_when_due_in_real_time;
    M1 Manual admin manage: peek_changes_nothing
        peek_shows_the_state_at_this_time purge_live_leaves_dead_letters
        purge_dead_leaves_live_messages deleting_removes_one_queue
        queues_are_listed a_receipt_of_a_purged_message_is_lost
        admin_calls_on_an_unused_queue_do_nothing;
    M1 Manual admin pages: messages_are_listed_in_pages
        pages_go_on_while_messages_come_go_and_change more_messages_than_a_batch_are_listed
        a_made_up_page_token_fails_or_lists;
    M1 Manual admin sizes: three_hundred_queues_are_listed a_queue_of_several_batches_is_deleted;
    M1 Manual admin race_admin: a_dead_letter_is_redriven_or_purged a_message_is_purged_or_acked
        a_purged_message_is_not_leased a_deleted_queue_can_be_used_at_once
        a_queue_can_be_deleted_while_it_is_made;
    M1 Real admin manage: purge_ends_while_producers_go_on;
    C1 Manual core cancel: a_dropped_enqueue_loses_nothing a_dropped_lease_loses_nothing
        a_dropped_ack_is_done_or_not a_dropped_change_is_done_or_not
        a_dropped_dead_lettering_is_done_or_not a_dropped_lease_of_exhausted_messages_loses_nothing
        a_dropped_lease_that_waits_loses_nothing;
    C1 Manual core race_wait: a_dropped_wait_wakes_others;
    C1 Manual admin cancel: a_dropped_redrive_loses_nothing
        a_dropped_purge_or_deletion_hides_nothing;
    C2 Manual core concurrent: many_tasks_ack_each_message_once
        a_message_has_one_lease_at_a_time concurrent_enqueues_store_an_id_once;
    C2 Manual core race: concurrent_calls_settle_a_receipt_once
        a_late_ack_and_a_lease_do_not_both_succeed
        a_late_change_and_a_lease_do_not_both_succeed;
    C2 Manual core concurrent: a_reused_id_is_a_new_message many_consumers_make_progress
        producers_and_consumers_lose_nothing;
    R1 Manual core durable: a_new_connection_sees_everything
        a_receipt_outlives_its_connection two_connections_share_leases;
    X1 Manual core cancel: a_dropped_enqueue_may_be_repeated
        a_dropped_ack_may_be_repeated;
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn the_text_of_checks_is_known() {
        let text = source("settle.rs").expect("it has checks");
        assert!(text.contains("assert_eq!(fixture.ack(&first.receipt).await, Lost);"));
        assert_eq!(source("mod.rs"), None);
    }
}
