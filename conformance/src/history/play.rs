//! Plays a history on a backend and keeps a timeline.

use std::{
    fmt::{self, Debug, Display},
    sync::Arc,
    time::Duration,
};

use queue_api::{
    LeaseAction, LeaseChange, LeaseOptions, ManualClock, MessageId, NewMessage, Receipt, Redrive,
};

use super::{
    command::{Command, IDS, MessageSpec, QUEUES, ReceiptPick},
    model::Model,
};
use crate::{
    fixture::{Fixture, OneQueue, id_of},
    harness::{Harness, TestTime},
    isolation::{isolated, with_store},
};

/// A history that the model rejects, or that did not end.
#[derive(Debug)]
pub(crate) struct FailedHistory {
    timeline: Vec<String>,
    why: String,
}

impl Display for FailedHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.timeline {
            writeln!(f, "  {line}")?;
        }
        write!(f, "  ==> {}", self.why)
    }
}

/// The result of a history. The outer error is an error of the harness.
pub(crate) type Played = Result<Result<(), FailedHistory>, String>;

/// Plays `commands` on a new store.
pub(crate) async fn play(harness: &dyn Harness, commands: &[Command]) -> Played {
    let time = TestTime::Manual(Arc::new(ManualClock::new()));
    let timeout = harness.timeout();
    // Twice the timeout, so that a history that does not end still has a timeline.
    with_store(harness, time.clone(), timeout * 2, async |store| {
        let fixture = Fixture::new(store, time, timeout).await?;
        let mut player = Player::new(fixture);
        let played = isolated(timeout, player.play(commands)).await;
        let timeline = player.timeline;
        Ok(played
            .flatten()
            .map_err(|why| FailedHistory { timeline, why }))
    })
    .await
}

struct Player {
    fixture: Fixture,
    models: [Model; QUEUES],
    /// All receipts of each queue, oldest first.
    receipts: [Vec<Receipt>; QUEUES],
    elapsed: u64,
    timeline: Vec<String>,
}

impl Player {
    fn new(fixture: Fixture) -> Self {
        Self {
            fixture,
            models: Default::default(),
            receipts: Default::default(),
            elapsed: 0,
            timeline: Vec::new(),
        }
    }

    async fn play(&mut self, commands: &[Command]) -> Result<(), String> {
        for command in commands {
            self.step(command).await?;
            for queue in touched_by(command) {
                self.compare_stats(queue).await?;
            }
        }
        self.drain().await
    }

    async fn step(&mut self, command: &Command) -> Result<(), String> {
        match command {
            Command::Enqueue { queue, messages } => self.enqueue(*queue, messages).await,
            Command::Lease {
                queue,
                max,
                visibility,
            } => self.lease(*queue, *max, *visibility).await,
            Command::Ack { queue, picks } => self.ack(*queue, picks).await,
            Command::Change { queue, changes } => self.change(*queue, changes).await,
            Command::Pass(millis) => {
                self.fixture.pass(*millis).await;
                self.elapsed += millis;
                Ok(())
            }
            Command::Reconnect => {
                self.fixture = self.fixture.reconnect().await;
                self.note("reconnect", "");
                Ok(())
            }
            Command::Peek { queue, max } => {
                let on = self.queue(*queue);
                let seen = on.admin().peek(&on.name, *max).await.map_err(unexpected)?;
                self.models[*queue].peek(*max, self.fixture.now(), &seen)
            }
            Command::Purge { queue, what } => {
                let on = self.queue(*queue);
                let purged = on
                    .admin()
                    .purge(&on.name, *what)
                    .await
                    .map_err(unexpected)?;
                self.note(format!("queue {queue}: purge {what:?}"), purged);
                equal("M1: purged", purged, self.models[*queue].purge(*what))
            }
            Command::Redrive { queue, ids } => self.redrive(*queue, ids).await,
            Command::Delete { queue } => {
                let on = self.queue(*queue);
                on.admin()
                    .delete_queue(&on.name)
                    .await
                    .map_err(unexpected)?;
                self.note(format!("queue {queue}: delete"), "");
                self.models[*queue].delete();
                Ok(())
            }
        }
    }

