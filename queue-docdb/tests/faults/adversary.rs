//! What other processes, or the caller, do between a fault and what the client does next.

use std::{collections::BTreeSet, fmt};

use queue_api::{Purge, Redrive, Result};
use queue_conformance::record::ReceiptAction;

use crate::{
    calls::Call,
    log::{DELAY, Leased, Party, VISIBILITY},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Adversary {
    Nothing,
    /// Another consumer leases what is ready.
    OtherLeases,
    OtherAcks,
    OtherNacks,
    /// All leases and delays end.
    TimePasses,
    /// The same, and another consumer leases what is ready then.
    OtherLeasesLater,
    /// The same, and it acks.
    OtherAcksLater,
    /// Another process acks with the receipts that are known.
    SameReceipts,
    /// A consumer acks what it can, and a producer uses the ids again.
    IdsAgain,
    /// Another producer enqueues ids of the call: all but the last, or the only one.
    SameIds,
    /// The caller drops the call.
    GivesUp,
    Purge,
    PurgeDead,
    Redrive,
    Delete,
}

pub(crate) const ADVERSARIES: [(Adversary, &str); 15] = [
    (Adversary::Nothing, "nothing"),
    (Adversary::OtherLeases, "other_leases"),
    (Adversary::OtherAcks, "other_acks"),
    (Adversary::OtherNacks, "other_nacks"),
    (Adversary::TimePasses, "time_passes"),
    (Adversary::OtherLeasesLater, "other_leases_later"),
    (Adversary::OtherAcksLater, "other_acks_later"),
    (Adversary::SameReceipts, "same_receipts"),
    (Adversary::IdsAgain, "ids_again"),
    (Adversary::SameIds, "same_ids"),
    (Adversary::GivesUp, "gives_up"),
    (Adversary::Purge, "purge"),
    (Adversary::PurgeDead, "purge_dead"),
    (Adversary::Redrive, "redrive"),
    (Adversary::Delete, "delete"),
];

/// More than the messages of a case.
const ALL: usize = 100;

impl Adversary {
    pub(crate) fn passes_time(self) -> bool {
        matches!(
            self,
            Self::TimePasses | Self::OtherLeasesLater | Self::OtherAcksLater
        )
    }

    /// Makes the move while this call is under way. Errors are as good as answers: the move may have been made.
    pub(crate) async fn make(self, call: Call, party: &Party) -> Result<()> {
        match self {
            // It is the caller's own move.
            Self::Nothing | Self::GivesUp => {}
            Self::OtherLeases => drop(party.lease(ALL).await?),
            Self::OtherAcks => {
                let leased = party.lease(ALL).await?;
                party.settle_each(leased, ReceiptAction::Ack).await?;
            }
            Self::OtherNacks => {
                let leased = party.lease(ALL).await?;
                party
                    .settle_each(leased, ReceiptAction::Nack(DELAY))
                    .await?;
            }
            Self::TimePasses => party.pass_time(),
            Self::OtherLeasesLater => {
                party.pass_time();
                party.lease(ALL).await?;
            }
            Self::OtherAcksLater => {
                party.pass_time();
                let leased = party.lease(ALL).await?;
                party.settle_each(leased, ReceiptAction::Ack).await?;
            }
            Self::SameReceipts => {
                let held = party.world.held();
                party.settle_each(held, ReceiptAction::Ack).await?;
            }
            Self::IdsAgain => {
                party.lease(ALL).await?;
                let held = party.world.held();
                let ids: BTreeSet<String> = held.iter().map(|it| it.id.clone()).collect();
                party.settle_each(held, ReceiptAction::Ack).await?;
                let copies = ids.iter().map(|id| party.world.copy(id, 1000)).collect();
                party.enqueue(copies).await?;
            }
            Self::SameIds => {
                let ids = match call.ids() {
                    [others @ .., _] if !others.is_empty() => others,
                    ids => ids,
                };
                party.enqueue(party.world.copies(ids)).await?;
            }
            Self::Purge => drop(party.purge(Purge::Live).await?),
            Self::PurgeDead => drop(party.purge(Purge::Dead).await?),
            Self::Redrive => drop(party.redrive(Redrive::All).await?),
            Self::Delete => party.delete_queue().await?,
        }
        Ok(())
    }
}

impl Party {
    fn pass_time(&self) {
        let delay = std::time::Duration::from_millis(DELAY);
        self.world.clock.advance(delay.max(VISIBILITY) + VISIBILITY);
    }

    async fn settle_each(&self, leased: Vec<Leased>, action: ReceiptAction) -> Result<()> {
        if !leased.is_empty() {
            let uses = leased.into_iter().map(|it| (it, action)).collect();
            self.settle(uses).await?;
        }
        Ok(())
    }
}

impl fmt::Display for Adversary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ADVERSARIES.iter().find(|(it, _)| it == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}
