//! Step 3: the contract in SQL, one method for each call.
//!
//! Each method runs in a transaction that is given to it, so there is no lock, no clock and no
//! async here.

use std::time::Duration;

use queue_api::{
    Delivery, EnqueueOutcome, LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome, NewMessage,
    QueueStats, Receipt,
    millis::{self, Millis},
};
use rusqlite::{OptionalExtension, Row, ToSql, Transaction, params};
use uuid::Uuid;

use crate::{
    error::Result,
    message::{Stored, to_json},
};

pub(crate) const ENQUEUE: &str = "
    INSERT INTO messages (queue, id, visible_at, attempts, max_attempts, visibility, enqueued_at,
                          headers, payload)
    VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (queue, id) DO NOTHING";

/// In order of ready time (L4). No `LIMIT` is needed: rows come one by one from the index, and the
/// caller stops when it has enough.
pub(crate) const READY: &str = "
    SELECT rowid, * FROM messages WHERE queue = ?1 AND visible_at <= ?2 ORDER BY visible_at";

/// Counts the attempt (L3). The fresh receipt replaces the one before (A2).
const LEASE: &str = "
    UPDATE messages SET visible_at = ?2, receipt = ?3, attempts = attempts + 1 WHERE rowid = ?1";

const DEAD_LETTER_EXHAUSTED: &str = "
    UPDATE messages SET visible_at = NULL, receipt = NULL, died_at = ?2 WHERE rowid = ?1";

pub(crate) const ACK: &str = "DELETE FROM messages WHERE queue = ?1 AND receipt = ?2";

pub(crate) const EXTEND: &str = "
    UPDATE messages SET visible_at = ?3 WHERE queue = ?1 AND receipt = ?2";

pub(crate) const NACK: &str = "
    UPDATE messages SET visible_at = ?3, receipt = NULL WHERE queue = ?1 AND receipt = ?2";

pub(crate) const RELEASE: &str = "
    UPDATE messages SET visible_at = ?3, receipt = NULL, attempts = attempts - 1
    WHERE queue = ?1 AND receipt = ?2";

pub(crate) const DEAD_LETTER: &str = "
    UPDATE messages SET visible_at = NULL, receipt = NULL, died_at = ?3, reason = ?4
    WHERE queue = ?1 AND receipt = ?2";

pub(crate) const NEXT_READY: &str = "
    SELECT visible_at FROM messages WHERE queue = ?1 AND visible_at IS NOT NULL
    ORDER BY visible_at LIMIT 1";

pub(crate) const STATS: &str = "
    SELECT
        (SELECT count(*) FROM messages WHERE queue = ?1 AND visible_at <= ?2) AS ready,
        (SELECT count(*) FROM messages
            WHERE queue = ?1 AND visible_at > ?2 AND receipt IS NULL) AS delayed,
        (SELECT count(*) FROM messages
            WHERE queue = ?1 AND visible_at > ?2 AND receipt IS NOT NULL) AS leased,
        (SELECT count(*) FROM messages WHERE queue = ?1 AND visible_at IS NULL) AS dead,
        (SELECT min(visible_at) FROM messages WHERE queue = ?1 AND visible_at <= ?2) AS oldest";

/// One queue in one transaction, and the time now.
pub(crate) struct QueueTransaction<'a> {
    pub(crate) transaction: &'a Transaction<'a>,
    pub(crate) queue: &'a str,
    pub(crate) now: Millis,
}

