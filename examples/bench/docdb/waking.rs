//! A consumer that waits, and says when it has something: in this process or in one of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::Context as _;
use mongodb::event::{EventHandler, command::CommandEvent};
use queue_api::{
    NewMessage, Queue,
    consumer::{ListenOptions, Listener},
};
use serde::{Deserialize, Serialize};

use super::place::{Place, QUEUE};
use crate::{
    child::{self, Child, Role},
    clock::nanos,
};

/// What a listener in a process of its own says.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// It has sent so many commands, as it was asked.
    Commands(u64),
    /// It has a message, so many nanoseconds after somebody began to send it.
    Woken(u64),
}

/// The only question that it is asked.
#[derive(Debug, Serialize, Deserialize)]
struct HowManyCommands;

/// A message that says when it was sent.
pub(super) fn sent_now() -> NewMessage {
    NewMessage::new(nanos().to_string())
}

/// A consumer of this process, and how many commands it has sent.
pub(super) struct Here {
    pub(super) queue: Queue,
    listener: Listener,
    commands: Arc<AtomicU64>,
}

impl Here {
    pub(super) async fn listen(place: &Place) -> anyhow::Result<Self> {
        let commands = Arc::new(AtomicU64::new(0));
        let count = commands.clone();
        let events = EventHandler::callback(move |event| {
            if let CommandEvent::Started(_) = event {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let queue = Queue::new(place.observed(events).await?, QUEUE)?;
        Ok(Self {
            listener: queue.listen(ListenOptions::new(8))?,
            queue,
            commands,
        })
    }

    /// How many nanoseconds after it was sent the next message is here; it is acked then.
    pub(super) async fn woken(&mut self) -> anyhow::Result<u64> {
        let lease = self.listener.next().await;
        let lease = lease.context("the listener was not stopped")?;
        let sent: u64 = std::str::from_utf8(lease.payload())?.parse()?;
        let took = nanos() - sent;
        lease.ack().await?;
        Ok(took)
    }

    /// Stops listening, which would be faster than any other process.
    pub(super) async fn stop(self) {
        self.listener.drain().await;
    }
}

/// A consumer in a process of its own.
pub(super) struct Apart(Child);

impl Apart {
    pub(super) fn start(place: &Place) -> anyhow::Result<Self> {
        Ok(Self(Child::start(&Role::Listener(place.clone()))?))
    }

    /// How many commands it has sent.
    pub(super) fn commands(&mut self) -> anyhow::Result<u64> {
        self.0.order(&HowManyCommands)?;
        match self.0.hear()? {
            Told::Commands(sent) => Ok(sent),
            Told::Woken(_) => anyhow::bail!("nobody has sent anything"),
        }
    }

    /// As [`Here::woken`].
    pub(super) fn woken(&mut self) -> anyhow::Result<u64> {
        match self.0.hear()? {
            Told::Woken(took) => Ok(took),
            Told::Commands(_) => anyhow::bail!("nobody has asked"),
        }
    }
}

/// What a child does: it consumes until the parent goes away.
pub(crate) async fn listen(place: &Place) -> anyhow::Result<()> {
    // First of all, as it ends this process with its parent.
    let orders = child::orders::<HowManyCommands>();
    let mut here = Here::listen(place).await?;
    let commands = here.commands.clone();
    thread::spawn(move || {
        for HowManyCommands in orders {
            // Whoever cannot be told has gone, and so will this process.
            let _ = child::tell(&Told::Commands(commands.load(Ordering::Relaxed)));
        }
    });
    loop {
        let took = here.woken().await?;
        child::tell(&Told::Woken(took))?;
    }
}