    async fn enqueue(&mut self, queue: usize, specs: &[MessageSpec]) -> Result<(), String> {
        let messages: Vec<_> = specs.iter().map(message).collect();
        let on = self.queue(queue);
        let outcomes = on
            .backend()
            .enqueue(&on.name, &messages)
            .await
            .map_err(unexpected)?;
        let shown: Vec<_> = specs.iter().map(describe).collect();
        self.note(
            format!("queue {queue}: enqueue {}", shown.join(", ")),
            format!("{outcomes:?}"),
        );
        let now = self.fixture.now();
        let model = &mut self.models[queue];
        let expected: Vec<_> = messages
            .iter()
            .map(|message| model.enqueue(message, now))
            .collect();
        equal("E1, E2: outcomes", outcomes, expected)
    }

    async fn lease(
        &mut self,
        queue: usize,
        max: usize,
        visibility: Option<u64>,
    ) -> Result<(), String> {
        let on = self.queue(queue);
        let options = match visibility.map(Duration::from_millis) {
            None => LeaseOptions::new(max),
            Some(timeout) => LeaseOptions::new(max).with_visibility_timeout(timeout),
        };
        let deliveries = on
            .backend()
            .lease(&on.name, &options)
            .await
            .map_err(unexpected)?;
        let leased: Vec<_> = deliveries
            .iter()
            .map(|delivery| format!("{} (attempt {})", delivery.id, delivery.attempt))
            .collect();
        let timeout = visibility.map_or(String::new(), |millis| format!(" for {millis} ms"));
        self.note(
            format!("queue {queue}: lease {max}{timeout}"),
            leased.join(", "),
        );
        self.receipts[queue].extend(deliveries.iter().map(|delivery| delivery.receipt.clone()));

        let now = self.fixture.now();
        let visibility = visibility.map(Duration::from_millis);
        let undecided = self.models[queue].lease(max, visibility, now, &deliveries)?;
        if !undecided.is_empty() {
            let dead = on.all_dead_letters().await;
            self.models[queue].decide(&undecided, &dead, now);
        }
        Ok(())
    }

    async fn ack(&mut self, queue: usize, picks: &[ReceiptPick]) -> Result<(), String> {
        let receipts: Vec<_> = picks
            .iter()
            .filter_map(|pick| self.receipt(queue, pick))
            .collect();
        let on = self.queue(queue);
        let outcomes = on
            .backend()
            .ack(&on.name, &receipts)
            .await
            .map_err(unexpected)?;
        self.note(
            format!("queue {queue}: ack {receipts:?}"),
            format!("{outcomes:?}"),
        );
        let model = &mut self.models[queue];
        let expected: Vec<_> = receipts.iter().map(|receipt| model.ack(receipt)).collect();
        equal("A1 to A4: outcomes", outcomes, expected)
    }

    async fn change(
        &mut self,
        queue: usize,
        changes: &[(ReceiptPick, LeaseAction)],
    ) -> Result<(), String> {
        let pairs = changes.iter().filter_map(|(pick, action)| {
            let receipt = self.receipt(queue, pick)?;
            Some(LeaseChange {
                receipt,
                action: action.clone(),
            })
        });
        let changes: Vec<_> = pairs.collect();
        let on = self.queue(queue);
        let outcomes = on
            .backend()
            .change(&on.name, &changes)
            .await
            .map_err(unexpected)?;
        for (change, outcome) in changes.iter().zip(&outcomes) {
            let what = format!("queue {queue}: {:?} {:?}", change.action, change.receipt);
            self.note(what, format!("{outcome:?}"));
        }
        let now = self.fixture.now();
        let model = &mut self.models[queue];
        let expected: Vec<_> = changes
            .iter()
            .map(|c| model.change(&c.receipt, &c.action, now))
            .collect();
        equal("A2 to A5: outcomes", outcomes, expected)
    }

