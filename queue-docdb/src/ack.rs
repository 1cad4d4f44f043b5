//! Ack: delete what the receipts stand for, and only say `Applied` where that is certain.

use std::collections::{HashMap, HashSet};

use mongodb::bson::{Document, Uuid, doc};
use queue_api::{LeaseOutcome, MessageId, Receipt};

use crate::{
    collection::{Query, QueueCollection},
    document,
    error::StoreError,
    receipt::ParsedReceipt,
};

/// The parts of a document that tell whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ownership {
    pub(crate) lease: Option<Uuid>,
    pub(crate) settled: Option<Uuid>,
    pub(crate) birth: Option<Uuid>,
}

impl QueueCollection {
    /// Ends the messages that the receipts stand for.
    pub(crate) async fn ack(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>, StoreError> {
        // Of two uses of a receipt the first one settles it.
        let mut used = HashSet::new();
        let uses: Vec<(usize, ParsedReceipt)> = receipts
            .iter()
            .enumerate()
            .filter_map(|(index, receipt)| Some((index, ParsedReceipt::parse(receipt)?)))
            .filter(|(_, held)| used.insert(held.clone()))
            .collect();
        let applied = match uses.as_slice() {
            [] => HashSet::new(),
            [(_, held)] if self.delete_held(&[held]).await? == 1 => HashSet::from([held]),
            [_] => HashSet::new(),
            _ => {
                let held: Vec<&ParsedReceipt> = uses.iter().map(|(_, held)| held).collect();
                self.ack_several(&held).await?
            }
        };
        let mut outcomes = vec![LeaseOutcome::Lost; receipts.len()];
        for (index, held) in &uses {
            if applied.contains(held) {
                outcomes[*index] = LeaseOutcome::Applied;
            }
        }
        Ok(outcomes)
    }

    /// Deletes the messages of these receipts, and returns how many it has deleted.
    ///
    /// # Errors
    /// Also if the answer to a try was lost and a later try deletes fewer than all. The lost try,
    /// or another call, has deleted the rest, so `Lost` would be wrong.
    async fn delete_held(&self, held: &[&ParsedReceipt]) -> Result<u64, StoreError> {
        let mut retries = self.deadline.retries();
        let mut is_lost = false;
        loop {
            let error = match self.delete_again(deletions(held), &retries).await {
                Ok(deleted) if !is_lost || deleted == held.len() as u64 => return Ok(deleted),
                Ok(_) => return Err(retries.into_last()),
                Err(error) => error,
            };
            // If it matched nothing, it has deleted nothing.
            is_lost |= !matches!(error, StoreError::Unconfirmed { matched: 0, .. });
            retries.after(error).await?;
        }
    }

    /// Deletes a batch. The answer is only a number, so a find looks up before which receipts are
    /// good.
    async fn ack_several<'a>(
        &self,
        held: &[&'a ParsedReceipt],
    ) -> Result<HashSet<&'a ParsedReceipt>, StoreError> {
        let before = self.ownership(held).await?;
        let (ours, lost): (Vec<&ParsedReceipt>, Vec<&ParsedReceipt>) =
            held.iter().copied().partition(|held| {
                let seen = before.get(&held.id);
                seen.is_some_and(|seen| seen.lease == Some(held.nonce))
            });
        let mut applied = HashSet::new();
        if !ours.is_empty() {
            let deleted = self.delete_held(&ours).await?;
            if deleted == ours.len() as u64 {
                applied.extend(ours);
            } else if deleted > 0 {
                applied = self.which(&ours, &before, deleted).await?;
            }
        }
        // A failover may undo what the find has read. A delete to a majority is certain.
        if !lost.is_empty() {
            let deleted = self.delete_held(&lost).await?;
            if deleted == lost.len() as u64 {
                applied.extend(lost);
            } else if deleted > 0 {
                return Err(StoreError::Uncertain);
            }
        }
        Ok(applied)
    }

    /// Which receipts a command applied that deleted fewer documents than it was sent for.
    async fn which<'a>(
        &self,
        ours: &[&'a ParsedReceipt],
        before: &HashMap<MessageId, Ownership>,
        deleted: u64,
    ) -> Result<HashSet<&'a ParsedReceipt>, StoreError> {
        // Another call has changed some of the messages. The receipt of a message that is still
        // there is lost. If as many are gone as this call has deleted, it has deleted all of them.
        // Otherwise another ack of the same receipts or a purge has deleted some.
        let after = self.ownership(ours).await?;
        let gone = gone(ours, before, &after);
        let there: Vec<_> = ours.iter().filter(|held| !gone.contains(**held)).collect();
        let filters = there.iter().map(|held| {
            let birth = before.get(&held.id).and_then(|seen| seen.birth);
            doc! { "_id": held.id.as_str(), "birth": birth }
        });
        if deleted == gone.len() as u64
            && self.held_by_majority(filters).await? == there.len() as u64
        {
            return Ok(gone);
        }
        Err(StoreError::Uncertain)
    }

    /// Who owns the messages of these receipts; those that are not there are left out.
    pub(crate) async fn ownership(
        &self,
        held: &[&ParsedReceipt],
    ) -> Result<HashMap<MessageId, Ownership>, StoreError> {
        let ids: Vec<&str> = held.iter().map(|held| held.id.as_str()).collect();
        let query = Query::by_ids(doc! { "_id": { "$in": ids } }, held.len())
            .with_projection(doc! { "lease": 1, "settled": 1, "birth": 1 });
        let found = self
            .find(query, |document| {
                let ownership = Ownership {
                    lease: document::uuid(document, "lease"),
                    settled: document::uuid(document, "settled"),
                    birth: document::uuid(document, "birth"),
                };
                Some((document::id(document)?, ownership))
            })
            .await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// The receipts whose messages are there no more, or only later ones of the same ids.
fn gone<'a>(
    held: &[&'a ParsedReceipt],
    before: &HashMap<MessageId, Ownership>,
    after: &HashMap<MessageId, Ownership>,
) -> HashSet<&'a ParsedReceipt> {
    let birth = |seen: &HashMap<MessageId, Ownership>, held: &ParsedReceipt| {
        seen.get(&held.id).map(|ownership| ownership.birth)
    };
    held.iter()
        .copied()
        .filter(|held| birth(after, held) != birth(before, held))
        .collect()
}

/// One statement for each claim that the receipts come from.
pub(crate) fn deletions(held: &[&ParsedReceipt]) -> Vec<Document> {
    let mut claims: HashMap<[u8; 16], Vec<&str>> = HashMap::new();
    for held in held {
        claims
            .entry(held.nonce.bytes())
            .or_default()
            .push(held.id.as_str());
    }
    claims
        .into_iter()
        .map(|(nonce, ids)| {
            let filter = doc! { "_id": { "$in": ids }, "lease": Uuid::from_bytes(nonce) };
            doc! { "q": filter, "limit": 0 }
        })
        .collect()
}
