//! The memory backend behind a wrapper with a bug.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use queue_api::{
    Bytes, DeadLetterPage, DeadReason, Delivery, EnqueueOutcome, Error, ErrorKind, LeaseAction,
    LeaseChange, LeaseOptions,
    LeaseOutcome::{self, Applied, Lost},
    Limits, MessageId, MessagePage, MessageState, NewMessage, PageOptions, PageToken,
    PeekedMessage, Purge, QueueAdmin, QueueBackend, QueueName, QueueStats, Receipt, Redrive,
    Result, async_trait,
};
use queue_memory::MemoryBackend;
use tokio::time::timeout;

use crate::{bug::Bug, preconditions};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A clone is another connection to the same queues.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    inner: MemoryBackend,
    bug: Option<Bug>,
    limits: &'static Limits,
    memory: Arc<Mutex<Memory>>,
}

/// What only a backend with a bug remembers.
#[derive(Debug, Default)]
struct Memory {
    overwritten: HashMap<(QueueName, MessageId), Bytes>,
    /// The message of each receipt, and the last receipt of each message.
    messages: HashMap<Receipt, MessageId>,
    last_receipts: HashMap<MessageId, Receipt>,
    /// The first reason of each dead letter.
    reasons: HashMap<MessageId, DeadReason>,
    deletions: u64,
    releases: u64,
    acks: u64,
    /// Queues that are being deleted.
    hidden: HashSet<QueueName>,
}

