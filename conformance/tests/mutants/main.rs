//! A red suite is red: every backend with a bug is rejected, each by the check of its kind. The
//! same backend without a bug passes.
//!
//! `cargo test --test mutants OutcomesReversed` runs one of them.

mod backend;
mod bug;
mod preconditions;

use std::{num::NonZeroUsize, process::ExitCode, sync::Arc, time::Duration};

use libtest_mimic::{Arguments, Failed, Trial};
use queue_api::{Limits, ManualClock, async_trait};
use queue_conformance::{
    Capability, CheckResult, Connection, Harness, HarnessError, Outcome, Store, TestTime,
    record::remove_kept, report,
};
use queue_memory::MemoryBackend;

use crate::{backend::Mutant, bug::Bug};

/// Each bug with the checks that must reject it.
const BUGS: &[(Bug, &[&str])] = &[
    (Bug::HeadersLost, &["headers_come_back_as_sent"]),
    (Bug::PayloadIsALine, &["payloads_come_back_as_sent"]),
    (
        Bug::HeadersAtMostTen,
        &["a_payload_at_the_limit_comes_back"],
    ),
    (Bug::HeaderValuesTrimmed, &["headers_come_back_as_sent"]),
    (Bug::HeaderIsMetadata, &["headers_come_back_as_sent"]),
    (
        Bug::DuplicateOverwritesPayload,
        &["a_duplicate_changes_nothing"],
    ),
    (
        Bug::DuplicatesForADay,
        &["a_stored_id_is_a_duplicate_in_every_state"],
    ),
    (Bug::IdIsAPattern, &["ids_that_look_alike_are_distinct"]),
    (
        Bug::LeaseLastsOneMillisecond,
        &[
            "a_leased_message_is_not_leased_again",
            "random_histories",
            "concurrent_histories",
        ],
    ),
    (
        Bug::ExpiryOneMillisecondLate,
        &["a_lease_expires_to_the_millisecond", "random_histories"],
    ),
    (
        Bug::DelayRoundedToNearest,
        &["a_finer_duration_is_rounded_up"],
    ),
    (
        Bug::DeliveryEchoesTimeout,
        &["a_finer_duration_is_rounded_up"],
    ),
    (
        Bug::RoundsRepeatMessages,
        &[
            "a_call_meets_each_message_once",
            "random_histories",
            "concurrent_histories",
        ],
    ),
    (Bug::AttemptsNotCounted, &["attempts_count_from_one"]),
    (
        Bug::AttemptsAreBytes,
        &["an_unacked_message_comes_back_every_time"],
    ),
    (Bug::AnswerSortedById, &["in_order_of_ready_time"]),
    (
        Bug::AckIgnoresReceipt,
        &["a_superseded_receipt_acks_nothing"],
    ),
    (Bug::LostPanics, &["a_settled_receipt_is_lost"]),
    (Bug::OutcomesReversed, &["outcomes_are_in_order"]),
    (
        Bug::ReleaseCounts,
        &["a_released_message_is_ready_at_once_and_not_counted"],
    ),
    (
        Bug::MaxAttemptsIgnored,
        &["after_max_attempts_a_message_becomes_a_dead_letter"],
    ),
    (
        Bug::MaxAttemptsAtMost1000,
        &["the_largest_max_attempts_works"],
    ),
    (Bug::DeadPageSkips, &["dead_letters_are_listed_in_pages"]),
    (
        Bug::MessagePageSkips,
        &["messages_are_listed_in_pages", "concurrent_histories"],
    ),
    (Bug::PeekSortsAfterLimit, &["peek_changes_nothing"]),
    (
        Bug::MessagesByReadyTime,
        &["pages_go_on_while_messages_come_go_and_change"],
    ),
    (
        Bug::MessagesWithoutLeased,
        &[
            "messages_are_listed_in_pages",
            "random_histories",
            "concurrent_histories",
        ],
    ),
    (
        Bug::ListedSettingsAreDefaults,
        &["messages_are_listed_in_pages"],
    ),
    (
        Bug::BadTokenIsInternal,
        &["a_made_up_page_token_fails_or_lists"],
    ),
    (
        Bug::TokenIsAPlaceInTheStore,
        &["a_made_up_page_token_fails_or_lists"],
    ),
    (
        Bug::ReceiptsOfAnyQueue,
        &["a_receipt_is_lost_in_another_queue"],
    ),
    (Bug::ReceiptForgottenAfterADay, &["a_late_ack_works"]),
    (
        Bug::DelayedCountsAsReady,
        &["stats_are_exact_after_every_step"],
    ),
    (Bug::WaitMissesEnqueue, &["wait_wakes_on_an_enqueue"]),
    (Bug::WaitNeverWaits, &["wait_waits_while_nothing_is_ready"]),
    (Bug::WaitSpinsOnDead, &["wait_waits_while_nothing_is_ready"]),
    (
        Bug::WaitPausesFirst,
        &["wait_returns_at_once_when_something_is_ready"],
    ),
    (Bug::WaitIgnoresClock, &["wait_ends_by_the_backends_clock"]),
    (
        Bug::ReleaseDoesNotWake,
        &[
            "wait_wakes_on_a_nack_or_release",
            "a_change_wakes_a_wait_at_every_point",
        ],
    ),
    (
        Bug::ReservedNameIsEmpty,
        &["an_odd_name_works_or_is_refused_by_every_call"],
    ),
    (
        Bug::ListHidesTheStoresOwn,
        &["an_odd_name_works_or_is_refused_by_every_call"],
    ),
    (
        Bug::PurgeEmptiesEveryQueue,
        &["purge_live_leaves_dead_letters"],
    ),
    (
        Bug::RedriveCountsFirst,
        &["concurrent_redrives_take_each_dead_letter_once"],
    ),
    (
        Bug::RedriveStopsAfterBatch,
        &["ten_thousand_dead_letters_are_listed_and_redriven"],
    ),
    (
        Bug::RedriveIdsStopsAtTen,
        &["ten_thousand_dead_letters_are_listed_and_redriven"],
    ),
    (
        Bug::DeletionStopsAfterBatch,
        &["a_queue_of_several_batches_is_deleted"],
    ),
    (
        Bug::RedriveFromTheEnd,
        &["ten_thousand_dead_letters_are_listed_and_redriven"],
    ),
    (
        Bug::LargeLeaseIgnoresOrder,
        &["a_large_batch_is_in_order_of_ready_time"],
    ),
    (
        Bug::DeadLetterPayloadIsUtf8,
        &["dead_letters_keep_payloads_and_headers"],
    ),
    (Bug::ReasonIsText, &["dead_letters_keep_their_reason"]),
    (Bug::FirstReasonStays, &["dead_letters_keep_their_reason"]),
    (Bug::ExtensionIsF32, &["the_longest_changes_are_exact"]),
    (Bug::WaitForgetsDeletedQueue, &["wait_outlives_its_queue"]),
    (Bug::AckHidesFirst, &["a_dropped_ack_is_done_or_not"]),
    (
        Bug::DeletionHidesFirst,
        &["a_dropped_purge_or_deletion_hides_nothing"],
    ),
    (Bug::LeaseGuardsIdsOnly, &["a_reused_id_is_a_new_message"]),
    // Only histories can see these two.
    (Bug::EnqueueLooksFirst, &["concurrent_histories"]),
    (Bug::ListMissesDeadLetters, &["concurrent_histories"]),
    (
        Bug::StateLostOnReconnect,
        &["a_new_connection_sees_everything"],
    ),
    (
        Bug::DefaultClockStandsStill,
        &["a_delay_passes_in_real_time"],
    ),
    (Bug::DefaultClockIsFiner, &["a_lease_expires_in_real_time"]),
];

