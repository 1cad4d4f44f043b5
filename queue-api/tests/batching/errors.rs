//! Errors: who is told, and whether what is told is true.

use futures::future::join_all;
use queue_api::{
    EnqueueOutcome::{self, Stored},
    ErrorKind,
    LeaseOutcome::Applied,
    Result,
};

use crate::{
    backend::{Fault, REFUSED, Watched},
    msg, store,
};

async fn enqueue_together(backend: &std::sync::Arc<Watched>, ids: &[&str]) -> Vec<Told> {
    let queue = backend.batching();
    let messages: Vec<_> = ids.iter().map(|id| msg(id)).collect();
    let told = join_all(messages.iter().map(|message| queue.enqueue(message))).await;
    told.into_iter().map(kind).collect()
}

type Told = Result<EnqueueOutcome, ErrorKind>;

fn kind<T>(told: Result<T>) -> Result<T, ErrorKind> {
    told.map_err(|error| error.kind())
}

#[tokio::test]
async fn a_failure_of_the_store_is_everybodys() {
    for failure in [
        ErrorKind::Unavailable,
        ErrorKind::TimedOut,
        ErrorKind::QueueFull,
        ErrorKind::Denied,
    ] {
        let backend = Watched::new();
        backend.fault(Fault::Before(failure));
        let told = enqueue_together(&backend, &["a", "b", "c"]).await;
        assert_eq!(told, [Err(failure); 3]);
        assert_eq!(
            backend.sizes("enqueue"),
            [3],
            "nobody tries again on their behalf"
        );
        let repeated = enqueue_together(&backend, &["a", "b", "c"]).await;
        assert_eq!(repeated, [Ok(Stored); 3]);
    }
}

#[tokio::test]
async fn bad_input_is_its_callers_alone() {
    let backend = Watched::new();
    let told = enqueue_together(&backend, &["a", REFUSED, "c"]).await;
    assert_eq!(told, [Ok(Stored), Err(ErrorKind::InvalidInput), Ok(Stored)]);
    assert_eq!(backend.sizes("enqueue"), [3, 1, 1, 1]);
    let told = enqueue_together(&backend, &[REFUSED]).await;
    assert_eq!(told, [Err(ErrorKind::InvalidInput)]);
    assert_eq!(
        backend.sizes("enqueue").len(),
        5,
        "alone, it is not repeated"
    );
}

#[tokio::test]
async fn a_part_that_a_failed_call_may_have_made_is_not_called_a_duplicate() {
    let backend = Watched::new();
    backend.fault(Fault::After(ErrorKind::Internal));
    let told = enqueue_together(&backend, &["a", "b"]).await;
    assert_eq!(
        told,
        [Err(ErrorKind::Internal); 2],
        "they stored it themselves"
    );
    backend.fault(Fault::Before(ErrorKind::Internal));
    let told = enqueue_together(&backend, &["c", "d"]).await;
    assert_eq!(told, [Ok(Stored); 2]);
}

#[tokio::test]
async fn a_settlement_that_a_failed_call_may_have_made_is_not_called_lost() {
    for (fault, expected) in [
        (Fault::After(ErrorKind::Internal), Err(ErrorKind::Internal)),
        (Fault::Before(ErrorKind::Internal), Ok(Applied)),
    ] {
        let backend = Watched::new();
        let queue = backend.batching();
        store(&backend.bare(), 4).await;
        let leases = join_all((0..4).map(|_| queue.lease())).await.into_iter();
        let receipts: Vec<_> = leases
            .map(|lease| lease.unwrap().expect("four are ready").receipt)
            .collect();
        backend.fault(fault);
        let (first, second) = receipts.split_at(2);
        let acked = join_all(first.iter().map(|receipt| queue.ack(receipt))).await;
        let acked: Vec<_> = acked.into_iter().map(kind).collect();
        assert_eq!(acked, [expected; 2]);
        backend.fault(fault);
        let returned = join_all(second.iter().map(|receipt| queue.release(receipt))).await;
        let returned: Vec<_> = returned.into_iter().map(kind).collect();
        assert_eq!(returned, [expected; 2]);
    }
}

#[tokio::test]
async fn a_panic_is_an_error_and_what_comes_next_is_made() {
    let backend = Watched::new();
    let queue = backend.batching();
    backend.fault(Fault::Panics);
    let error = queue.enqueue(&msg("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("a fault of the test"), "{error}");
    assert_eq!(queue.enqueue(&msg("a")).await.unwrap(), Stored);
    backend.fault(Fault::Panics);
    let told = enqueue_together(&backend, &["b", "c"]).await;
    assert_eq!(told, [Ok(Stored); 2], "alone, neither panicked");
}

#[tokio::test]
async fn a_lease_is_tried_again_for_each() {
    let backend = Watched::new();
    let queue = backend.batching();
    store(&backend.bare(), 2).await;
    backend.fault(Fault::Before(ErrorKind::Internal));
    let leased = join_all((0..2).map(|_| queue.lease())).await;
    assert!(leased.into_iter().all(|lease| lease.unwrap().is_some()));
    assert_eq!(backend.sizes("lease"), [2, 1, 1]);
}