impl Mutant {
    pub(crate) fn new(inner: MemoryBackend, bug: Option<Bug>, limits: &'static Limits) -> Self {
        Self {
            inner,
            bug,
            limits,
            memory: Arc::default(),
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder panics")
    }

    /// Lets other calls run between two halves of an operation.
    async fn yield_now(&self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    /// Extends the leases that were just taken to a wrong time.
    async fn move_expiry(&self, queue: &QueueName, deliveries: &[Delivery]) -> Result<()> {
        let timeout = |delivery: &Delivery| match self.bug {
            Some(Bug::LeaseLastsOneMillisecond) => Some(Duration::from_millis(1)),
            Some(Bug::ExpiryOneMillisecondLate) => {
                Some(delivery.visibility_timeout + Duration::from_millis(1))
            }
            _ => None,
        };
        let changes: Vec<_> = deliveries
            .iter()
            .filter_map(|d| Some(LeaseChange::extend(d.receipt.clone(), timeout(d)?)))
            .collect();
        self.inner.change(queue, &changes).await.map(drop)
    }

    /// Applies the bugs that show in what a delivery says.
    fn change_deliveries(&self, queue: &QueueName, deliveries: &mut [Delivery]) {
        let mut memory = self.memory();
        for delivery in &mut *deliveries {
            let (id, receipt) = (delivery.id.clone(), delivery.receipt.clone());
            match self.bug {
                Some(Bug::DuplicateOverwritesPayload) => {
                    let overwritten = memory.overwritten.get(&(queue.clone(), id));
                    delivery.payload = overwritten.unwrap_or(&delivery.payload).clone();
                }
                Some(Bug::AttemptsNotCounted) => delivery.attempt = 1,
                Some(Bug::AttemptsAreBytes) => delivery.attempt %= 256,
                Some(Bug::AckIgnoresReceipt) => {
                    memory.messages.insert(receipt.clone(), id.clone());
                    memory.last_receipts.insert(id, receipt);
                }
                _ => {}
            }
        }
        let is_large = deliveries.len() > 100;
        if self.has(Bug::AnswerSortedById) || is_large && self.has(Bug::LargeLeaseIgnoresOrder) {
            deliveries.sort_by(|a, b| a.id.cmp(&b.id));
        }
    }

    fn change_outcomes(&self, mut outcomes: Vec<LeaseOutcome>) -> Vec<LeaseOutcome> {
        if self.has(Bug::LostPanics) && outcomes.contains(&Lost) {
            panic!("a receipt is lost");
        }
        if self.has(Bug::OutcomesReversed) {
            outcomes.reverse();
        }
        outcomes
    }

    /// A token is the number of messages before the page.
    async fn messages_by_ready_time(
        &self,
        queue: &QueueName,
        page: &PageOptions,
    ) -> Result<MessagePage> {
        let place = page.token().and_then(|token| token.as_str().parse().ok());
        let place: usize = place.unwrap_or(0);
        let all = self.inner.peek(queue, 10_000).await?;
        let end = place.saturating_add(page.max());
        let next = (end < all.len()).then(|| PageToken::new(end.to_string()));
        let messages = all.into_iter().skip(place).take(page.max());
        Ok(MessagePage::new(messages.collect()).with_next(next))
    }

    /// In chunks, with time for the clock to move between them.
    async fn redrive_from_the_end(&self, queue: &QueueName) -> Result<u64> {
        let page = PageOptions::new(100_000);
        let letters = self.inner.dead_letters(queue, &page).await?.letters;
        let ids: Vec<_> = letters.into_iter().map(|letter| letter.id).collect();
        let mut redriven = 0;
        for (number, chunk) in ids.rchunks(100).enumerate() {
            if number == 1 {
                pause(50).await;
            }
            let chunk = Redrive::Ids(chunk.to_vec());
            redriven += self.inner.redrive(queue, &chunk).await?;
        }
        Ok(redriven)
    }

    async fn ack_in_any_queue(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let mut outcomes = vec![Lost; receipts.len()];
        for queue in self.inner.list_queues().await? {
            for (outcome, other) in outcomes
                .iter_mut()
                .zip(self.inner.ack(&queue, receipts).await?)
            {
                if other == Applied {
                    *outcome = Applied;
                }
            }
        }
        Ok(outcomes)
    }
}

#[allow(clippy::disallowed_methods)] // the bug is that time passes
async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[async_trait]
impl QueueBackend for Mutant {
    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        preconditions::batch(self.limits, messages.len());
        if self.has(Bug::ReservedNameIsEmpty) && queue.as_str().starts_with("system.") {
            return Err(Error::invalid("enqueue", "the name is reserved"));
        }
        let mut stored = messages.to_vec();
        for message in &mut stored {
            preconditions::message(self.limits, message);
            match self.bug {
                Some(Bug::HeadersLost) => message.headers.clear(),
                Some(Bug::PayloadIsALine) => {
                    let line = message.payload.strip_suffix(b"\n");
                    message.payload = line.unwrap_or(&message.payload).to_vec().into();
                }
                Some(Bug::HeaderValuesTrimmed) => {
                    for value in message.headers.values_mut() {
                        *value = value.trim().to_owned();
                    }
                }
                Some(Bug::HeaderIsMetadata) => drop(message.headers.remove("attempts")),
                Some(Bug::HeadersAtMostTen) => {
                    message.headers = std::mem::take(&mut message.headers)
                        .into_iter()
                        .take(10)
                        .collect();
                }
                Some(Bug::DelayRoundedToNearest) => {
                    let nanos = message.delay_or_default().as_nanos() as u64;
                    let millis = (nanos + 500_000) / 1_000_000;
                    message.delay = Some(Duration::from_millis(millis));
                }
                Some(Bug::MaxAttemptsAtMost1000) => {
                    message.max_attempts = Some(message.max_attempts_or_default().min(1000));
                }
                Some(Bug::MaxAttemptsIgnored) => message.max_attempts = Some(u32::MAX),
                _ => {}
            }
        }
        let mut seen = HashMap::new();
        if self.has(Bug::EnqueueLooksFirst) {
            let messages = self.inner.peek(queue, 1000).await?;
            seen.extend(messages.into_iter().map(|m| (m.id, m.payload)));
            self.yield_now().await;
        }
        let mut outcomes = self.inner.enqueue(queue, &stored).await?;
        if self.has(Bug::EnqueueLooksFirst) {
            for (outcome, message) in outcomes.iter_mut().zip(&stored) {
                if !seen.contains_key(&message.id) {
                    *outcome = EnqueueOutcome::Stored;
                }
            }
        }
        if self.has(Bug::IdIsAPattern) && messages.len() > 1 {
            for (outcome, message) in outcomes.iter_mut().zip(messages) {
                if message.id.as_str() == "%" {
                    *outcome = EnqueueOutcome::Duplicate;
                }
            }
        }
        if self.has(Bug::DuplicatesForADay)
            && self.inner.stats(queue).await?.oldest_ready > Some(DAY)
        {
            outcomes.fill(EnqueueOutcome::Stored);
        }
        if self.has(Bug::DuplicateOverwritesPayload) {
            let mut memory = self.memory();
            for message in messages {
                let key = (queue.clone(), message.id.clone());
                memory.overwritten.insert(key, message.payload.clone());
            }
        }
        Ok(outcomes)
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        preconditions::lease(self.limits, options);
        if self.memory().hidden.contains(queue) {
            return Ok(Vec::new());
        }
        let mut seen = HashMap::new();
        if self.has(Bug::LeaseGuardsIdsOnly) {
            let messages = self.inner.peek(queue, 1000).await?;
            seen.extend(messages.into_iter().map(|m| (m.id, m.payload)));
            self.yield_now().await;
        }
        let mut deliveries = self.inner.lease(queue, options).await?;
        if self.has(Bug::RoundsRepeatMessages) {
            let left = options.max_messages() - deliveries.len();
            let next = options.clone().with_max_messages(left);
            deliveries.extend(self.inner.lease(queue, &next).await?);
        }
        for delivery in &mut deliveries {
            if self.has(Bug::DefaultClockIsFiner) {
                delivery.enqueued_at += Duration::from_micros(1);
            }
            if let Some(payload) = seen.get(&delivery.id) {
                delivery.payload = payload.clone();
            }
            if let (Some(Bug::DeliveryEchoesTimeout), Some(timeout)) =
                (self.bug, options.visibility_timeout())
            {
                delivery.visibility_timeout = timeout;
            }
        }
        self.move_expiry(queue, &deliveries).await?;
        self.change_deliveries(queue, &mut deliveries);
        Ok(deliveries)
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        preconditions::batch(self.limits, receipts.len());
        if self.has(Bug::ReceiptForgottenAfterADay)
            && self.inner.stats(queue).await?.oldest_ready > Some(DAY)
        {
            return Ok(vec![Lost; receipts.len()]);
        }
        let mut receipts = receipts.to_vec();
        match self.bug {
            Some(Bug::ReceiptsOfAnyQueue) => return self.ack_in_any_queue(&receipts).await,
            Some(Bug::AckIgnoresReceipt) => {
                let memory = self.memory();
                for receipt in &mut receipts {
                    let message = memory.messages.get(receipt);
                    let last = message.and_then(|id| memory.last_receipts.get(id));
                    *receipt = last.unwrap_or(receipt).clone();
                }
            }
            Some(Bug::AckHidesFirst) => {
                let hide = |receipt: &Receipt| {
                    LeaseChange::extend(receipt.clone(), self.limits.max_visibility_timeout)
                };
                let hide: Vec<_> = receipts.iter().map(hide).collect();
                self.inner.change(queue, &hide).await?;
                let count = {
                    let mut memory = self.memory();
                    memory.acks += 1;
                    memory.acks
                };
                if count.is_multiple_of(2) {
                    self.yield_now().await;
                }
            }
            _ => {}
        }
        Ok(self.change_outcomes(self.inner.ack(queue, &receipts).await?))
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        preconditions::batch(self.limits, changes.len());
        let mut changes = changes.to_vec();
        for change in &mut changes {
            preconditions::change(self.limits, change);
            match (&mut change.action, self.bug) {
                (action @ LeaseAction::Release, Some(Bug::ReleaseCounts)) => {
                    let delay = Duration::ZERO;
                    *action = LeaseAction::Nack { delay };
                }
                (LeaseAction::Extend(by), Some(Bug::ExtensionIsF32)) => {
                    let millis = by.as_nanos().div_ceil(1_000_000) as f32;
                    *by = Duration::from_millis(millis as u64);
                }
                (LeaseAction::Release, Some(Bug::ReleaseDoesNotWake)) => {
                    self.memory().releases += 1;
                }
                _ => {}
            }
        }
        Ok(self.change_outcomes(self.inner.change(queue, &changes).await?))
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        if self.has(Bug::WaitMissesEnqueue) && self.inner.stats(queue).await?.ready == 0 {
            pending::<()>().await;
        }
        if self.has(Bug::WaitNeverWaits) {
            return Ok(());
        }
        let stats = self.inner.stats(queue).await?;
        let is_dead = stats == QueueStats::default().with_dead(stats.dead) && stats.dead > 0;
        match self.bug {
            Some(Bug::WaitSpinsOnDead) if is_dead => return Ok(()),
            Some(Bug::WaitPausesFirst) => pause(300).await,
            Some(Bug::WaitIgnoresClock) => {
                let wait = self.inner.wait(queue, Duration::MAX);
                return timeout(at_most, wait).await.unwrap_or(Ok(()));
            }
            _ => {}
        }
        // What makes a wait miss its reason to end.
        let count = || match self.bug {
            Some(Bug::WaitForgetsDeletedQueue) => self.memory().deletions,
            Some(Bug::ReleaseDoesNotWake) => self.memory().releases,
            _ => 0,
        };
        let before = count();
        self.inner.wait(queue, at_most).await?;
        if count() > before {
            pending::<()>().await;
        }
        Ok(())
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let mut stats = self.inner.stats(queue).await?;
        if self.has(Bug::DelayedCountsAsReady) {
            stats.ready += std::mem::take(&mut stats.delayed);
        }
        Ok(stats)
    }
}

#[async_trait]
impl QueueAdmin for Mutant {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        if self.has(Bug::PeekSortsAfterLimit) {
            let page = PageOptions::new(max);
            let mut seen = self.inner.messages(queue, &page).await?.messages;
            seen.sort_by_key(|message| message.ready_at);
            return Ok(seen);
        }
        self.inner.peek(queue, max).await
    }

