//! Workers.

use std::{
    panic::panic_any,
    pin::{Pin, pin},
    sync::Arc,
    task::{self, Poll},
};

use queue_api::{
    Batching, Error, Queue, Result,
    consumer::{
        Context, Handler, ListenOptions, Report, Retry, RetryPolicy, ServiceHandler, Worker,
        Workers,
    },
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    code::{Code, HandlerError, Message, PanicsAgain, PanicsOnDrop, Place, Text},
    service::Panicking,
    subject::{STOP, ends},
    world::{Kind, SECOND, VISIBILITY, World, message},
};

pub(crate) async fn handle(
    world: Arc<World>,
    queue: Queue,
    _message: Message,
    context: Context,
) -> Result<(), HandlerError> {
    let code = &world.code;
    let _dropped = code.dropped(Place::HandlerDrop);
    tokio::task::yield_now().await;
    code.at(Place::HandlerPoll);
    if code.is_due(Place::HandlerPanicDrop) {
        panic_any(PanicsAgain);
    }
    let id = context.id().clone();
    let first = world.begins(&id) == 0;
    match Kind::of(&id) {
        Kind::Plain | Kind::Release => {}
        Kind::Retry if first => return Err(HandlerError::Retry(code.error())),
        Kind::Panic if first => panic!("a fault of the test"),
        Kind::Retry | Kind::Panic => {}
        // It may fail: a worker renews leases by itself.
        Kind::Extend => drop(context.extend(VISIBILITY * 2).await),
        Kind::Long => world.pause(VISIBILITY * 3 / 2).await,
        Kind::Parent => {
            let child = message(&format!("Plain-child-of-{id}"));
            queue.enqueue(&child).await.map_err(HandlerError::Store)?;
        }
        Kind::Dead => return Err(HandlerError::GiveUp(code.error())),
    }
    world.handled(&id);
    Ok(())
}

fn worker_with<H: Handler<Message>>(
    world: &Arc<World>,
    queue: Queue,
    handler: H,
) -> Worker<Message, H, Text> {
    let (hook, policy) = (world.clone(), world.code.clone());
    let options = ListenOptions::new(3)
        .with_clock(world.own_clock())
        .with_error_hook(move |error| {
            hook.error(error);
            hook.code.at(Place::ErrorHook);
        });
    Worker::new(queue, handler)
        .with_codec(Text(world.code.clone()))
        .with_listen_options(options)
        .with_time_limit(SECOND * 120)
        .with_retry_policy(RetryPolicy::custom(move |_| {
            policy.at(Place::RetryPolicy);
            Retry::After(SECOND * 5)
        }))
}

fn worker(
    world: &Arc<World>,
    queue: Queue,
) -> Worker<Message, impl Handler<Message> + use<>, Text> {
    let (handled, sends_to) = (world.clone(), queue.clone());
    worker_with(world, queue, move |message: Message, context: Context| {
        handled.code.at(Place::HandlerCall);
        handle(handled.clone(), sends_to.clone(), message, context)
    })
}

/// Resolves when the subject is asked to stop.
struct Shutdown {
    code: Code,
    asked: Pin<Box<WaitForCancellationFutureOwned>>,
    _dropped: PanicsOnDrop,
}

impl Shutdown {
    fn new(code: &Code, asked: &CancellationToken) -> Self {
        Self {
            code: code.clone(),
            asked: Box::pin(asked.clone().cancelled_owned()),
            _dropped: code.dropped(Place::ShutdownDrop),
        }
    }
}

impl Future for Shutdown {
    type Output = PanicsOnDrop;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<PanicsOnDrop> {
        self.code.at(Place::ShutdownPoll);
        let output = self.code.dropped(Place::ShutdownOutputDrop);
        self.asked.as_mut().poll(cx).map(|()| output)
    }
}

/// Each message that a worker began with is in the report once.
fn judge(world: &World, report: &Report) {
    let Report {
        handled,
        failed,
        dead_lettered,
        released,
        lost,
        unsettled,
        ..
    } = *report;
    let runs = world.code.decoded() as u64;
    if handled + failed + dead_lettered + released + lost + unsettled != runs {
        world.problem(format!("{runs} messages were decoded, but: {report}"));
    }
    let as_expected = [lost, unsettled, released] == [0; 3] && failed == 2 * dead_lettered;
    if world.code.place().is_some_and(Place::observes) && !as_expected {
        world.problem(format!(
            "a message fails because of what observes it: {report}"
        ));
    }
}

