//! `bench`: a short load on a queue of its own, to compare servers and to report figures.

use std::{fmt, time::Duration};

use clap::Args;
use jiff::Timestamp;
use queue_api::{EnqueueOutcome, Limits, MessageId, NewMessage, Queue, QueueName, Receipt};
use queue_docdb::mongodb::bson::doc;
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    cli::at_least_one,
    connect::Connection,
    duration,
    failure::{Exit, Failure, Result},
    output::{Column, Output, Row},
    stop::Stop,
};

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// How long each measurement takes. There are two for each batch size, and one of single calls.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse_positive)]
    time: Duration,
    /// Messages a batch.
    #[arg(
        long,
        value_name = "COUNT",
        value_delimiter = ',',
        default_value = "1,10,100,500",
        value_parser = at_least_one::<usize>
    )]
    batch: Vec<usize>,
    /// Bytes of each payload.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    payload: usize,
}

/// What to paste into a report.
#[derive(Serialize)]
struct Conditions {
    queuectl: &'static str,
    server: String,
    /// Of the fastest of five pings.
    round_trip_ms: f64,
    payload_bytes: usize,
    at: Timestamp,
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "queuectl {}, {}, round trip {:.2} ms, payloads of {} bytes, {}\n\
             one caller, on a queue of its own, which is removed\n",
            self.queuectl, self.server, self.round_trip_ms, self.payload_bytes, self.at
        )
    }
}

/// Messages a second.
#[derive(Serialize)]
struct Rate {
    batch: usize,
    enqueued_per_second: f64,
    /// Leased and acked.
    finished_per_second: f64,
    /// Of these, how many a lease call gave on average.
    finished_per_lease: f64,
}

impl Row for Rate {
    const COLUMNS: &[Column] = &[
        Column::Number("BATCH"),
        Column::Number("ENQUEUED/S"),
        Column::Number("LEASED AND ACKED/S"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.batch.to_string(),
            format!("{:.0}", self.enqueued_per_second),
            format!("{:.0}", self.finished_per_second),
        ]
    }
}

/// Of calls with one message, in milliseconds.
#[derive(Serialize)]
struct Latency {
    call: &'static str,
    calls: usize,
    median_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

impl Latency {
    fn of(call: &'static str, mut took: Vec<Duration>) -> Self {
        took.sort();
        let at = |share: f64| {
            let place = (took.len() as f64 * share) as usize;
            let found = took.get(place.min(took.len().saturating_sub(1)));
            found.map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        Self {
            call,
            calls: took.len(),
            median_ms: at(0.5),
            p99_ms: at(0.99),
            longest_ms: at(1.0),
        }
    }
}

impl Row for Latency {
    const COLUMNS: &[Column] = &[
        Column::Text("CALL"),
        Column::Number("CALLS"),
        Column::Number("MEDIAN MS"),
        Column::Number("P99 MS"),
        Column::Number("LONGEST MS"),
    ];

    fn cells(&self) -> Vec<String> {
        let numbers = [self.median_ms, self.p99_ms, self.longest_ms];
        let mut cells = vec![self.call.to_owned(), self.calls.to_string()];
        cells.extend(numbers.map(|ms| format!("{ms:.2}")));
        cells
    }
}

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: BenchArgs,
) -> Result<()> {
    check(&args, connection.admin.backend().limits())?;
    let name = format!("queuectl-bench-{}", Uuid::new_v4().simple());
    let queue = QueueName::new(&name)?;
    let stop = Stop::listen()?;
    let done = measure(connection, output, &queue, &args, &stop).await;
    let removed = connection.admin.delete_queue(&queue).await;
    both(done, removed, &queue)
}

/// The end of the measurement, and that of its queue.
fn both(done: Result<()>, removed: queue_api::Result<()>, queue: &QueueName) -> Result<()> {
    let left = removed.map_err(|error| format!("queue {queue} may be left: {error:#}"));
    match (done, left) {
        (Ok(()), Ok(())) => Ok(()),
        (Ok(()), Err(left)) => Err(Failure::new(Exit::Failed, left)),
        (Err(failure), Ok(())) => Err(failure.advise("the queue of the measurement is removed")),
        (Err(failure), Err(left)) => Err(failure.advise(&left)),
    }
}

/// A measurement. A signal ends it between two calls, because a call that is dropped may go on, and
/// store messages after the queue was removed.
struct Measurement<'a> {
    began: Instant,
    time: Duration,
    stop: &'a Stop,
}

impl<'a> Measurement<'a> {
    fn begin(time: Duration, stop: &'a Stop) -> Self {
        let began = Instant::now();
        Self { began, time, stop }
    }

    fn goes_on(&self) -> bool {
        self.began.elapsed() < self.time && self.stop.requested().is_none()
    }

    /// Messages a second until now.
    fn end(self, messages: usize) -> Result<f64> {
        match self.stop.requested() {
            Some(exit) => Err(exit.stopped()),
            None => Ok(messages as f64 / self.began.elapsed().as_secs_f64()),
        }
    }
}

fn check(args: &BenchArgs, limits: Limits) -> Result<()> {
    let most = limits.max_batch.get();
    if let Some(batch) = args.batch.iter().find(|batch| **batch > most) {
        let text = format!("--batch has {batch}; a batch has 1 to {most} messages");
        return Err(Failure::usage(text));
    }
    let (payload, most) = (args.payload, limits.max_payload_bytes);
    if payload > most {
        let text = format!("--payload is {payload}; it must be at most {most} bytes");
        return Err(Failure::usage(text));
    }
    Ok(())
}