    async fn messages(&self, queue: &QueueName, page: &PageOptions) -> Result<MessagePage> {
        if self.has(Bug::MessagesByReadyTime) {
            return self.messages_by_ready_time(queue, page).await;
        }
        let mut listed = self.inner.messages(queue, page).await?;
        if self.has(Bug::TokenIsAPlaceInTheStore)
            && page.token().is_some_and(|token| token.as_str() == "0")
        {
            for other in self.inner.list_queues().await? {
                listed.messages = self.inner.messages(&other, page).await?.messages;
            }
        }
        match self.bug {
            Some(Bug::MessagePageSkips) if page.token().is_some() && !listed.is_empty() => {
                listed.messages.remove(0);
            }
            Some(Bug::MessagesWithoutLeased) => {
                listed
                    .messages
                    .retain(|it| it.state != MessageState::Leased);
            }
            Some(Bug::ListedSettingsAreDefaults) => {
                for message in &mut listed.messages {
                    message.max_attempts = NewMessage::DEFAULT_MAX_ATTEMPTS;
                }
            }
            _ => {}
        }
        Ok(listed)
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        let purged = self.inner.purge(queue, what).await?;
        if self.has(Bug::PurgeEmptiesEveryQueue) {
            for other in self.inner.list_queues().await? {
                self.inner.purge(&other, what).await?;
            }
        }
        Ok(purged)
    }

