//! Tower services and layers as the handler of a worker.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use queue_api::{
    Clock, NewMessage, Queue, Result, TokioClock,
    consumer::{Failure, Handler, Request, ServiceFuture, ServiceHandler, Worker},
};
use queue_memory::MemoryBackend;
use tower::{Service, ServiceBuilder, service_fn};

async fn numbers(count: u32) -> Result<Queue> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "numbers")?;
    for number in 0..count {
        queue.enqueue(&NewMessage::new(number.to_string())).await?;
    }
    Ok(queue)
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_of_tower_holds_for_the_whole_worker() -> Result<()> {
    let queue = numbers(10).await?;
    let running = Arc::new(AtomicUsize::new(0));
    let peak = Arc::new(AtomicUsize::new(0));
    let (measured, clock) = (peak.clone(), Arc::new(TokioClock::new()));
    let service = ServiceBuilder::new()
        .concurrency_limit(2)
        .service(service_fn(move |request: Request<u32>| {
            let (running, peak, clock) = (running.clone(), peak.clone(), clock.clone());
            async move {
                assert_eq!(request.context.attempt(), 1);
                let now = running.fetch_add(1, Ordering::Relaxed) + 1;
                peak.fetch_max(now, Ordering::Relaxed);
                clock
                    .sleep_until(clock.now() + Duration::from_secs(60))
                    .await;
                running.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, Infallible>(())
            }
        }));
    let worker = Worker::new(queue, ServiceHandler::new(service)).with_concurrency(8);
    assert_eq!(worker.run_until_idle().await?.handled, 10);
    assert_eq!(measured.load(Ordering::Relaxed), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_tower_is_a_failure() -> Result<()> {
    let queue = numbers(1).await?;
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(5))
        .service(service_fn(|_: Request<u32>| async {
            std::future::pending::<Result<(), Infallible>>().await
        }));
    let worker = Worker::new(queue.clone(), ServiceHandler::new(service));
    assert_eq!(worker.run_until_idle().await?.failed, 1);
    assert_eq!(queue.stats().await?.delayed, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_service_can_give_up() -> Result<()> {
    let queue = numbers(3).await?;
    let service = service_fn(|request: Request<u32>| async move {
        match request.message {
            1 => Err(Failure::give_up("never")),
            _ => Ok(()),
        }
    });
    let worker = Worker::new(queue, ServiceHandler::new(service));
    let report = worker.run_until_idle().await?;
    assert_eq!((report.handled, report.dead_lettered), (2, 1));
    Ok(())
}

/// A layer of the application can name the future of a service handler.
struct Counted<S> {
    inner: ServiceHandler<S>,
    begun: Arc<AtomicUsize>,
}

impl<S> Handler<u32> for Counted<S>
where
    S: Service<Request<u32>, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
{
    #[allow(refining_impl_trait)]
    fn handle(&self, message: u32, context: queue_api::consumer::Context) -> ServiceFuture<u32, S> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.inner.handle(message, context)
    }
}

#[tokio::test(start_paused = true)]
async fn its_future_has_a_name_and_is_cancelled_by_a_drop() -> Result<()> {
    let queue = numbers(2).await?;
    let begun = Arc::new(AtomicUsize::new(0));
    let running = Arc::new(());
    let held = running.clone();
    let service = service_fn(move |_: Request<u32>| {
        let held = held.clone();
        async move {
            let _held = held;
            std::future::pending::<Result<(), Failure>>().await
        }
    });
    let handler = Counted {
        inner: ServiceHandler::new(service),
        begun: begun.clone(),
    };
    let worker = Worker::new(queue, handler).with_time_limit(Duration::from_secs(5));
    assert_eq!(worker.run_until_idle().await?.failed, 2);
    assert_eq!(begun.load(Ordering::Relaxed), 2);
    // This one, and that of the service itself.
    assert_eq!(Arc::strong_count(&running), 2, "the calls were dropped");
    Ok(())
}
