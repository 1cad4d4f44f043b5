//! Plays a history on a backend and keeps a timeline.

use std::{
    fmt::{self, Display},
    sync::Arc,
    time::Duration,
};

use queue_api::{
    Batching, LeaseAction, LeaseChange, LeaseOptions, ManualClock, NewMessage, QueueBackend,
};

use super::{
    command::{CONNECTIONS, Command, IDS, MessageSpec, QUEUES, ReceiptPick},
    player::{Player, equal, letter, unexpected},
};
use crate::{
    fixture::Fixture,
    harness::{Harness, TestTime},
    isolation::{isolated, with_store},
    record::millis,
    tally::Counts,
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
pub(crate) async fn play(harness: &dyn Harness, commands: &[Command], did: &mut Counts) -> Played {
    let time = TestTime::Manual(Arc::new(ManualClock::new()));
    let timeout = harness.timeout();
    // Twice the timeout, so that a history that does not end still has a timeline.
    with_store(harness, time.clone(), timeout * 2, async |store| {
        let fixture = Fixture::new(store, time, timeout).await?;
        let mut player = Player::new(fixture, timeout / 3);
        let played = isolated(timeout, player.play(commands)).await;
        let timeline = player.timeline;
        player.tally.add_to(did);
        Ok(played
            .flatten()
            .map_err(|why| FailedHistory { timeline, why }))
    })
    .await
}

impl Player {
    async fn play(&mut self, commands: &[Command]) -> Result<(), String> {
        for command in commands {
            self.step(command).await?;
            for queue in touched_by(command) {
                self.compare_stats(queue).await?;
                self.wake_waits(queue).await?;
            }
        }
        self.drain().await
    }

    async fn step(&mut self, command: &Command) -> Result<(), String> {
        self.tally.called();
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
            Command::Use(n) => {
                let other = match *n < self.connections.len() {
                    true => self.connections.remove(*n),
                    false => self.fixture.reconnect().await,
                };
                self.connections
                    .push(std::mem::replace(&mut self.fixture, other));
                self.connections.truncate(CONNECTIONS - 1);
                self.note("use another connection", "");
                Ok(())
            }
            Command::Batch => {
                let batching =
                    |backend| -> Arc<dyn QueueBackend> { Arc::new(Batching::new(backend)) };
                self.fixture = self.fixture.clone().wrapped(batching);
                self.note("batch calls", "");
                Ok(())
            }
            Command::Wait {
                queue,
                waits,
                at_most,
                drops_one,
            } => {
                for _ in 0..*waits {
                    let on = self.queue(*queue);
                    self.waits.start(*queue, on, *at_most, self.timeout).await?;
                }
                self.note(
                    format!("queue {queue}: {waits} waits, at most {at_most:?}"),
                    "",
                );
                if *drops_one && self.waits.drop_one(*queue) {
                    self.tally.add("waits that were dropped", 1);
                    self.note("one of them is dropped", "");
                }
                Ok(())
            }
            managed => self.manage(managed).await,
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
        for (message, outcome) in messages.iter().zip(&outcomes) {
            let place = format!("{}/{}", on.name, message.id);
            self.tally.enqueued(place, *outcome);
        }
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
        self.tally.leased(on.name.as_str(), &deliveries);
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
        let now = millis(self.fixture.now());
        for (receipt, outcome) in receipts.iter().zip(&outcomes) {
            let used = (on.name.as_str(), receipt.as_str());
            self.tally.used(used, None, Some(*outcome), now);
        }
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
            let used = (on.name.as_str(), change.receipt.as_str());
            let now = millis(self.fixture.now());
            self.tally
                .used(used, Some(&change.action), Some(*outcome), now);
        }
        let now = self.fixture.now();
        let model = &mut self.models[queue];
        let expected: Vec<_> = changes
            .iter()
            .map(|c| model.change(&c.receipt, &c.action, now))
            .collect();
        equal("A2 to A5: outcomes", outcomes, expected)
    }

    /// In the end every message left is delivered, whatever its delay.
    async fn drain(&mut self) -> Result<(), String> {
        let end = "end of the history: 10 seconds pass, and everything left is leased";
        self.timeline
            .push(format!("{:>6} ms  -- {end} --", self.elapsed));
        self.step(&Command::Pass(10_000)).await?;
        for queue in 0..QUEUES {
            self.wake_waits(queue).await?;
            // One more than there are ids, so that the call meets every exhausted message.
            self.lease(queue, IDS + 1, Some(1_000_000)).await?;
            self.compare_stats(queue).await?;
            if self.fixture.has_admin() {
                let mut dead = self.queue(queue).all_dead_letters().await;
                for letter in &dead {
                    self.tally
                        .saw_dead(format!("{queue}/{}", letter.id), &letter.reason);
                }
                dead.sort_by(|one, other| one.id.cmp(&other.id));
                equal("D1: dead letters", dead, self.models[queue].dead_letters())?;
            }
        }
        Ok(())
    }
}

fn touched_by(command: &Command) -> std::ops::Range<usize> {
    match command {
        Command::Pass(_)
        | Command::Reconnect
        | Command::Use(_)
        | Command::Batch
        | Command::List => 0..QUEUES,
        Command::Enqueue { queue, .. }
        | Command::Lease { queue, .. }
        | Command::Ack { queue, .. }
        | Command::Change { queue, .. }
        | Command::Peek { queue, .. }
        | Command::Purge { queue, .. }
        | Command::Redrive { queue, .. }
        | Command::Wait { queue, .. }
        | Command::DeadLetters { queue, .. }
        | Command::Messages { queue, .. }
        | Command::Delete { queue } => *queue..*queue + 1,
    }
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