    async fn redrive(&mut self, queue: usize, ids: &[usize]) -> Result<(), String> {
        let ids: Vec<MessageId> = ids.iter().map(|id| letter(*id)).collect();
        let (which, named) = match &ids[..] {
            [] => (Redrive::All, None),
            ids => (Redrive::Ids(ids.to_vec()), Some(ids)),
        };
        let on = self.queue(queue);
        let redriven = on
            .admin()
            .redrive(&on.name, &which)
            .await
            .map_err(unexpected)?;
        self.note(format!("queue {queue}: redrive {which:?}"), redriven);
        equal(
            "D1: redriven",
            redriven,
            self.models[queue].redrive(named, self.fixture.now()),
        )
    }

    async fn compare_stats(&self, queue: usize) -> Result<(), String> {
        let on = self.queue(queue);
        let stats = on.backend().stats(&on.name).await.map_err(unexpected)?;
        equal(
            "S1: stats",
            stats,
            self.models[queue].stats(self.fixture.now()),
        )
    }

    /// In the end every message left is delivered, whatever its delay.
    async fn drain(&mut self) -> Result<(), String> {
        let end = "end of the history: 10 seconds pass, and everything left is leased";
        self.timeline
            .push(format!("{:>6} ms  -- {end} --", self.elapsed));
        self.step(&Command::Pass(10_000)).await?;
        for queue in 0..QUEUES {
            // One more than there are ids, so that the call meets every exhausted message.
            self.lease(queue, IDS + 1, Some(1_000_000)).await?;
            self.compare_stats(queue).await?;
            if self.fixture.has_admin() {
                let mut dead = self.queue(queue).all_dead_letters().await;
                dead.sort_by(|one, other| one.id.cmp(&other.id));
                equal("D1: dead letters", dead, self.models[queue].dead_letters())?;
            }
        }
        Ok(())
    }

    fn queue(&self, queue: usize) -> OneQueue {
        self.fixture.other_queue(["first", "second"][queue])
    }

    fn receipt(&self, queue: usize, pick: &ReceiptPick) -> Option<Receipt> {
        let own = &self.receipts[queue];
        let recent = &own[own.len().saturating_sub(3)..];
        let (from, index) = match pick {
            ReceiptPick::Recent(index) => (recent, index),
            ReceiptPick::Any(index) => (&own[..], index),
            ReceiptPick::OtherQueue(index) => (&self.receipts[1 - queue][..], index),
        };
        (!from.is_empty()).then(|| index.get(from).clone())
    }

    fn note(&mut self, what: impl Display, answer: impl Display) {
        self.timeline
            .push(format!("{:>6} ms  {what} -> {answer}", self.elapsed));
    }
}

fn touched_by(command: &Command) -> std::ops::Range<usize> {
    match command {
        Command::Pass(_) | Command::Reconnect => 0..QUEUES,
        Command::Enqueue { queue, .. }
        | Command::Lease { queue, .. }
        | Command::Ack { queue, .. }
        | Command::Change { queue, .. }
        | Command::Peek { queue, .. }
        | Command::Purge { queue, .. }
        | Command::Redrive { queue, .. }
        | Command::Delete { queue } => *queue..*queue + 1,
    }
}

fn letter(id: usize) -> MessageId {
    id_of(["a", "b", "c", "d", "e"][id])
}

fn message(message_spec: &MessageSpec) -> NewMessage {
    NewMessage::new(message_spec.payload.to_string())
        .with_id(letter(message_spec.id))
        .with_header("number", message_spec.payload.to_string())
        .with_delay(Duration::from_millis(message_spec.delay))
        .with_visibility_timeout(Duration::from_millis(message_spec.visibility))
        .with_max_attempts(message_spec.max_attempts)
}

fn describe(message_spec: &MessageSpec) -> String {
    let MessageSpec {
        id,
        delay,
        visibility,
        max_attempts,
        ..
    } = message_spec;
    let id = letter(*id);
    format!("{id} (delay {delay}, visibility {visibility}, max attempts {max_attempts})")
}

fn unexpected(error: queue_api::Error) -> String {
    format!("X1: an error without a cause: {error:?}")
}

fn equal<T: PartialEq + Debug>(what: &str, seen: T, expected: T) -> Result<(), String> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{what}: got {seen:?}, expected {expected:?}"))
}
