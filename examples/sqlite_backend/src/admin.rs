//! Step 4: administration, on the same columns (M1).

use queue_api::{
    DeadLetter, DeadLetterPage, DeadReason, MessagePage, MessageState, PageOptions, PageToken,
    PeekedMessage, Purge, QueueAdmin, QueueName, Redrive, Result, async_trait,
    millis::{self, Millis},
};
use rusqlite::{Row, Transaction, params};

use crate::{SqliteBackend, backend::Access, error, message::Stored, operations::QueueTransaction};

pub(crate) const PEEK: &str = "
    SELECT * FROM messages WHERE queue = ?1 AND visible_at IS NOT NULL
    ORDER BY visible_at LIMIT ?2";

/// In order of id, which never changes. A ready time does. SQLite compares text by its bytes, as ids
/// do. The first page starts after the empty text. Without the plus, SQLite might use the index
/// `ready` and sort.
pub(crate) const MESSAGES: &str = "
    SELECT * FROM messages WHERE queue = ?1 AND id > ?2 AND +visible_at IS NOT NULL
    ORDER BY id LIMIT ?3";

pub(crate) const PURGE_LIVE: &str = "
    DELETE FROM messages WHERE queue = ?1 AND visible_at IS NOT NULL";

pub(crate) const PURGE_DEAD: &str = "
    DELETE FROM messages WHERE queue = ?1 AND visible_at IS NULL";

pub(crate) const DEAD_LETTERS: &str = "
    SELECT * FROM messages WHERE queue = ?1 AND visible_at IS NULL AND id > ?2
    ORDER BY id LIMIT ?3";

pub(crate) const REDRIVE_ALL: &str = "
    UPDATE messages SET visible_at = ?2, attempts = 0, died_at = NULL, reason = NULL
    WHERE queue = ?1 AND visible_at IS NULL";

const REDRIVE_ONE: &str = "
    UPDATE messages SET visible_at = ?2, attempts = 0, died_at = NULL, reason = NULL
    WHERE queue = ?1 AND visible_at IS NULL AND id = ?3";

#[async_trait]
impl QueueAdmin for SqliteBackend {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        let peek = move |tx: QueueTransaction<'_>| {
            let mut peek = tx.transaction.prepare_cached(PEEK)?;
            peek.query_and_then(params![tx.queue, limit(max)], |row| peeked(row, tx.now))?
                .collect()
        };
        self.run("peek", Access::Reads, queue, peek).await
    }

    /// A token is the last id of the page before. A full page may be the last one, so the page after
    /// it may be empty.
    async fn messages(&self, queue: &QueueName, page: &PageOptions) -> Result<MessagePage> {
        let page = page.clone();
        let list = move |tx: QueueTransaction<'_>| {
            let after = page.token().map_or("", PageToken::as_str);
            let mut list = tx.transaction.prepare_cached(MESSAGES)?;
            let messages = list
                .query_and_then(params![tx.queue, after, limit(page.max())], |row| {
                    peeked(row, tx.now)
                })?
                .collect::<error::Result<Vec<_>>>()?;
            let last = messages.last().filter(|_| messages.len() == page.max());
            let next = last.map(|message| PageToken::new(message.id.as_str()));
            Ok(MessagePage::new(messages).with_next(next))
        };
        self.run("messages", Access::Reads, queue, list).await
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        let sql = match what {
            Purge::Live => PURGE_LIVE,
            Purge::Dead => PURGE_DEAD,
        };
        let purge = |tx: QueueTransaction<'_>| Ok(tx.transaction.execute(sql, [tx.queue])? as u64);
        self.run("purge", Access::Writes, queue, purge).await
    }

    /// Its pages are as those of live messages.
    async fn dead_letters(&self, queue: &QueueName, page: &PageOptions) -> Result<DeadLetterPage> {
        let page = page.clone();
        let list = move |tx: QueueTransaction<'_>| {
            let after = page.token().map_or("", PageToken::as_str);
            let mut list = tx.transaction.prepare_cached(DEAD_LETTERS)?;
            let letters = list
                .query_and_then(params![tx.queue, after, limit(page.max())], dead_letter)?
                .collect::<error::Result<Vec<_>>>()?;
            let last = letters.last().filter(|_| letters.len() == page.max());
            let next = last.map(|letter| PageToken::new(letter.id.as_str()));
            Ok(DeadLetterPage::new(letters).with_next(next))
        };
        self.run("dead letters", Access::Reads, queue, list).await
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        let which = which.clone();
        let redrive = move |tx: QueueTransaction<'_>| {
            let mut redriven = 0;
            match which {
                Redrive::All => {
                    redriven += tx
                        .transaction
                        .execute(REDRIVE_ALL, params![tx.queue, tx.now])?
                }
                Redrive::Ids(ids) => {
                    let mut one = tx.transaction.prepare_cached(REDRIVE_ONE)?;
                    for id in ids {
                        redriven += one.execute(params![tx.queue, tx.now, id.as_str()])?;
                    }
                }
            }
            Ok(redriven as u64)
        };
        self.run("redrive", Access::WritesAndWakes, queue, redrive)
            .await
    }

    /// A queue has no row of its own. It exists as long as it holds messages (Q1).
    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        let delete = |tx: QueueTransaction<'_>| {
            tx.transaction
                .execute("DELETE FROM messages WHERE queue = ?1", [tx.queue])?;
            Ok(())
        };
        self.run("delete queue", Access::Writes, queue, delete)
            .await
    }

    async fn list_queues(&self) -> Result<Vec<QueueName>> {
        let list = |transaction: &Transaction<'_>, _| {
            transaction
                .prepare_cached("SELECT DISTINCT queue FROM messages ORDER BY queue")?
                .query_and_then([], |row| Ok(row.get(0)?))?
                .collect()
        };
        let names: Vec<String> = self.transact("list queues", Access::Reads, list).await?;
        names.iter().map(|name| QueueName::new(name)).collect()
    }
}

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn peeked(row: &Row<'_>, now: Millis) -> error::Result<PeekedMessage> {
    let ready_at: Millis = row.get("visible_at")?;
    let receipt: Option<String> = row.get("receipt")?;
    let stored = Stored::read(row)?;
    Ok(PeekedMessage::new(
        stored.id,
        stored.payload,
        match receipt {
            _ if ready_at <= now => MessageState::Ready,
            Some(_) => MessageState::Leased,
            None => MessageState::Delayed,
        },
    )
    .with_headers(stored.headers)
    .with_attempts(stored.attempts)
    .with_max_attempts(stored.max_attempts)
    .with_visibility_timeout(stored.visibility_timeout)
    .with_enqueued_at(stored.enqueued_at)
    .with_ready_at(millis::to_time(ready_at)))
}

fn dead_letter(row: &Row<'_>) -> error::Result<DeadLetter> {
    let reason: Option<String> = row.get("reason")?;
    let stored = Stored::read(row)?;
    Ok(DeadLetter::new(
        stored.id,
        stored.payload,
        reason.map_or(DeadReason::AttemptsExhausted, DeadReason::Rejected),
    )
    .with_headers(stored.headers)
    .with_attempts(stored.attempts)
    .with_max_attempts(stored.max_attempts)
    .with_visibility_timeout(stored.visibility_timeout)
    .with_enqueued_at(stored.enqueued_at)
    .with_died_at(millis::to_time(row.get("died_at")?)))
}
