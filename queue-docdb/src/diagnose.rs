//! Mistakes in the configuration, found by what the driver's checks of the servers say while it
//! connects.
//!
//! The driver takes every failed check for an outage, and waits. Only what no outage looks like is
//! a mistake here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mongodb::{
    bson::Document,
    error::{Error as DriverError, ErrorKind as DriverKind},
    event::{EventHandler, sdam::SdamEvent},
    options::ClientOptions,
};
use tokio::{sync::Notify, time::Instant};

use crate::{
    amazon,
    codes::API_VERSION_REQUIRED,
    hello_mistakes::{in_reply, is_uninitiated, is_writable, not_the_primary, uninitiated},
    tls_mistakes,
    words::words,
};

/// How long the driver may take to ask the servers that an answer names.
const SETTLING: Duration = Duration::from_millis(20);

/// How long a member that is about to start may look like a mistake: it has not read its
/// configuration, or its name is not known yet.
pub(crate) const STARTING: Duration = Duration::from_secs(2);

/// The driver's checks of each server, for as long as a client connects.
pub(crate) struct Checks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Std mutexes, locked for a copy only, never across an await.
    servers: Mutex<HashMap<String, Server>>,
    /// The mistakes found so far.
    found: Mutex<Found>,
    changed: Notify,
}

/// What the last checks say together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) mistakes: Vec<String>,
    /// Whether a server may be down.
    pub(crate) is_outage: bool,
    /// What the servers without a mistake said.
    pub(crate) states: Vec<String>,
}

#[derive(Clone, Default)]
struct Server {
    /// Whether the driver has given it up, because it does not fit the settings.
    is_closed: bool,
    last: Option<Check>,
    has_answered: bool,
    /// Since when it is what `last` says.
    since: Option<Instant>,
}

impl Server {
    /// A mistake once it has lasted.
    fn mistake_later(&self, mistake: String, options: &ClientOptions) -> Finding {
        let selection = options.server_selection_timeout.unwrap_or(STARTING);
        let at = self.since.unwrap_or_else(Instant::now) + STARTING.min(selection / 2);
        match at <= Instant::now() {
            true => Finding::Mistake(mistake),
            false => Finding::Later(at),
        }
    }

    /// Whether an outage may be why the client did not connect, if this server has no mistake.
    fn may_be_down(&self) -> bool {
        match &self.last {
            // A primary that is well would have answered. Without a primary there is an election.
            Some(Check::Answered(reply)) => is_writable(reply) || !reply.contains_key("primary"),
            Some(Check::Failed(_)) | None => true,
        }
    }

    fn state(&self, address: &str) -> String {
        match &self.last {
            None => format!("{address}: did not answer"),
            Some(Check::Failed(error)) => format!("{address}: {}", words(error)),
            Some(Check::Answered(reply)) if is_writable(reply) => format!("{address}: answered"),
            Some(Check::Answered(_)) => format!("{address}: is not the primary"),
        }
    }
}

#[derive(Clone)]
enum Check {
    Answered(Document),
    Failed(DriverError),
}

impl Check {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Answered(one), Self::Answered(other)) => {
                is_uninitiated(one) == is_uninitiated(other)
            }
            (Self::Failed(_), Self::Failed(_)) => true,
            _ => false,
        }
    }
}

/// What a check means.
enum Finding {
    Mistake(String),
    /// It may become a mistake at this time.
    Later(Instant),
    Nothing,
}

impl Checks {
    pub(crate) fn of(options: &ClientOptions) -> Self {
        let hosts = options.hosts.iter();
        let servers = hosts.map(|host| (host.to_string(), Server::default()));
        let shared = Shared {
            servers: Mutex::new(servers.collect()),
            ..Shared::default()
        };
        Self(Arc::new(shared))
    }

    /// For the driver's options.
    pub(crate) fn handler(&self) -> EventHandler<SdamEvent> {
        let shared = Arc::downgrade(&self.0);
        EventHandler::callback(move |event| {
            // Gone once the client is connected.
            if let Some(shared) = shared.upgrade() {
                shared.note(event);
            }
        })
    }