async fn measure(
    connection: &Connection,
    output: &mut Output,
    name: &QueueName,
    args: &BenchArgs,
    stop: &Stop,
) -> Result<()> {
    output.summary(&conditions(connection, args).await?)?;
    let queue = connection.queue(name)?;
    let template = NewMessage::new(vec![b'x'; args.payload]);
    // The first enqueue makes the queue, which is not measured.
    queue.enqueue(&fresh(&template)).await?;
    let mut rates = Vec::new();
    for batch in args.batch.iter().copied() {
        let (mut enqueued, measured) = (0, Measurement::begin(args.time, stop));
        while measured.goes_on() {
            let messages: Vec<_> = (0..batch).map(|_| fresh(&template)).collect();
            let outcomes = queue.enqueue_batch(&messages).await?;
            let stored = outcomes.iter().filter(|it| **it == EnqueueOutcome::Stored);
            enqueued += stored.count();
        }
        let enqueued_per_second = measured.end(enqueued)?;
        let (finished_per_second, finished_per_lease) =
            finish(&queue, batch, Measurement::begin(args.time, stop)).await?;
        connection.admin.purge(name, queue_api::Purge::Live).await?;
        rates.push(Rate {
            batch,
            enqueued_per_second,
            finished_per_second,
            finished_per_lease,
        });
    }
    output.rows(&rates)?;
    output.new_table()?;
    let measured = Measurement::begin(args.time, stop);
    output.rows(&latencies(&queue, &template, measured).await?)
}

/// A message with an id of its own. The second of two with one id would not be stored.
fn fresh(template: &NewMessage) -> NewMessage {
    template.clone().with_id(MessageId::generate())
}

/// Leases and acks until the queue is empty or the time is over. Returns how many messages a second,
/// and a lease.
async fn finish(queue: &Queue, batch: usize, measured: Measurement<'_>) -> Result<(f64, f64)> {
    let options = queue_api::LeaseOptions::new(batch);
    let (mut finished, mut leases) = (0, 0);
    while measured.goes_on() {
        let leased = queue.lease_batch(&options).await?;
        if leased.is_empty() {
            break;
        }
        leases += 1;
        let receipts: Vec<Receipt> = leased.into_iter().map(|it| it.receipt).collect();
        let acked = queue.ack_batch(&receipts).await?;
        finished += acked.iter().filter(|it| it.is_applied()).count();
    }
    let per_second = measured.end(finished)?;
    Ok((per_second, finished as f64 / f64::from(leases.max(1))))
}

async fn latencies(
    queue: &Queue,
    template: &NewMessage,
    measured: Measurement<'_>,
) -> Result<[Latency; 3]> {
    let [mut enqueues, mut leases, mut acks] = [const { Vec::new() }; 3];
    while measured.goes_on() {
        let message = fresh(template);
        let began = Instant::now();
        queue.enqueue(&message).await?;
        enqueues.push(began.elapsed());
        let began = Instant::now();
        let leased = queue.lease().await?;
        leases.push(began.elapsed());
        let began = Instant::now();
        if let Some(leased) = leased {
            let _ = queue.ack(&leased.receipt).await?;
            acks.push(began.elapsed());
        }
    }
    measured.end(acks.len())?;
    Ok([
        Latency::of("enqueue", enqueues),
        Latency::of("lease", leases),
        Latency::of("ack", acks),
    ])
}

async fn conditions(connection: &Connection, args: &BenchArgs) -> Result<Conditions> {
    let admin = connection.backend.client().database("admin");
    let command = async |command| {
        let done = admin.run_command(command).await;
        done.map_err(|error| {
            Failure::new(Exit::Failed, format!("the server does not answer: {error}"))
        })
    };
    let version = command(doc! { "buildInfo": 1 }).await?;
    let version = version.get_str("version").unwrap_or("of unknown version");
    let hello = command(doc! { "hello": 1 }).await?;
    let kind = match (hello.get_str("setName"), hello.get_array("hosts")) {
        (Ok(_), Ok(hosts)) => format!("replica set of {}", hosts.len()),
        _ if hello.get_str("msg").is_ok() => "sharded".to_owned(),
        _ => "standalone".to_owned(),
    };
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        command(doc! { "ping": 1 }).await?;
        fastest = fastest.min(began.elapsed());
    }
    Ok(Conditions {
        queuectl: env!("CARGO_PKG_VERSION"),
        server: format!("server version {version}, {kind}"),
        round_trip_ms: fastest.as_secs_f64() * 1e3,
        payload_bytes: args.payload,
        at: crate::output::timestamp(super::doctor::wall_clock()),
    })
}

#[cfg(test)]
mod tests {
    use queue_api::{Error, ErrorKind};

    use super::*;

    #[test]
    fn a_failure_of_the_removal_hides_no_other() {
        let queue = QueueName::new("bench").expect("a name");
        let measured = || Err(Failure::new(Exit::Unreachable, "no answer"));
        let removed = || Err(Error::new(ErrorKind::Denied, "delete", "not allowed"));
        let failure = both(measured(), removed(), &queue).expect_err("both failed");
        assert_eq!(failure.exit, Exit::Unreachable);
        let text = &failure.text;
        assert!(
            text.starts_with("no answer; queue bench may be left: "),
            "{text}"
        );
        assert!(text.contains("not allowed"), "{text}");
        let failure = both(Ok(()), removed(), &queue).expect_err("one failed");
        assert!(
            failure.text.starts_with("queue bench may be left: "),
            "{}",
            failure.text
        );
        let failure = both(measured(), Ok(()), &queue).expect_err("one failed");
        assert_eq!(
            failure.text,
            "no answer; the queue of the measurement is removed"
        );
        assert!(both(Ok(()), Ok(()), &queue).is_ok());
    }
}
