//! Work that ends with its lease.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use queue_api::{
    LeaseOutcome, Purge,
    consumer::{Context, Failure, LeaseEnd},
};

use super::{
    fixture::{Fixture, HOUR, SECOND, VISIBILITY, msg},
    worker::{counts, worker},
};

/// Tells that it was dropped.
#[derive(Clone, Default)]
struct Dropped(Arc<AtomicBool>);

struct TellsDrop(Dropped);

impl Dropped {
    fn on_drop(&self) -> TellsDrop {
        TellsDrop(self.clone())
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for TellsDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

pub(super) async fn it_runs_while_the_lease_is_renewed(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    // It may borrow the lease.
    let work = async {
        fixture.advance(HOUR).await;
        lease.payload().len()
    };
    assert_eq!(lease.hold(work).await, Ok(1));
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn it_ends_with_the_lease_and_drops_the_work(fixture: Fixture) {
    for end in [LeaseEnd::Expired, LeaseEnd::Superseded] {
        fixture.store(&[msg("m")]).await;
        let (_listener, lease) = fixture.one_lease().await;
        match end {
            LeaseEnd::Expired => fixture.faulty.go_down(),
            _ => {
                let purged = fixture.admin.purge(fixture.queue.name(), Purge::Live).await;
                assert_eq!(purged.unwrap(), 1);
            }
        }
        let before = fixture.seconds();
        let dropped = Dropped::default();
        let on_drop = dropped.on_drop();
        let mut hold = Box::pin(lease.hold(async move {
            let _on_drop = on_drop;
            pending::<()>().await
        }));
        assert_eq!(hold.as_mut().await, Err(end));
        assert!(dropped.get(), "{end:?}: before the hold is dropped");
        assert!(fixture.seconds() - before <= VISIBILITY.as_secs());
        fixture.faulty.clear();
        fixture.purge().await;
    }
}

/// A future that is ready at the same time must not go on.
pub(super) async fn after_the_end_the_work_is_not_polled(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    fixture.faulty.go_down();
    lease.ended().await;
    let worked = lease.hold(async { panic!("it is polled") });
    assert_eq!(worked.await, Err::<(), _>(LeaseEnd::Expired));
}

pub(super) async fn dropping_it_keeps_the_lease(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    let dropped = Dropped::default();
    let on_drop = dropped.on_drop();
    let work = async move {
        let _on_drop = on_drop;
        pending::<()>().await
    };
    let held = tokio::time::timeout(SECOND, lease.hold(work)).await;
    assert!(held.is_err() && dropped.get());
    fixture.advance(VISIBILITY * 3).await;
    assert!(!lease.is_ended());
    assert!(fixture.lease_elsewhere().await.is_none());
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn settling_the_lease_ends_it(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    let hold = lease.hold(pending::<()>());
    assert!(lease.ack().await.unwrap().is_applied());
    assert_eq!(hold.await, Err(LeaseEnd::Settled));
}

pub(super) async fn a_handler_can_hold_its_lease(fixture: Fixture) {
    fixture.store(&[msg("kept"), msg("lost")]).await;
    let store = fixture.faulty.clone();
    let worker = worker(&fixture, move |text: String, context: Context| {
        let store = store.clone();
        async move {
            if text == "kept" {
                assert_eq!(context.hold(async { 1 }).await, Ok(1));
                return Ok(());
            }
            store.go_down();
            let end = context.hold(pending::<()>()).await.unwrap_err();
            store.clear();
            Err(Failure::retry_after(HOUR, format!("{end:?}")))
        }
    });
    // So that the first is settled before the store is down.
    let worker = worker.with_concurrency(1);
    let stop = fixture.clock.now() + VISIBILITY * 2;
    let report = worker.run(fixture.clock.sleep_until(stop)).await.unwrap();
    assert_eq!(counts(report), [1, 1, 0, 0, 0, 0]);
}
