//! What enqueue and ack do within a session's transaction.

use std::collections::{HashMap, HashSet};

use mongodb::{
    ClientSession,
    bson::{Document, RawDocument},
    error::ErrorKind as DriverKind,
    options::WriteConcern,
};
use queue_api::{EnqueueOutcome, LeaseOutcome, MessageId, NewMessage, Receipt};

use super::{
    enqueue::{documents, first_uses},
    settle::{acks, write},
    uses::{decide, trace},
};
use crate::{
    document::{
        decode::held_by,
        encode::{NewEntry, key},
        stored::Stored,
    },
    store::{
        codes::DUPLICATE_KEY,
        collection::{Query, QueueCollection},
        error::StoreError,
        insert::{read_insert_reply, refused},
        retry::Deadline,
        write::{Write, by_id, entries_by_id, new_addend, parts_of_commands},
        write_reply,
    },
};

/// What the driver says about the start of a transaction if none is under way: it refuses a write
/// concern without acknowledgement, or the session or the deployment has no transactions.
const NONE_UNDER_WAY: [&str; 2] = ["unacknowledged", "not supported"];

/// Refuses a session without a transaction. The driver has no way to ask. So this starts one with an invalid
/// write concern: the error says whether one is under way, and none is started. It unpins a session whose
/// last transaction was committed, as any start does.
///
/// A refusal that is not known passes: another release of the driver may have other words for that of
/// a second one.
async fn check_transaction(
    session: &mut ClientSession,
    deadline: Deadline,
) -> Result<(), StoreError> {
    let start = session
        .start_transaction()
        .write_concern(WriteConcern::nodes(0));
    let is_missing = match deadline.run(start.into_future()).await {
        Err(StoreError::Driver(refusal)) => match &*refusal.kind {
            DriverKind::Transaction { message, .. } => {
                NONE_UNDER_WAY.iter().any(|words| message.contains(words))
            }
            // Only the first start needs a server.
            DriverKind::ServerSelection { .. } => true,
            _ => false,
        },
        // It may also wait for a server until the deadline.
        Ok(()) | Err(_) => true,
    };
    match is_missing {
        true => {
            let message = "no transaction is under way in this session; call its start_transaction \
                           first, and again after a commit or an abort";
            Err(StoreError::Invalid(message.to_owned()))
        }
        false => Ok(()),
    }
}

