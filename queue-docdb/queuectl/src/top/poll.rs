//! Looks at the queues, one after another, within the budget of commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use queue_api::{Error, ErrorKind, PageOptions, QueueName};
use queue_docdb::mongodb::{
    Database,
    bson::{DateTime, doc},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use super::{details, meter::Meter, state::Wanted, update::Event};
use crate::{
    commands::{doctor::error_text, pause},
    connect::{Connection, collections_of},
};

/// How often each is looked at, if the budget allows it.
const NAMES: Duration = Duration::from_secs(5);
const OPEN: Duration = Duration::from_secs(2);
const VISIBLE: Duration = Duration::from_secs(1);
const OTHERS: Duration = Duration::from_secs(5);

/// A collection with the name of a queue may become one, or be deleted.
const EXISTENCE: Duration = Duration::from_secs(60);

/// Of so many looks, one is at a queue that is not on the screen.
const TURNS: u64 = 4;

pub(super) struct Poller {
    connection: Arc<Connection>,
    database: Database,
    meter: Arc<Meter>,
    wanted: watch::Receiver<Wanted>,
    events: mpsc::Sender<Event>,
    /// Queues that an action has changed.
    changed: mpsc::UnboundedReceiver<QueueName>,
    collections: BTreeMap<QueueName, Seen>,
    listed: Option<Instant>,
    detailed: Option<(QueueName, Instant)>,
    turn: u64,
    is_lost: bool,
}

/// When a collection was looked at.
#[derive(Default)]
struct Seen {
    /// When it is to be checked again, and whether it was a queue.
    checked: Option<(Instant, bool)>,
    counted: Option<Instant>,
}

enum Look {
    Names,
    Existence(QueueName),
    Stats(QueueName),
    Details(QueueName),
}

impl Poller {
    pub(super) fn new(
        connection: Arc<Connection>,
        meter: Arc<Meter>,
        wanted: watch::Receiver<Wanted>,
        events: mpsc::Sender<Event>,
        changed: mpsc::UnboundedReceiver<QueueName>,
    ) -> Self {
        Self {
            database: connection.database(),
            connection,
            meter,
            wanted,
            events,
            changed,
            collections: BTreeMap::new(),
            listed: None,
            detailed: None,
            turn: 0,
            is_lost: false,
        }
    }

    /// Ends when nothing receives the events.
    pub(super) async fn run(mut self) {
        while !self.events.is_closed() {
            self.meter.room().await;
            let Some(look) = self.next(Instant::now()) else {
                pause(Duration::from_millis(50)).await;
                continue;
            };
            let most = self.connection.timeout;
            let answer = match timeout(most, self.take(&look)).await {
                Ok(answer) => answer,
                Err(_) => {
                    let text = format!("no answer for {most:?}");
                    Err(Error::new(ErrorKind::TimedOut, "top", text))
                }
            };
            match answer {
                Ok(events) => {
                    if std::mem::take(&mut self.is_lost) {
                        self.send(Event::Found).await;
                    }
                    for event in events {
                        self.send(event).await;
                    }
                }
                Err(error) => self.failed(&look, error).await,
            }
        }
    }

    async fn send(&self, event: Event) {
        // A closed channel ends the loop.
        let _ = self.events.send(event).await;
    }

    async fn failed(&mut self, look: &Look, error: Error) {
        let is_away = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut);
        if let Look::Existence(queue) = look {
            // Also now, so that one collection does not keep the others from their turn.
            let seen = self.collections.entry(queue.clone()).or_default();
            let was_queue = seen.checked.is_some_and(|(_, is_queue)| is_queue);
            // Of another schema, or not allowed: it is not shown.
            let (after, is_queue) = match is_away {
                true => (NAMES, was_queue),
                false => (EXISTENCE, false),
            };
            seen.checked = Some((Instant::now() + after, is_queue));
        }
        // One slow queue says nothing about the connection. Without one, the look at the names
        // fails too.
        let is_slow = error.kind() == ErrorKind::TimedOut;
        match look {
            Look::Stats(queue) | Look::Details(queue) if !is_away || is_slow => {
                self.send(Event::Unreadable(queue.clone(), format!("{error:#}")))
                    .await;
            }
            Look::Existence(_) if !is_away || is_slow => {}
            _ => {
                self.is_lost = true;
                self.send(Event::Lost(format!("{error:#}"))).await;
                pause(Duration::from_millis(500)).await;
            }
        }
    }

    fn next(&mut self, now: Instant) -> Option<Look> {
        while let Ok(queue) = self.changed.try_recv() {
            self.collections.remove(&queue);
            self.detailed = None;
            self.listed = None;
        }
        let is_due =
            |at: Option<Instant>, every| at.is_none_or(|at| now.duration_since(at) >= every);
        if is_due(self.listed, NAMES) {
            self.listed = Some(now);
            return Some(Look::Names);
        }
        let wanted = self.wanted.borrow().clone();
        if let Some(open) = &wanted.open {
            let at = self.detailed.as_ref().filter(|(queue, _)| queue == open);
            if is_due(at.map(|(_, at)| *at), OPEN) {
                self.detailed = Some((open.clone(), now));
                return Some(Look::Details(open.clone()));
            }
        }
        let unchecked = self
            .collections
            .iter()
            .find(|(_, seen)| seen.checked.is_none_or(|(at, _)| now >= at));
        if let Some((queue, _)) = unchecked {
            return Some(Look::Existence(queue.clone()));
        }
        self.turn += 1;
        let turn = self.turn;
        let visible: BTreeSet<_> = wanted.visible.into_iter().collect();
        let longest_ago = |is_wanted: bool, every| {
            let queues = self.collections.iter().filter(|(queue, seen)| {
                seen.checked.is_some_and(|(_, is_queue)| is_queue)
                    && visible.contains(*queue) == is_wanted
                    && is_due(seen.counted, every)
            });
            let first = queues.min_by_key(|(_, seen)| seen.counted);
            first.map(|(queue, _)| queue.clone())
        };
        // Until each has been counted, their order means nothing.
        let is_new = |is_wanted| longest_ago(is_wanted, Duration::MAX);
        let queue = is_new(true).or_else(|| is_new(false)).or_else(|| {
            let (shown, other) = (longest_ago(true, VISIBLE), longest_ago(false, OTHERS));
            match turn.is_multiple_of(TURNS) {
                true => other.or(shown),
                false => shown.or(other),
            }
        });
        let queue = queue?;
        self.collections.entry(queue.clone()).or_default().counted = Some(now);
        Some(Look::Stats(queue))
    }

    async fn take(&mut self, look: &Look) -> Result<Vec<Event>, Error> {
        let admin = &self.connection.admin;
        match look {
            Look::Names => {
                let names = self.names().await?;
                self.collections.retain(|name, _| names.contains(name));
                for name in names {
                    self.collections.entry(name).or_default();
                }
                Ok(self.queues())
            }
            Look::Existence(queue) => {
                let is_queue = self.connection.backend.queue_exists(queue).await?;
                let seen = self.collections.entry(queue.clone()).or_default();
                seen.checked = Some((Instant::now() + EXISTENCE, is_queue));
                Ok(self.queues())
            }
            Look::Stats(queue) => {
                let stats = admin.stats(queue).await?;
                Ok(vec![Event::Stats(queue.clone(), Instant::now(), stats)])
            }
            Look::Details(queue) => {
                let now = self.server_time().await?;
                let head = admin.peek(queue, details::HEAD).await?;
                let page = PageOptions::new(details::DEAD);
                let dead = admin.dead_letters(queue, &page).await?;
                let details = details::of(now, &head, &dead);
                Ok(vec![Event::Details(queue.clone(), details)])
            }
        }
    }

    /// Those that are known to be queues, and whether these are all.
    fn queues(&self) -> Vec<Event> {
        let seen = self.collections.iter();
        let queues = seen.filter(|(_, seen)| seen.checked.is_some_and(|(_, is_queue)| is_queue));
        let mut events = vec![Event::Names(
            queues.map(|(queue, _)| queue.clone()).collect(),
        )];
        if self.collections.values().all(|seen| seen.checked.is_some()) {
            events.push(Event::Listed);
        }
        events
    }

    /// The collections that may be queues, by one command. `Admin::list_queues` looks into each.
    async fn names(&self) -> Result<BTreeSet<QueueName>, Error> {
        let filter = collections_of(&self.connection.prefix);
        let names = self.database.list_collection_names().filter(filter).await;
        let names = names.map_err(unavailable)?;
        let names = names
            .iter()
            .filter_map(|name| QueueName::new(name.strip_prefix(&self.connection.prefix)?).ok());
        Ok(names.collect())
    }

    async fn server_time(&self) -> Result<DateTime, Error> {
        let admin = self.database.client().database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await;
        let hello = hello.map_err(unavailable)?;
        let now = hello.get_datetime("localTime").copied();
        Ok(now
            .unwrap_or_else(|_| DateTime::from_system_time(crate::commands::doctor::wall_clock())))
    }
}

fn unavailable(error: queue_docdb::mongodb::error::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "top", error_text(&error))
}