    async fn dead_letters(&self, queue: &QueueName, page: &PageOptions) -> Result<DeadLetterPage> {
        let is_unknown = |token: &PageToken| token.as_str().starts_with("made up");
        if self.has(Bug::BadTokenIsInternal) && page.token().is_some_and(is_unknown) {
            return Err(Error::new(ErrorKind::Internal, "dead letters", "not found"));
        }
        let mut letters = self.inner.dead_letters(queue, page).await?;
        if self.has(Bug::DeadLetterPayloadIsUtf8) {
            for letter in &mut letters.letters {
                let text = String::from_utf8_lossy(&letter.payload).into_owned();
                letter.payload = Bytes::from(text);
            }
        }
        if self.has(Bug::ReasonIsText) {
            for letter in &mut letters.letters {
                if letter.reason.to_string() == DeadReason::AttemptsExhausted.to_string() {
                    letter.reason = DeadReason::AttemptsExhausted;
                }
            }
        }
        if self.has(Bug::FirstReasonStays) {
            let mut memory = self.memory();
            for letter in &mut letters.letters {
                let first = memory.reasons.entry(letter.id.clone());
                letter.reason = first.or_insert(letter.reason.clone()).clone();
            }
        }
        if self.has(Bug::DeadPageSkips) && page.token().is_some() && !letters.is_empty() {
            letters.letters.remove(0);
        }
        Ok(letters)
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        if self.has(Bug::RedriveStopsAfterBatch) && *which == Redrive::All {
            let page = PageOptions::new(self.limits.max_batch.get());
            let letters = self.inner.dead_letters(queue, &page).await?.letters;
            let batch = letters.into_iter().map(|letter| letter.id).collect();
            return self.inner.redrive(queue, &Redrive::Ids(batch)).await;
        }
        if self.has(Bug::RedriveFromTheEnd) && *which == Redrive::All {
            return self.redrive_from_the_end(queue).await;
        }
        if let (Redrive::Ids(ids), Some(Bug::RedriveIdsStopsAtTen)) = (which, self.bug) {
            let ten = Redrive::Ids(ids.iter().take(10).cloned().collect());
            return self.inner.redrive(queue, &ten).await;
        }
        if self.has(Bug::RedriveCountsFirst) && *which == Redrive::All {
            let dead = self.inner.stats(queue).await?.dead;
            self.yield_now().await;
            self.inner.redrive(queue, which).await?;
            return Ok(dead);
        }
        self.inner.redrive(queue, which).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        self.memory().deletions += 1;
        let dead = self.inner.stats(queue).await?.dead;
        let batch = self.limits.max_batch.get() as u64;
        match self.bug {
            Some(Bug::DeletionStopsAfterBatch) if dead > batch => {
                self.inner.purge(queue, Purge::Live).await.map(drop)
            }
            Some(Bug::DeletionHidesFirst) => {
                self.memory().hidden.insert(queue.clone());
                self.yield_now().await;
                self.memory().hidden.remove(queue);
                self.inner.delete_queue(queue).await
            }
            _ => self.inner.delete_queue(queue).await,
        }
    }

    async fn list_queues(&self) -> Result<Vec<QueueName>> {
        let mut listed = Vec::new();
        for queue in self.inner.list_queues().await? {
            let stats = self.inner.stats(&queue).await?;
            let is_live = stats.ready + stats.delayed + stats.leased > 0;
            let is_own = queue.as_str().starts_with("sqlite_");
            if is_own && self.has(Bug::ListHidesTheStoresOwn) {
                continue;
            }
            if is_live || !self.has(Bug::ListMissesDeadLetters) {
                listed.push(queue);
            }
        }
        Ok(listed)
    }
}
