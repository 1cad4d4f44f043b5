//! Step 3: the contract in SQL, one method for each call.
//!
//! What runs here has the file to itself and is told what time it is: no lock, no clock and no
//! async, so it can be read as if it were alone in the world.

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

/// In order of ready time (L4). There is no limit: rows come one by one off the index, and the
/// caller stops when it has enough.
pub(crate) const READY: &str = "
    SELECT rowid, * FROM messages WHERE queue = ?1 AND visible_at <= ?2 ORDER BY visible_at";

/// Counted (L3), and with a fresh receipt, which supersedes the one before (A2).
const LEASE: &str = "
    UPDATE messages SET visible_at = ?2, receipt = ?3, attempts = attempts + 1 WHERE rowid = ?1";

const BURY: &str = "
    UPDATE messages SET visible_at = NULL, receipt = NULL, died_at = ?2 WHERE rowid = ?1";

pub(crate) const ACK: &str = "DELETE FROM messages WHERE queue = ?1 AND receipt = ?2";

pub(crate) const EXTEND: &str = "
    UPDATE messages SET visible_at = ?3 WHERE queue = ?1 AND receipt = ?2";

pub(crate) const NACK: &str = "
    UPDATE messages SET visible_at = ?3, receipt = NULL WHERE queue = ?1 AND receipt = ?2";

pub(crate) const RETURN: &str = "
    UPDATE messages SET visible_at = ?3, receipt = NULL, attempts = attempts - 1
    WHERE queue = ?1 AND receipt = ?2";

pub(crate) const REJECT: &str = "
    UPDATE messages SET visible_at = NULL, receipt = NULL, died_at = ?3, reason = ?4
    WHERE queue = ?1 AND receipt = ?2";

pub(crate) const HEAD: &str = "
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

/// One queue, in one transaction, at one moment.
pub(crate) struct QueueNow<'a> {
    pub(crate) file: &'a Transaction<'a>,
    pub(crate) queue: &'a str,
    pub(crate) now: Millis,
}

impl QueueNow<'_> {
    /// The conflict is with whatever holds the id, in whatever state, also with an earlier
    /// message of the same batch; it stays untouched (E2).
    pub(crate) fn enqueue(&self, messages: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        let mut insert = self.file.prepare_cached(ENQUEUE)?;
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            let inserted = insert.execute(params![
                self.queue,
                message.id.as_str(),
                self.after(message.delay),
                message.max_attempts,
                millis::ceil(message.visibility_timeout),
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

    /// Looks first and writes then: to write into an index that is being read could show a row
    /// twice. Nobody else writes in between, so what was ready still is (L1).
    pub(crate) fn lease(&self, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let (mut to_deliver, mut exhausted) = (Vec::new(), Vec::new());
        let mut ready = self.file.prepare_cached(READY)?;
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
        // Those met on the way, and none behind the last one delivered (D1).
        let mut bury = self.file.prepare_cached(BURY)?;
        for rowid in exhausted {
            bury.execute(params![rowid, self.now])?;
        }
        let mut lease = self.file.prepare_cached(LEASE)?;
        let override_of_all = options.visibility_timeout().map(millis::ceil);
        let deliver = |(rowid, own_timeout, max_attempts, stored): (i64, Millis, u32, Stored)| {
            let timeout = override_of_all.unwrap_or(own_timeout);
            let expires_at = self.now.saturating_add(timeout);
            let receipt = Uuid::new_v4().to_string();
            lease.execute(params![rowid, expires_at, receipt])?;
            Ok(Delivery {
                id: stored.id,
                payload: stored.payload,
                headers: stored.headers,
                attempt: stored.attempts + 1,
                max_attempts,
                enqueued_at: stored.enqueued_at,
                visibility_timeout: Duration::from_millis(timeout.unsigned_abs()),
                lease_expires_at: millis::to_time(expires_at),
                receipt: Receipt::new(receipt),
            })
        };
        to_deliver.into_iter().map(deliver).collect()
    }

    /// Three lines of the contract in one condition: the receipt is the one that the message
    /// has now. A later delivery overwrites it (A2), a settlement removes it (A4), and time does
    /// neither (A3).
    pub(crate) fn ack(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let ack = |receipt: &Receipt| self.settle(ACK, params![self.queue, receipt.as_str()]);
        receipts.iter().map(ack).collect()
    }

    /// One after another (A5), so that a second change by the same receipt finds what the first
    /// has left (A4).
    pub(crate) fn change(&self, changes: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        let change = |LeaseChange { receipt, action }: &LeaseChange| {
            let (queue, now, receipt) = (self.queue, self.now, receipt.as_str());
            let after = |delay: &Duration| self.after(*delay);
            match action {
                LeaseAction::Extend(by) => self.settle(EXTEND, params![queue, receipt, after(by)]),
                LeaseAction::Nack { delay } => {
                    self.settle(NACK, params![queue, receipt, after(delay)])
                }
                LeaseAction::Release => self.settle(RETURN, params![queue, receipt, now]),
                LeaseAction::DeadLetter { reason } => {
                    self.settle(REJECT, params![queue, receipt, now, reason])
                }
            }
        };
        changes.iter().map(change).collect()
    }

    fn settle(&self, sql: &str, values: &[&dyn ToSql]) -> Result<LeaseOutcome> {
        Ok(match self.file.prepare_cached(sql)?.execute(values)? {
            0 => LeaseOutcome::Lost,
            _ => LeaseOutcome::Applied,
        })
    }

    /// When the first message is or will be ready.
    pub(crate) fn head(&self) -> Result<Option<Millis>> {
        let mut head = self.file.prepare_cached(HEAD)?;
        let first = head.query_row([self.queue], |row| row.get("visible_at"));
        Ok(first.optional()?)
    }

    /// One statement sees one state of the file (S1).
    pub(crate) fn stats(&self) -> Result<QueueStats> {
        let read = |row: &Row<'_>| {
            let count = |column| row.get(column).map(i64::unsigned_abs);
            let oldest: Option<Millis> = row.get("oldest")?;
            Ok(QueueStats {
                ready: count("ready")?,
                delayed: count("delayed")?,
                leased: count("leased")?,
                dead: count("dead")?,
                oldest_ready: oldest.map(|due| Duration::from_millis(self.now.abs_diff(due))),
            })
        };
        let mut stats = self.file.prepare_cached(STATS)?;
        Ok(stats.query_row(params![self.queue, self.now], read)?)
    }

    fn after(&self, delay: Duration) -> Millis {
        self.now.saturating_add(millis::ceil(delay))
    }
}