impl QueueTransaction<'_> {
    /// A message with the same id, in whatever state, is a conflict and stays untouched (E2). It
    /// may come from the same batch.
    pub(crate) fn enqueue(&self, messages: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        let mut insert = self.transaction.prepare_cached(ENQUEUE)?;
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            let inserted = insert.execute(params![
                self.queue,
                message.id.as_str(),
                self.after(message.delay_or_default()),
                message.max_attempts_or_default(),
                millis::ceil(message.visibility_timeout_or_default()),
                self.now,
                to_json(&message.headers)?,
                &message.payload[..],
            ])?;
            outcomes.push(match inserted {
                0 => EnqueueOutcome::Duplicate,
                _ => EnqueueOutcome::Stored,
            });
        }
        Ok(outcomes)
    }

    /// Reads first and then writes, because a write to the index that is being read could show a
    /// row twice. No other process writes in between, so each lease has one holder (L1).
    pub(crate) fn lease(&self, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let (mut to_deliver, mut exhausted) = (Vec::new(), Vec::new());
        let mut ready = self.transaction.prepare_cached(READY)?;
        let mut rows = ready.query(params![self.queue, self.now])?;
        while to_deliver.len() < options.max_messages()
            && let Some(row) = rows.next()?
        {
            let rowid: i64 = row.get("rowid")?;
            if row.get::<_, u32>("attempts")? < row.get("max_attempts")? {
                let own_timeout: Millis = row.get("visibility")?;
                let max_attempts: u32 = row.get("max_attempts")?;
                to_deliver.push((rowid, own_timeout, max_attempts, Stored::read(row)?));
            } else {
                exhausted.push(rowid);
            }
        }
        // D1: only the exhausted messages before the last one delivered.
        let mut exhaust = self.transaction.prepare_cached(DEAD_LETTER_EXHAUSTED)?;
        for rowid in exhausted {
            exhaust.execute(params![rowid, self.now])?;
        }
        let mut lease = self.transaction.prepare_cached(LEASE)?;
        let timeout_for_all = options.visibility_timeout().map(millis::ceil);
        let deliver = |(rowid, own_timeout, max_attempts, stored): (i64, Millis, u32, Stored)| {
            let timeout = timeout_for_all.unwrap_or(own_timeout);
            let expires_at = self.now.saturating_add(timeout);
            let receipt = Uuid::new_v4().to_string();
            lease.execute(params![rowid, expires_at, receipt])?;
            Ok(
                Delivery::new(stored.id, stored.payload, Receipt::new(receipt))
                    .with_headers(stored.headers)
                    .with_attempt(stored.attempts + 1)
                    .with_max_attempts(max_attempts)
                    .with_enqueued_at(stored.enqueued_at)
                    .with_visibility_timeout(Duration::from_millis(timeout.unsigned_abs()))
                    .with_lease_expires_at(millis::to_time(expires_at)),
            )
        };
        to_deliver.into_iter().map(deliver).collect()
    }

    /// Deletes the message that has this receipt now (A1). The next delivery overwrites a receipt
    /// (A2), settling removes it (A4), and time does neither (A3).
    pub(crate) fn ack(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let ack = |receipt: &Receipt| self.settle(ACK, params![self.queue, receipt.as_str()]);
        receipts.iter().map(ack).collect()
    }

    /// One after another (A5), so a second change with the same receipt sees the first (A4).
    pub(crate) fn change(&self, changes: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        let change = |LeaseChange { receipt, action }: &LeaseChange| {
            let (queue, now, receipt) = (self.queue, self.now, receipt.as_str());
            let after = |delay: &Duration| self.after(*delay);
            match action {
                LeaseAction::Extend(by) => self.settle(EXTEND, params![queue, receipt, after(by)]),
                LeaseAction::Nack { delay } => {
                    self.settle(NACK, params![queue, receipt, after(delay)])
                }
                LeaseAction::Release => self.settle(RELEASE, params![queue, receipt, now]),
                LeaseAction::DeadLetter { reason } => {
                    self.settle(DEAD_LETTER, params![queue, receipt, now, reason])
                }
            }
        };
        changes.iter().map(change).collect()
    }

    fn settle(&self, sql: &str, values: &[&dyn ToSql]) -> Result<LeaseOutcome> {
        Ok(
            match self.transaction.prepare_cached(sql)?.execute(values)? {
                0 => LeaseOutcome::Lost,
                _ => LeaseOutcome::Applied,
            },
        )
    }

    /// When the first message is ready, which may be in the past (W1).
    pub(crate) fn next_ready(&self) -> Result<Option<Millis>> {
        let mut next = self.transaction.prepare_cached(NEXT_READY)?;
        let first = next.query_row([self.queue], |row| row.get("visible_at"));
        Ok(first.optional()?)
    }

    /// One statement, so all counts are of the same moment (S1).
    pub(crate) fn stats(&self) -> Result<QueueStats> {
        let read = |row: &Row<'_>| {
            let count = |column| row.get(column).map(i64::unsigned_abs);
            let oldest: Option<Millis> = row.get("oldest")?;
            Ok(QueueStats::default()
                .with_ready(count("ready")?)
                .with_delayed(count("delayed")?)
                .with_leased(count("leased")?)
                .with_dead(count("dead")?)
                .with_oldest_ready(oldest.map(|at| Duration::from_millis(self.now.abs_diff(at)))))
        };
        let mut stats = self.transaction.prepare_cached(STATS)?;
        Ok(stats.query_row(params![self.queue, self.now], read)?)
    }

    fn after(&self, delay: Duration) -> Millis {
        self.now.saturating_add(millis::ceil(delay))
    }
}
