//! What a queue contains, as a process sees it whose connections nothing disturbs.

use std::{collections::BTreeMap, time::UNIX_EPOCH};

use queue_api::{
    DeadReason, MessageState, PageOptions, PeekedMessage, QueueAdmin, QueueBackend, QueueStats,
    Result,
};
use queue_conformance::record::Millis;

use crate::{
    calls::Call,
    log::{Party, What, World},
};

/// More than the messages of a case.
const ALL: usize = 100;

/// A live message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) state: MessageState,
    pub(crate) attempts: u32,
    pub(crate) ready_at: Millis,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) attempts: u32,
    pub(crate) reason: DeadReason,
}

/// The messages of a queue, by payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) live: BTreeMap<String, Live>,
    pub(crate) dead: BTreeMap<String, Dead>,
    pub(crate) stats: Option<QueueStats>,
    pub(crate) is_listed: Option<bool>,
}

impl Look {
    /// The number of messages that can be leased.
    pub(crate) fn ready(&self) -> usize {
        let live = self.live.values();
        live.filter(|live| live.state == MessageState::Ready)
            .count()
    }
}

impl World {
    /// Whether all these messages were sent in this case.
    pub(crate) fn has_sent_all(&self, look: &Look) -> bool {
        let events = self.events();
        let sent = |payload: &String| {
            events.iter().any(|event| match &event.what {
                What::Enqueue { copies, .. } => copies.iter().any(|it| it.payload == *payload),
                _ => false,
            })
        };
        look.live.keys().chain(look.dead.keys()).all(sent)
    }
}

impl Party {
    /// What a call may depend on or change. Only some look at the rest.
    pub(crate) async fn look(&self, call: Call) -> Result<Look> {
        let stats = match call {
            Call::Stats => Some(self.backend.stats(&self.world.queue).await?),
            _ => None,
        };
        let is_listed = match call {
            Call::ListQueues => Some(self.lists_queue().await?),
            _ => None,
        };
        Ok(Look {
            live: self.peek().await?,
            dead: self.dead_letters().await?,
            stats,
            is_listed,
        })
    }

    pub(crate) async fn peek(&self) -> Result<BTreeMap<String, Live>> {
        let peeked = self.backend.peek(&self.world.queue, ALL).await?;
        Ok(peeked.into_iter().map(live).collect())
    }

    /// The live messages in two pages or more, so that a token is used.
    pub(crate) async fn messages(&self) -> Result<BTreeMap<String, Live>> {
        let mut page = PageOptions::new(1);
        let mut messages = BTreeMap::new();
        loop {
            let listed = self.backend.messages(&self.world.queue, &page).await?;
            messages.extend(listed.messages.into_iter().map(live));
            let Some(token) = listed.next else {
                return Ok(messages);
            };
            page = page.with_token(token);
        }
    }

    pub(crate) async fn dead_letters(&self) -> Result<BTreeMap<String, Dead>> {
        let page = PageOptions::new(ALL);
        let page = self.backend.dead_letters(&self.world.queue, &page).await?;
        let dead = page.letters.into_iter().map(|it| {
            let payload = String::from_utf8_lossy(&it.payload).into_owned();
            let dead = Dead {
                attempts: it.attempts,
                reason: it.reason,
            };
            (payload, dead)
        });
        Ok(dead.collect())
    }

    pub(crate) async fn lists_queue(&self) -> Result<bool> {
        let queues = self.backend.list_queues().await?;
        Ok(queues.contains(&self.world.queue))
    }
}

fn live(message: PeekedMessage) -> (String, Live) {
    let ready_at = message.ready_at.duration_since(UNIX_EPOCH);
    let live = Live {
        state: message.state,
        attempts: message.attempts,
        ready_at: ready_at.map_or(0, |at| at.as_millis() as Millis),
    };
    (String::from_utf8_lossy(&message.payload).into_owned(), live)
}
