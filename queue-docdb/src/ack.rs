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
            [(_, held)] if self.ack_one(held).await? => HashSet::from([held]),
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

    /// Deletes one message. It needs no look beforehand: the number of deleted documents tells.
    async fn ack_one(&self, held: &ParsedReceipt) -> Result<bool, StoreError> {
        let mut retries = self.deadline.retries();
        // A try that was given up may still arrive, and delete what a later one then misses.
        let mut may_arrive_late = false;
        loop {
            let error = match self.delete(deletions(&[held])).await {
                Ok(1) => return Ok(true),
                Ok(_) | Err(StoreError::Unconfirmed { matched: 0, .. }) if may_arrive_late => {
                    return Err(retries.into_last());
                }
                Ok(_) | Err(StoreError::Unconfirmed { matched: 0, .. }) => return Ok(false),
                Err(error) => error,
            };
            let was_deleted = matches!(error, StoreError::Unconfirmed { .. });
            may_arrive_late |= !was_deleted;
            retries.after(error).await?;
            if was_deleted {
                self.confirm().await?;
            }
            let after = self.ownership(&[held]).await?;
            match after.get(&held.id) {
                // Nothing happened, or a failover undid it.
                Some(ownership) if ownership.lease == Some(held.nonce) => {}
                None if was_deleted => return Ok(true),
                // By this call, or by another ack, or a purge, or long before: no trace tells.
                _ => return Err(retries.into_last()),
            }
        }
    }

    /// Deletes a batch in one command. Its answer is a number, which does not say whose
    /// receipt was good, so who owns what is looked up before.
    async fn ack_several<'a>(
        &self,
        held: &[&'a ParsedReceipt],
    ) -> Result<HashSet<&'a ParsedReceipt>, StoreError> {
        let before = self.ownership(held).await?;
        let mut ours: Vec<&ParsedReceipt> = held
            .iter()
            .copied()
            .filter(|held| {
                before
                    .get(&held.id)
                    .is_some_and(|o| o.lease == Some(held.nonce))
            })
            .collect();
        if ours.is_empty() {
            // A primary that was cut off and does not know it may show what was never agreed on,
            // and only a write tells.
            self.confirm().await?;
            return Ok(HashSet::new());
        }
        let mut retries = self.deadline.retries();
        let mut may_arrive_late = false;
        while !ours.is_empty() {
            let answer = self.delete(deletions(&ours)).await;
            let is_confirmed = answer.is_ok();
            let error = match self.confirmed(answer).await {
                Ok(0) if !may_arrive_late => return Ok(HashSet::new()),
                Ok(deleted) if is_confirmed && deleted == ours.len() as u64 => {
                    return Ok(ours.into_iter().collect());
                }
                Ok(deleted) => return self.which(&ours, &before, deleted).await,
                Err(error) => error,
            };
            may_arrive_late = true;
            retries.after(error).await?;
            // What is still there was not deleted, and is ours or lost for certain. What is
            // gone may have been deleted by others as well.
            let after = self.ownership(&ours).await?;
            if !gone(&ours, &before, &after).is_empty() {
                return Err(retries.into_last());
            }
            ours.retain(|held| {
                after
                    .get(&held.id)
                    .is_some_and(|o| o.lease == Some(held.nonce))
            });
        }
        Ok(HashSet::new())
    }

    /// Which receipts a command applied that deleted fewer documents than it was sent for.
    async fn which<'a>(
        &self,
        ours: &[&'a ParsedReceipt],
        before: &HashMap<MessageId, Ownership>,
        deleted: u64,
    ) -> Result<HashSet<&'a ParsedReceipt>, StoreError> {
        // Somebody came between. What is still there was not deleted by anyone, so its receipt
        // is lost; where the same number is gone that this call deleted, it deleted all of
        // them. Otherwise another ack of the same receipts is in there, or a purge.
        let after = self.ownership(ours).await?;
        let gone = gone(ours, before, &after);
        if deleted == gone.len() as u64 {
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