    /// Returns once the settings are certainly wrong for every server, with the reasons.
    pub(crate) async fn mistake(&self, options: &ClientOptions) -> String {
        let mut before = Vec::new();
        loop {
            let changed = self.0.changed.notified();
            let (mut found, mut open, mut look_at) = (Found::default(), 0, None);
            let servers = self.servers();
            for (address, server) in &servers {
                match finding(address, server, &servers, options).await {
                    Finding::Mistake(mistake) => found.mistakes.push(mistake),
                    Finding::Later(at) => {
                        open += 1;
                        look_at = Some(look_at.map_or(at, |before: Instant| before.min(at)));
                    }
                    Finding::Nothing if server.is_closed => {}
                    Finding::Nothing => {
                        open += 1;
                        found.states.push(server.state(address));
                        found.is_outage |= server.may_be_down();
                    }
                }
            }
            found.mistakes.dedup();
            *self.0.found.lock().unwrap_or_else(PoisonError::into_inner) = found.clone();
            if open == 0 && !found.mistakes.is_empty() {
                if found.mistakes == before {
                    return before.join("; ");
                }
                // The driver may be about to ask a server that another one has named.
                look_at = Some(Instant::now() + SETTLING);
                before = found.mistakes;
            }
            match look_at {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// What [`mistake`](Self::mistake) has found by now.
    pub(crate) fn found(&self) -> Found {
        let found = self.0.found.lock();
        found.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// In the order of their addresses.
    fn servers(&self) -> Vec<(String, Server)> {
        let servers = self.0.servers.lock();
        let servers = servers.unwrap_or_else(PoisonError::into_inner).clone();
        let mut servers: Vec<_> = servers.into_iter().collect();
        servers.sort_by(|(one, _), (other, _)| one.cmp(other));
        servers
    }
}

async fn finding(
    address: &str,
    server: &Server,
    all: &[(String, Server)],
    options: &ClientOptions,
) -> Finding {
    let mistake = match &server.last {
        None => None,
        Some(Check::Answered(reply)) if is_uninitiated(reply) => {
            return server.mistake_later(uninitiated(address), options);
        }
        Some(Check::Answered(reply)) => match in_reply(reply, address, options) {
            None if options.direct_connection == Some(true) => {
                beside_a_primary(reply, address, options).await
            }
            mistake => mistake,
        },
        Some(Check::Failed(error)) => match unreachable_name(address, error, all) {
            // What has been reached under its name is down now.
            Some(mistake) if !server.has_answered => {
                return server.mistake_later(mistake, options);
            }
            _ if wants_api_version(error) => Some(format!("{address}: {API_VERSION}")),
            _ => tls_mistakes::find(error, address, options).await,
        },
    };
    mistake.map_or(Finding::Nothing, Finding::Mistake)
}

/// The mistake of a direct connection to another member than the primary, if that answers.
async fn beside_a_primary(
    reply: &Document,
    address: &str,
    options: &ClientOptions,
) -> Option<String> {
    if amazon::is_cluster_endpoint(address) {
        return None;
    }
    let mistake = not_the_primary(reply, address)?;
    let primary = reply.get_str("primary").ok()?;
    let is_there = tls_mistakes::is_there(primary, options).await;
    is_there.then_some(mistake)
}

impl Shared {
    fn note(&self, event: SdamEvent) {
        let (address, last) = match event {
            SdamEvent::ServerOpening(event) => (event.address, None),
            SdamEvent::ServerClosed(event) => {
                self.change(event.address.to_string(), |server| server.is_closed = true);
                return;
            }
            SdamEvent::ServerHeartbeatSucceeded(event) => {
                (event.server_address, Some(Check::Answered(event.reply)))
            }
            SdamEvent::ServerHeartbeatFailed(event) => {
                (event.server_address, Some(Check::Failed(event.failure)))
            }
            _ => return,
        };
        self.change(address.to_string(), |server| {
            let Some(last) = last else {
                server.is_closed = false;
                return;
            };
            // A cancelled check of a closed server says nothing.
            if server.is_closed {
                return;
            }
            if !server
                .last
                .as_ref()
                .is_some_and(|before| before.is_like(&last))
            {
                server.since = Some(Instant::now());
            }
            server.has_answered |= matches!(last, Check::Answered(_));
            server.last = Some(last);
        });
    }

    fn change(&self, address: String, change: impl FnOnce(&mut Server)) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        change(servers.entry(address).or_default());
        drop(servers);
        self.changed.notify_waiters();
    }
}

/// What to do about a server that wants an API version.
pub(crate) const API_VERSION: &str = "the server wants an API version, which a URI cannot name; set \
     server_api in the options of your own client, and pass its database to from_database";

/// Also in the driver's text about servers that were not selected.
pub(crate) fn wants_api_version(error: &DriverError) -> bool {
    words(error).contains(&API_VERSION_REQUIRED.to_string())
}

/// A server that answered, but calls itself by a name that cannot be reached from here. The driver
/// uses only that name.
fn unreachable_name(
    address: &str,
    error: &DriverError,
    all: &[(String, Server)],
) -> Option<String> {
    let DriverKind::Io(cause) = &*error.kind else {
        return None;
    };
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    if matches!(cause.kind(), InvalidData | UnexpectedEof) {
        return None;
    }
    let mut others = all.iter().filter(|(other, _)| other != address);
    let (seed, _) = others.find(|(_, other)| match &other.last {
        Some(Check::Answered(reply)) => reply.get_str("me") == Ok(address),
        _ => false,
    })?;
    Some(format!(
        "the server at {seed} calls itself {address} in its replica set, which cannot be reached \
         from here: {}; give the set's members names that clients can reach, or set \
         directConnection=true if it is the only member",
        words(error)
    ))
}

#[cfg(test)]
mod tests {
    use std::io;

    use mongodb::bson::doc;

    use super::*;

    fn answered(address: &str, me: &str) -> (String, Server) {
        let last = Some(Check::Answered(doc! { "setName": "rs0", "me": me }));
        let server = Server {
            last,
            ..Server::default()
        };
        (address.to_owned(), server)
    }

    /// Members in containers have names that only containers know.
    #[test]
    fn a_server_that_answers_under_a_name_of_its_own_is_a_mistake() {
        let all = [answered("localhost:27017", "mongo1:27017")];
        let refused = DriverError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        let mistake = unreachable_name("mongo1:27017", &refused, &all).expect("a mistake");
        assert!(
            mistake.contains("localhost:27017 calls itself mongo1:27017"),
            "{mistake}"
        );
        assert!(mistake.contains("connection refused"), "{mistake}");

        let other = unreachable_name("mongo2:27017", &refused, &all);
        assert_eq!(other, None, "it may be down");
        let all = [answered("mongo1:27017", "mongo1:27017")];
        let itself = unreachable_name("mongo1:27017", &refused, &all);
        assert_eq!(itself, None, "it may have just stopped");
    }

    /// Also beside a server that is a mistake.
    #[test]
    fn only_a_secondary_that_names_a_primary_is_no_outage() {
        let may_be_down = |last| {
            let server = Server {
                last,
                ..Server::default()
            };
            server.may_be_down()
        };
        let primary = doc! { "isWritablePrimary": true, "primary": "a:1" };
        let secondary = doc! { "isWritablePrimary": false, "primary": "a:1" };
        let election = doc! { "isWritablePrimary": false };
        assert!(may_be_down(Some(Check::Answered(primary))), "it hangs");
        assert!(!may_be_down(Some(Check::Answered(secondary))));
        assert!(may_be_down(Some(Check::Answered(election))));
        let refused = DriverError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert!(may_be_down(Some(Check::Failed(refused))));
        assert!(may_be_down(None));
    }
}
