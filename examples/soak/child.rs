//! A process of the soak: a worker whose handler fails in every way.

use std::{fmt::Display, io::Read, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use queue_api::{
    Clock, MessageId, NewMessage, Queue, TokioClock,
    consumer::{Context, Failure, ListenOptions, Retry, RetryPolicy, Worker},
};
use queue_docdb::DocDbBackend;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::VISIBILITY;

#[derive(Serialize, Deserialize)]
struct Job {
    number: u64,
}

/// What has to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Handled,
    /// Its payload does not decode.
    Undecodable,
    /// Its handler gives it up.
    GivenUp,
}

impl Fate {
    pub(crate) fn of(number: u64) -> Self {
        match number % 50 {
            7 => Self::Undecodable,
            17 => Self::GivenUp,
            _ => Self::Handled,
        }
    }
}

pub(crate) fn message(number: u64) -> NewMessage {
    let payload = match Fate::of(number) {
        Fate::Undecodable => "no job".to_owned(),
        _ => format!("{{\"number\":{number}}}"),
    };
    NewMessage::new(payload)
        .with_id(id(number))
        .with_visibility_timeout(VISIBILITY)
        .with_max_attempts(1000)
}

pub(crate) fn id(number: u64) -> MessageId {
    MessageId::new(&format!("job-{number}")).expect("letters and digits")
}

/// Works at the place that the parent names, until it is told to stop or killed.
pub(crate) async fn work(place: &str) -> anyhow::Result<()> {
    // The parent holds the other end; when it goes away, however it does, so does this.
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    // Thousands of handlers panic, on purpose.
    std::panic::set_hook(Box::new(|_| {}));
    // Before anything else, so that a stop which comes early is a graceful one, too.
    let mut terminate = signal(SignalKind::terminate())?;
    let (database, uri) = place.split_once(' ').context("a database and a URI")?;
    let backend = DocDbBackend::builder(uri).database(database);
    let queue = Queue::new(Arc::new(backend.connect().await?), "soak")?;
    let worker = Worker::new(queue, handle)
        .with_listen_options(ListenOptions::new(8))
        .with_retry_policy(RetryPolicy::custom(|_, _| {
            Retry::After(Duration::from_millis(fastrand::u64(0..500)))
        }))
        .with_shutdown_deadline(Duration::from_millis(300));
    let report = worker.run(terminate.recv()).await?;
    tell(
        "report",
        format_args!("{} {}", report.lost, report.unsettled),
    );
    Ok(())
}

async fn handle(job: Job, context: Context) -> Result<(), Failure> {
    let mut said = Said::begin(&context);
    let clock = TokioClock::new();
    // One in thirty takes longer than the visibility timeout, some of them twice as long.
    let millis = match fastrand::u32(0..300) {
        0 => 4500,
        1..10 => 2500,
        _ => fastrand::u64(0..60),
    };
    clock
        .sleep_until(clock.now() + Duration::from_millis(millis))
        .await;
    if Fate::of(job.number) == Fate::GivenUp {
        said.how = "given-up";
        return Err(Failure::give_up("a job that never works"));
    }
    match fastrand::u32(0..100) {
        0..3 => {
            said.how = "panicked";
            panic!("a bug that shows now and then");
        }
        3..8 => {
            said.how = "failed";
            Err(Failure::retry("out of stock"))
        }
        _ => {
            said.how = "handled";
            Ok(())
        }
    }
}

/// Says when a handler begins and, however it ends, when and how.
struct Said {
    who: String,
    how: &'static str,
}

impl Said {
    fn begin(context: &Context) -> Self {
        let who = format!("{} {}", context.id(), context.attempt());
        tell("begin", format_args!("{who} {}", nanos()));
        Self {
            who,
            how: "cancelled",
        }
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        tell("end", format_args!("{} {} {}", self.who, nanos(), self.how));
    }
}

/// One line, written as a whole.
fn tell(what: &str, rest: impl Display) {
    println!("{what} {rest}");
}

/// Now, by the clock that all processes of this machine share.
pub(crate) fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