/// Many more than there are processors: most of the time is waiting, for checks in real time and
/// for timeouts of backends that hang.
const MUTANTS: usize = 4;
const THREADS: usize = 8;

/// Longer than the checks in real time take. A backend that hangs takes all of it. On a busy machine,
/// a check may end too late to see the bug, so the run is repeated with more time.
const TIMEOUTS: [Duration; 3] = [
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];

/// The message of a check that timed out begins with this.
const TIMED_OUT: &str = "did not end within";

/// The backend without a bug must not fail by chance.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(60);

/// The smallest limits that the suite supports.
const LEAST_LIMITS: Limits = {
    let mut limits = Limits::STANDARD;
    limits.max_batch = NonZeroUsize::new(10).unwrap();
    limits.max_payload_bytes = 100_000;
    limits.max_header_bytes = 1000;
    limits.max_visibility_timeout = Duration::from_secs(7200);
    limits.max_delay = Duration::from_secs(7200);
    limits
};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(MUTANTS);
    // Each bug fails many checks, and each would print its panic.
    std::panic::set_hook(Box::new(|_| {}));
    let whole = MutantHarness {
        bug: None,
        limits: &Limits::STANDARD,
        capabilities: &[Capability::Admin],
        timeout: CONTROL_TIMEOUT,
    };
    let least = MutantHarness {
        limits: &LEAST_LIMITS,
        capabilities: &[],
        ..whole
    };
    let mut trials = vec![
        passes("the_backend_without_a_bug_passes", whole),
        passes("the_same_with_the_least_limits_and_no_admin_passes", least),
    ];
    trials.extend(BUGS.iter().map(|(bug, checks)| {
        let mutant = MutantHarness {
            bug: Some(*bug),
            ..whole
        };
        Trial::test(format!("{bug:?}"), move || is_rejected(mutant, checks))
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn passes(name: &str, harness: MutantHarness) -> Trial {
    Trial::test(name, move || {
        let report = report(harness, THREADS, &[]);
        match report.passed() {
            true => Ok(()),
            false => Err(Failed::from(report)),
        }
    })
}

fn is_rejected(mutant: MutantHarness, checks: &[&str]) -> Result<(), Failed> {
    let mut missed = String::new();
    for timeout in TIMEOUTS {
        let report = report(MutantHarness { timeout, ..mutant }, THREADS, checks);
        remove_kept(&report)?;
        report.results.iter().try_for_each(names_its_line)?;
        let any = |check: &str, is: fn(&CheckResult) -> bool| {
            let mut results = report.results.iter();
            results.any(|result| result.check.contains(check) && is(result))
        };
        let Some(check) = checks.iter().find(|check| !any(check, rejects)) else {
            return Ok(());
        };
        missed = format!("{check} accepts {:?}", mutant.bug);
        if !any(check, timed_out) {
            break;
        }
    }
    Err(missed.into())
}

/// A check that timed out has not seen the bug. No bug here makes its own check time out.
fn rejects(result: &CheckResult) -> bool {
    matches!(result.outcome, Outcome::Failed(_)) && !timed_out(result)
}

fn timed_out(result: &CheckResult) -> bool {
    let Outcome::Failed(why) = &result.outcome else {
        return false;
    };
    why.starts_with(TIMED_OUT)
}

/// A named check that fails shows its own line and the statement there, unless it timed out.
fn names_its_line(result: &CheckResult) -> Result<(), String> {
    let (Some(_), Outcome::Failed(why)) = (result.line, &result.outcome) else {
        return Ok(());
    };
    let line = why.split_once("\nat ").map(|(_, line)| line);
    let is_named = line.is_some_and(|line| {
        line.contains("src/checks/") && line.lines().nth(1).is_some_and(|l| l.starts_with("    "))
    });
    match is_named || timed_out(result) {
        true => Ok(()),
        false => Err(format!("{} does not name its line:\n{why}", result.check)),
    }
}

#[derive(Clone, Copy)]
struct MutantHarness {
    bug: Option<Bug>,
    limits: &'static Limits,
    capabilities: &'static [Capability],
    timeout: Duration,
}

struct MutantStore {
    harness: MutantHarness,
    mutant: Mutant,
}

#[async_trait]
impl Harness for MutantHarness {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        let stands_still = || TestTime::Manual(Arc::new(ManualClock::new()));
        let time = match time {
            TestTime::Real if self.bug == Some(Bug::DefaultClockStandsStill) => stands_still(),
            time => time,
        };
        let backend = time.give_to(MemoryBackend::new(), MemoryBackend::with_clock);
        let is_manual = matches!(time, TestTime::Manual(_));
        let shows = |bug: &Bug| !(is_manual && *bug == Bug::DefaultClockIsFiner);
        Ok(Arc::new(MutantStore {
            harness: *self,
            mutant: Mutant::new(backend, self.bug.filter(shows), self.limits),
        }))
    }

    fn histories(&self) -> u32 {
        80
    }

    fn capabilities(&self) -> &'static [Capability] {
        self.capabilities
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

#[async_trait]
impl Store for MutantStore {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        let MutantHarness { bug, limits, .. } = self.harness;
        let mutant = match bug {
            Some(Bug::StateLostOnReconnect) => Mutant::new(MemoryBackend::new(), bug, limits),
            _ => self.mutant.clone(),
        };
        Ok(match self.harness.capabilities.is_empty() {
            true => Connection::without_admin(mutant),
            false => Connection::new(mutant),
        })
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        Ok(())
    }
}
