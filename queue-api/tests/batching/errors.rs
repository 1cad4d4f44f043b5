//! Errors: which callers get one, and whether each answer is true.

use std::time::Duration;

use futures::future::join_all;
use queue_api::{
    EnqueueOutcome::{self, Stored},
    ErrorKind,
    LeaseOutcome::Applied,
    Result,
};
use queue_test_support::{Fault, Operation};

use crate::{Fixture, REFUSED, msg};

/// Enqueues each message in a call of its own, all in one batch.
async fn enqueue_together(
    fixture: &Fixture,
    ids: &[&str],
) -> Vec<Result<EnqueueOutcome, ErrorKind>> {
    let messages: Vec<_> = ids.iter().map(|id| msg(id)).collect();
    let calls = messages
        .iter()
        .map(|message| fixture.queue.enqueue(message));
    join_all(calls).await.into_iter().map(kind).collect()
}

fn kind<T>(answer: Result<T>) -> Result<T, ErrorKind> {
    answer.map_err(|error| error.kind())
}

#[tokio::test]
async fn every_caller_gets_a_failure_of_the_store() {
    for failure in [
        ErrorKind::Unavailable,
        ErrorKind::TimedOut,
        ErrorKind::QueueFull,
        ErrorKind::Denied,
    ] {
        let fixture = Fixture::new();
        fixture
            .faulty
            .fault_once(Operation::Enqueue, Fault::Before(failure));
        let answers = enqueue_together(&fixture, &["a", "b", "c"]).await;
        assert_eq!(answers, [Err(failure); 3]);
        assert_eq!(
            fixture.faulty.calls(Operation::Enqueue),
            [3],
            "the call is not repeated"
        );
        let repeated = enqueue_together(&fixture, &["a", "b", "c"]).await;
        assert_eq!(repeated, [Ok(Stored); 3]);
    }
}

#[tokio::test]
async fn only_its_caller_gets_an_error_for_invalid_input() {
    let fixture = Fixture::new();
    let answers = enqueue_together(&fixture, &["a", REFUSED, "c"]).await;
    assert_eq!(
        answers,
        [Ok(Stored), Err(ErrorKind::InvalidInput), Ok(Stored)]
    );
    assert_eq!(fixture.faulty.calls(Operation::Enqueue), [3, 1, 1, 1]);
    let answers = enqueue_together(&fixture, &[REFUSED]).await;
    assert_eq!(answers, [Err(ErrorKind::InvalidInput)]);
    assert_eq!(
        fixture.faulty.calls(Operation::Enqueue).len(),
        5,
        "a call for one caller is not repeated"
    );
}

#[tokio::test]
async fn a_message_that_the_failed_call_may_have_stored_is_no_duplicate() {
    let fixture = Fixture::new();
    fixture
        .faulty
        .fault_once(Operation::Enqueue, Fault::After(ErrorKind::Internal));
    let answers = enqueue_together(&fixture, &["a", "b"]).await;
    assert_eq!(
        answers,
        [Err(ErrorKind::Internal); 2],
        "Duplicate would be wrong: the failed call stored it"
    );
    fixture
        .faulty
        .fault_once(Operation::Enqueue, Fault::Before(ErrorKind::Internal));
    let answers = enqueue_together(&fixture, &["c", "d"]).await;
    assert_eq!(answers, [Ok(Stored); 2]);
}

/// A backend may store a part of a batch before it finds one message invalid.
#[tokio::test]
async fn a_batch_that_was_stored_in_part_and_then_refused_has_no_duplicates() {
    let fixture = Fixture::new();
    fixture
        .faulty
        .fault_once(Operation::Enqueue, Fault::After(ErrorKind::InvalidInput));
    let answers = enqueue_together(&fixture, &["a", "b"]).await;
    assert_eq!(
        answers,
        [Err(ErrorKind::Unavailable); 2],
        "retryable, because the callers' own input is valid"
    );
    let repeated = enqueue_together(&fixture, &["a", "b"]).await;
    assert_eq!(repeated, [Ok(EnqueueOutcome::Duplicate); 2]);
}

#[tokio::test]
async fn a_settlement_that_the_failed_call_may_have_made_is_not_lost() {
    for (fault, expected) in [
        (Fault::After(ErrorKind::Internal), Err(ErrorKind::Internal)),
        (Fault::Before(ErrorKind::Internal), Ok(Applied)),
        (
            Fault::After(ErrorKind::InvalidInput),
            Err(ErrorKind::Unavailable),
        ),
        (Fault::Before(ErrorKind::InvalidInput), Ok(Applied)),
    ] {
        let fixture = Fixture::new();
        let queue = fixture.queue.clone();
        fixture.store(4).await;
        let leases = join_all((0..4).map(|_| queue.lease())).await.into_iter();
        let receipts: Vec<_> = leases
            .map(|lease| lease.unwrap().expect("four are ready").receipt)
            .collect();
        fixture.faulty.fault_once(Operation::Ack, fault);
        let (first, second) = receipts.split_at(2);
        let acked = join_all(first.iter().map(|receipt| queue.ack(receipt))).await;
        let acked: Vec<_> = acked.into_iter().map(kind).collect();
        assert_eq!(acked, [expected; 2]);
        fixture.faulty.fault_once(Operation::Change, fault);
        let released = join_all(second.iter().map(|receipt| queue.release(receipt))).await;
        let released: Vec<_> = released.into_iter().map(kind).collect();
        assert_eq!(released, [expected; 2]);
    }
}

#[tokio::test]
async fn a_panic_is_an_error_and_later_calls_work() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.faulty.fault_once(Operation::Enqueue, Fault::Panics);
    let error = queue.enqueue(&msg("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("a fault of the test"), "{error}");
    assert_eq!(queue.enqueue(&msg("a")).await.unwrap(), Stored);
    fixture.faulty.fault_once(Operation::Enqueue, Fault::Panics);
    let answers = enqueue_together(&fixture, &["b", "c"]).await;
    assert_eq!(answers, [Ok(Stored); 2], "neither call panics");
}

/// The store refuses a batch and then hangs, so it is not found out whose input it refused.
#[tokio::test(start_paused = true)]
async fn only_a_repeat_tells_a_caller_that_its_input_is_invalid() {
    let fixture = Fixture::new();
    let faulty = &fixture.faulty;
    faulty.fault_once(Operation::Enqueue, Fault::Before(ErrorKind::InvalidInput));
    faulty.fault(Operation::Enqueue, Fault::Hangs);
    let minute = Duration::from_secs(60);
    let messages = ["a", "b", "c"].map(msg);
    let calls = messages
        .iter()
        .map(|message| tokio::time::timeout(minute, fixture.queue.enqueue(message)));
    let answers = join_all(calls).await.into_iter();
    let answers: Vec<_> = answers.map(|it| it.ok().map(kind)).collect();
    let unavailable = Some(Err(ErrorKind::Unavailable));
    assert_eq!(answers, [None, unavailable, unavailable]);
    assert_eq!(faulty.calls(Operation::Enqueue), [3, 1]);
}

#[tokio::test]
async fn a_failed_lease_is_repeated_for_each_caller() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(2).await;
    fixture
        .faulty
        .fault_once(Operation::Lease, Fault::Before(ErrorKind::Internal));
    let leased = join_all((0..2).map(|_| queue.lease())).await;
    assert!(leased.into_iter().all(|lease| lease.unwrap().is_some()));
    assert_eq!(fixture.faulty.calls(Operation::Lease), [2, 1, 1]);
}