impl QueueCollection {
    pub(crate) async fn enqueue_within(
        &self,
        session: &mut ClientSession,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>, StoreError> {
        check_transaction(session, self.deadline).await?;
        // Outside the transaction: DocumentDB makes no collection within one.
        self.prepare().await?;
        // A duplicate would end the transaction, so what is there is left out beforehand. A document that
        // cannot be read holds its ids, too.
        let ids: Vec<&MessageId> = messages.iter().map(|message| &message.id).collect();
        let found = self
            .find_in_session(session, self.holders(&ids), held_by)
            .await?;
        let (entries, held): (HashSet<_>, Vec<_>) = found.into_iter().unzip();
        let held: HashSet<MessageId> = held.into_iter().flatten().collect();
        let is_keyed = self.state.knowledge.is_keyed();
        let is_held =
            |id: &MessageId| held.contains(id) || is_keyed && entries.contains(&Some(key(id)));
        let mut new = first_uses(messages);
        new.retain(|&index| !is_held(&messages[index].id));
        let drafts = self.drafts(messages, &new, self.entry_size, self.now().await);
        let mut rest = drafts.as_slice();
        while !rest.is_empty() {
            let inserted = self.insert_in_session(session, rest, messages).await?;
            rest = &rest[inserted..];
        }
        let mut outcomes = vec![EnqueueOutcome::Duplicate; messages.len()];
        for index in new {
            outcomes[index] = EnqueueOutcome::Stored;
        }
        Ok(outcomes)
    }

    /// Inserts as many of these as fit into a command. Returns how many.
    async fn insert_in_session(
        &self,
        session: &mut ClientSession,
        drafts: &[NewEntry],
        messages: &[NewMessage],
    ) -> Result<usize, StoreError> {
        let documents = documents(drafts, messages);
        let sent = documents.len();
        // No write concern: that is the commit's.
        let command = self.insert_command(documents);
        let refused = match self.run_in_session(session, command).await {
            Ok(reply) => match refused(&reply)? {
                none if none.is_empty() => read_insert_reply(&reply, sent)?.refused,
                refused => refused,
            },
            Err(error) => HashMap::from([(0, error.into_duplicate()?)]),
        };
        let Some((at, refusal)) = refused.into_iter().next() else {
            return Ok(sent);
        };
        if refusal.code != DUPLICATE_KEY {
            return Err(refusal.into());
        }
        // Outside the transaction, because the duplicate has ended it.
        if let Some([index]) = drafts.get(at).map(|draft| draft.indexes.as_slice()) {
            let refused = (&messages[*index].id, &refusal);
            self.check_duplicates(std::iter::once(refused)).await?;
        }
        Err(StoreError::TransactionConflict(refusal))
    }

    pub(crate) async fn ack_within(
        &self,
        session: &mut ClientSession,
        receipts: &[Receipt],
    ) -> Result<Vec<LeaseOutcome>, StoreError> {
        check_transaction(session, self.deadline).await?;
        self.check().await?;
        let uses = acks(receipts);
        let query = entries_by_id(uses.keys().copied().collect());
        let found = by_id(self.find_in_session(session, query, Stored::read).await?)?;
        let mut outcomes = vec![LeaseOutcome::Lost; receipts.len()];
        let mut writes = Vec::new();
        for (id, uses) in &uses {
            let Some(stored) = found.get(id) else {
                continue;
            };
            let (after, decided) = decide(&stored.entry, uses);
            for (index, outcome) in decided {
                outcomes[index] = outcome;
            }
            if after != stored.entry {
                writes.push(write(stored, &after, trace(uses)));
            }
        }
        // The commit changes them.
        for write in &writes {
            self.state.cache.forget(write.id);
        }
        let (deletes, updates): (Vec<&Write>, Vec<&Write>) =
            writes.iter().partition(|write| write.update.is_none());
        let mut matched = 0;
        for part in parts_of_commands(&deletes).chain(parts_of_commands(&updates)) {
            let mut command = self.write_command(part, new_addend());
            // That is the commit's.
            command.remove("writeConcern");
            matched += write_reply::matched(&self.run_in_session(session, command).await?)?;
        }
        // Within a transaction, nothing changes between the find and the writes.
        match matched == writes.len() as u64 {
            true => Ok(outcomes),
            false => Err(StoreError::Uncertain),
        }
    }

    async fn find_in_session<T>(
        &self,
        session: &mut ClientSession,
        query: Query,
        read: impl Fn(&RawDocument) -> T,
    ) -> Result<Vec<T>, StoreError> {
        let (filter, options) = query.into_parts();
        let mut retries = self.deadline.retries();
        loop {
            let find = self.messages.find(filter.clone());
            let find = find.with_options(options.clone());
            let found = async {
                let find = find.session(&mut *session).into_future();
                let mut cursor = retries.run(find).await?;
                let mut found = Vec::new();
                while retries.run(cursor.advance(&mut *session)).await? {
                    found.push(read(cursor.current()));
                }
                Ok::<_, StoreError>(found)
            };
            match found.await {
                Ok(found) => return Ok(found),
                Err(error) => retries.after_silence(error).await?,
            }
        }
    }

    /// Sends a command, and once more after a silence. If the first has arrived after all, the
    /// second ends the transaction with an error, and the caller repeats all of it.
    async fn run_in_session(
        &self,
        session: &mut ClientSession,
        command: Document,
    ) -> Result<Document, StoreError> {
        let mut retries = self.deadline.retries();
        loop {
            let sent = self.database.run_command(command.clone());
            let sent = sent.session(&mut *session).into_future();
            match retries.run(sent).await {
                Ok(answer) => return Ok(answer),
                Err(error) => retries.after_silence(error).await?,
            }
        }
    }
}