/// Stores messages twice, the second time while the subject waits, and waits until all and `more`
/// are handled.
pub(crate) async fn work(world: &Arc<World>, queues: &[&str], more: usize) {
    for queue in queues {
        world.store(queue, queue).await;
    }
    world.pause(SECOND * 100).await;
    for queue in queues {
        world.store(queue, &format!("later-{queue}")).await;
    }
    // Each queue's parents have children.
    let expected = queues.len() * 2 * (Kind::ALL.len() + 1) + more;
    world.recovered(queues, expected).await;
}

/// Runs what `start` starts until all messages are handled. It may end before that only if the
/// shutdown future panicked.
async fn run<F>(world: &Arc<World>, queues: &[&str], start: impl Fn(Shutdown) -> F)
where
    F: Future<Output = Vec<Result<Report>>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let start = || tokio::spawn(start(Shutdown::new(&world.code, &stop)));
    let mut running = start();
    let mut working = pin!(work(world, queues, 0));
    let mut has_restarted = false;
    loop {
        tokio::select! {
            () = &mut working => break,
            ended = &mut running => {
                let outcomes = ended.expect("run does not panic");
                if !outcomes.iter().all(is_of_shutdown) {
                    return world.problem(format!("run ended without being asked: {outcomes:?}"));
                }
                has_restarted = true;
                world.pause(SECOND).await;
                running = start();
            }
        }
    }
    let met = world.code.met();
    stop.cancel();
    let Some(ended) = ends(world, "the shutdown", STOP, running).await else {
        return;
    };
    let outcomes = match ended {
        Ok(outcomes) => outcomes,
        Err(error) => return world.problem(format!("run panicked: {error}")),
    };
    if world.code.met() > met && outcomes.iter().all(is_of_shutdown) {
        return;
    }
    let mut all = Report::default();
    for outcome in outcomes {
        match outcome {
            Ok(report) => all += report,
            Err(error) => return world.problem(format!("run returned {error:?}")),
        }
    }
    if !has_restarted {
        judge(world, &all);
    }
}

fn is_of_shutdown(outcome: &Result<Report>) -> bool {
    let is_it = |error: &Error| error.to_string().contains("the shutdown future panicked");
    outcome.as_ref().is_err_and(is_it)
}

async fn run_one<H: Handler<Message>>(world: &Arc<World>, worker: Worker<Message, H, Text>) {
    let worker = Arc::new(worker);
    let start = |shutdown: Shutdown| {
        let worker = worker.clone();
        async move { vec![worker.run(shutdown).await] }
    };
    run(world, &["q"], start).await;
}

pub(crate) async fn one(world: &Arc<World>) {
    run_one(world, worker(world, world.queue("q"))).await;
}

pub(crate) async fn batching(world: &Arc<World>) {
    let batching = Arc::new(Batching::new(world.backend.clone()));
    run_one(world, worker(world, world.queue_on(batching, "q"))).await;
}

pub(crate) async fn service(world: &Arc<World>) {
    let queue = world.queue("q");
    let service = ServiceHandler::new(Panicking::new(world.clone(), queue.clone()));
    run_one(world, worker_with(world, queue, service)).await;
}

pub(crate) async fn several(world: &Arc<World>) {
    let names = ["q", "p"];
    let workers = names.iter().map(|name| worker(world, world.queue(name)));
    let workers = Arc::new(workers.fold(Workers::new(), Workers::with));
    let start = |shutdown: Shutdown| {
        let workers = workers.clone();
        async move { workers.run(shutdown).await }
    };
    run(world, &names, start).await;
}

pub(crate) async fn until_idle(world: &Arc<World>) {
    let worker = worker(world, world.queue("q"));
    let running = async {
        let mut all = Report::default();
        loop {
            let running = worker.run_until_idle();
            match ends(world, "run_until_idle", SECOND * 600, running).await {
                Some(Ok(report)) => all += report,
                Some(Err(error)) => world.problem(format!("run_until_idle: {error:?}")),
                None => return,
            }
            judge(world, &all);
            let ready = world.elsewhere("q").stats().await.unwrap().ready;
            if ready > 0 {
                world.problem(format!("run_until_idle ended although {ready} are ready"));
            }
            world.pause(SECOND).await;
        }
    };
    tokio::select! {
        () = work(world, &["q"], 0) => {}
        () = running => {}
    }
}
