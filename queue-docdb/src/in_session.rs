//! What enqueue and ack do within a session's transaction.

use std::collections::{HashMap, HashSet};

use mongodb::{
    ClientSession,
    bson::{Document, RawDocument, RawDocumentBuf, doc},
    error::ErrorKind as DriverKind,
    options::WriteConcern,
};
use queue_api::{EnqueueOutcome, LeaseOutcome, NewMessage, Receipt};

use crate::{
    ack::deletions,
    codes::DUPLICATE_KEY,
    collection::{Query, QueueCollection},
    document,
    enqueue::first_part,
    error::StoreError,
    insert::read_insert_reply,
    receipt::ParsedReceipt,
    retry::{Deadline, Retries},
    write_reply,
};

/// What the driver says about the start of a transaction if none is under way: it refuses a write
/// concern without acknowledgement, or the session or the deployment has no transactions.
const NONE_UNDER_WAY: [&str; 2] = ["unacknowledged", "not supported"];

/// Refuses a session without a transaction. The driver does not tell. But it refuses to start a second
/// one, and otherwise it refuses a start without acknowledgement. So this starts none. It unpins a
/// session whose last transaction was committed, as any start does.
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
        true => Err(StoreError::NoTransaction),
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
        // A duplicate would end the transaction, so what is there is left out beforehand.
        let mut known: HashSet<&str> = HashSet::new();
        let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
        let query = Query::by_ids(doc! { "_id": { "$in": &ids } }, ids.len())
            .with_projection(doc! { "_id": 1 });
        let stored: HashSet<String> = self
            .find_in_session(session, query, |found| {
                Some(document::id(found)?.as_str().to_owned())
            })
            .await?
            .into_iter()
            .flatten()
            .collect();
        let now = self.now().await;
        let (mut outcomes, mut documents) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages {
            let id = message.id.as_str();
            if stored.contains(id) || !known.insert(id) {
                outcomes.push(EnqueueOutcome::Duplicate);
            } else {
                outcomes.push(EnqueueOutcome::Stored);
                let turn = self.state.turns.next();
                documents.push(document::write(message, turn, now));
            }
        }
        let mut rest = documents.as_slice();
        while !rest.is_empty() {
            let (part, later) = rest.split_at(first_part(rest));
            self.insert_in_session(session, part).await?;
            rest = later;
        }
        Ok(outcomes)
    }

    async fn insert_in_session(
        &self,
        session: &mut ClientSession,
        documents: &[RawDocumentBuf],
    ) -> Result<(), StoreError> {
        // No write concern: that is the commit's.
        let command = self.insert_command(documents.iter())?;
        let refused = match self.run_in_session(session, command).await {
            Ok(reply) => read_insert_reply(&reply, documents.len())?.refused,
            Err(error) => HashMap::from([(0, error.into_duplicate()?)]),
        };
        let mut refused = refused.into_iter();
        let Some((at, refusal)) = refused.next() else {
            return Ok(());
        };
        if refusal.code != DUPLICATE_KEY {
            return Err(refusal.into());
        }
        // Outside the transaction, because the duplicate has ended it.
        let document = documents.get(at).map(|document| (document, &refusal));
        self.check_duplicates(document.into_iter()).await?;
        Err(StoreError::TransactionConflict(refusal))
    }

    pub(crate) async fn ack_within(
        &self,
        session: &mut ClientSession,
        receipts: &[Receipt],
    ) -> Result<Vec<LeaseOutcome>, StoreError> {
        check_transaction(session, self.deadline).await?;
        self.check().await?;
        let uses: Vec<Option<ParsedReceipt>> = receipts.iter().map(ParsedReceipt::parse).collect();
        let ids: Vec<&str> = uses.iter().flatten().map(|held| held.id.as_str()).collect();
        let query = Query::by_ids(doc! { "_id": { "$in": &ids } }, ids.len())
            .with_projection(doc! { "lease": 1 });
        let mut leases: HashMap<_, _> = self
            .find_in_session(session, query, |found| {
                Some((document::id(found)?, document::uuid(found, "lease")?))
            })
            .await?
            .into_iter()
            .flatten()
            .collect();
        // Each is taken out by its first use.
        let mut outcome_of = |held: &Option<ParsedReceipt>| match held {
            Some(held) if leases.get(&held.id) == Some(&held.nonce) => {
                leases.remove(&held.id);
                LeaseOutcome::Applied
            }
            _ => LeaseOutcome::Lost,
        };
        let outcomes: Vec<LeaseOutcome> = uses.iter().map(&mut outcome_of).collect();
        let ours: Vec<&ParsedReceipt> = uses
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| **outcome == LeaseOutcome::Applied)
            .filter_map(|(held, _)| held.as_ref())
            .collect();
        if ours.is_empty() {
            return Ok(outcomes);
        }
        let deleted = self.delete_in_session(session, deletions(&ours)).await?;
        // Within a transaction, nothing changes between the find and the deletion.
        match deleted == ours.len() as u64 {
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
        let mut retries = self.deadline.retries();
        loop {
            let found = self.find_in_session_once(session, query.clone(), &read, &retries);
            match found.await {
                Ok(answer) => return Ok(answer),
                Err(error) => retries.after_silence(error).await?,
            }
        }
    }

    async fn find_in_session_once<T>(
        &self,
        session: &mut ClientSession,
        query: Query,
        read: &impl Fn(&RawDocument) -> T,
        tries: &Retries,
    ) -> Result<Vec<T>, StoreError> {
        let (filter, options) = query.into_parts();
        let find = self
            .messages
            .find(filter)
            .with_options(options)
            .session(&mut *session)
            .into_future();
        let mut cursor = tries.run(find).await?;
        let mut found = Vec::new();
        while tries.run(cursor.advance(session)).await? {
            found.push(read(cursor.current()));
        }
        Ok(found)
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

    async fn delete_in_session(
        &self,
        session: &mut ClientSession,
        statements: Vec<Document>,
    ) -> Result<u64, StoreError> {
        // No write concern: that is the commit's.
        let command = doc! { "delete": self.messages.name(), "deletes": statements };
        let reply = self.run_in_session(session, command).await?;
        write_reply::matched(&reply)
    }
}
