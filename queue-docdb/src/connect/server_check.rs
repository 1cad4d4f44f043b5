//! Mistakes in the configuration, found by what the driver's checks of the servers say while it
//! connects.
//!
//! The driver retries after every failed check. This module reports only what an outage cannot
//! cause.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::{
    bson::Document,
    error::{Error as DriverError, ErrorKind as DriverKind},
    event::{EventHandler, sdam::SdamEvent},
    options::ClientOptions,
};
use tokio::{sync::Notify, time::Instant};

use super::{
    amazon,
    hello::{Verdict, is_uninitiated, is_writable, judge},
    tls_check::{self, Probes},
};
use crate::{
    lock::lock,
    store::{
        codes::{API_VERSION_REQUIRED, refusal},
        driver_error::words,
        retry::Deadline,
    },
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
    servers: Mutex<HashMap<String, Server>>,
    changed: Notify,
}

/// What the last checks say together.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis {
    pub(crate) mistakes: Vec<Mistake>,
    /// Whether a server may be down.
    pub(crate) is_outage: bool,
    /// What the servers without a mistake said.
    pub(crate) states: Vec<String>,
}

/// A setting that does not fit a server.
#[derive(Clone, Debug)]
pub(crate) struct Mistake {
    pub(crate) text: String,
    /// The failed check that shows it, if one does.
    pub(crate) cause: Option<DriverError>,
}

#[derive(Clone, Default)]
struct Server {
    /// Whether the driver has given it up, because it does not fit the settings.
    is_closed: bool,
    last: Option<Check>,
    has_answered: bool,
    /// When `last` changed.
    since: Option<Instant>,
    mistake: Option<Mistake>,
}

impl Server {
    fn note(&mut self, check: Check) {
        // A cancelled check of a closed server says nothing.
        if self.is_closed {
            return;
        }
        if !self
            .last
            .as_ref()
            .is_some_and(|before| before.is_like(&check))
        {
            self.since = Some(Instant::now());
        }
        self.has_answered |= matches!(check, Check::Answered(_));
        self.last = Some(check);
    }

    /// A mistake once it has lasted.
    fn mistake_later(&self, mistake: Mistake, options: &ClientOptions) -> Finding {
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
    Mistake(Mistake),
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

    /// Returns once the settings are certainly wrong for every server, with the mistakes.
    pub(crate) async fn mistakes(
        &self,
        options: &ClientOptions,
        deadline: Deadline,
    ) -> Vec<Mistake> {
        let (mut before, mut probes) = (Vec::new(), Probes::default());
        loop {
            let changed = self.0.changed.notified();
            let servers = self.servers();
            let failures = servers
                .iter()
                .filter_map(|(address, server)| match &server.last {
                    Some(Check::Failed(error)) => Some((address, error)),
                    Some(Check::Answered(_)) | None => None,
                });
            let within = tls_check::probe_time(deadline.left());
            probes.update(failures, options, within).await;
            let (mut open, mut look_at) = (0, None);
            for (address, server) in &servers {
                let mistake =
                    match finding(address, server, &servers, &probes, options, within).await {
                        Finding::Mistake(mistake) => Some(mistake),
                        Finding::Later(at) => {
                            open += 1;
                            look_at = Some(look_at.map_or(at, |before: Instant| before.min(at)));
                            None
                        }
                        Finding::Nothing => {
                            open += usize::from(!server.is_closed);
                            None
                        }
                    };
                self.0.change(address, |server| server.mistake = mistake);
            }
            let found = self.diagnosis().mistakes;
            if open == 0 && !found.is_empty() {
                let texts: Vec<_> = found.iter().map(|mistake| mistake.text.clone()).collect();
                if texts == before {
                    return found;
                }
                // The driver may be about to ask a server that another one has named.
                look_at = Some(Instant::now() + SETTLING);
                before = texts;
            }
            match look_at {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// What is known by now.
    pub(crate) fn diagnosis(&self) -> Diagnosis {
        let mut diagnosis = Diagnosis::default();
        for (address, server) in self.servers() {
            match &server.mistake {
                Some(mistake) => diagnosis.mistakes.push(mistake.clone()),
                None if server.is_closed => {}
                None => {
                    diagnosis.states.push(server.state(&address));
                    diagnosis.is_outage |= server.may_be_down();
                }
            }
        }
        let same = |one: &mut Mistake, other: &mut Mistake| one.text == other.text;
        diagnosis.mistakes.dedup_by(same);
        diagnosis
    }

    /// In the order of their addresses.
    fn servers(&self) -> Vec<(String, Server)> {
        let mut servers: Vec<_> = lock(&self.0.servers).clone().into_iter().collect();
        servers.sort_by(|(one, _), (other, _)| one.cmp(other));
        servers
    }
}

async fn finding(
    address: &str,
    server: &Server,
    all: &[(String, Server)],
    probes: &Probes,
    options: &ClientOptions,
    within: Duration,
) -> Finding {
    let (text, cause) = match &server.last {
        None => return Finding::Nothing,
        Some(Check::Answered(reply)) => match judge(reply, address, Some(options)) {
            Verdict::Writable | Verdict::NotThePrimary => return Finding::Nothing,
            Verdict::Mistake(text) => (text, None),
            // A cluster endpoint leads to the former writer for a while.
            Verdict::Secondary(text) => match reply.get_str("primary") {
                Ok(primary)
                    if !amazon::is_cluster_endpoint(address)
                        && tls_check::is_there(primary, options, within).await =>
                {
                    (text, None)
                }
                _ => return Finding::Nothing,
            },
            Verdict::Uninitiated(text) => {
                return server.mistake_later(Mistake { text, cause: None }, options);
            }
        },
        Some(Check::Failed(error)) => {
            let cause = Some(error.clone());
            // What has been reached under its name is down now.
            if !server.has_answered
                && let Some(text) = unreachable_name(address, error, all)
            {
                return server.mistake_later(Mistake { text, cause }, options);
            }
            if wants_api_version(error) {
                (format!("{address}: {API_VERSION}"), cause)
            } else if let Some(text) = probes.mistake(address) {
                (text, cause)
            } else {
                return Finding::Nothing;
            }
        }
    };
    Finding::Mistake(Mistake { text, cause })
}

impl Shared {
    fn note(&self, event: SdamEvent) {
        match event {
            SdamEvent::ServerOpening(event) => {
                self.change(&event.address, |server| server.is_closed = false);
            }
            SdamEvent::ServerClosed(event) => {
                self.change(&event.address, |server| server.is_closed = true);
            }
            SdamEvent::ServerHeartbeatSucceeded(event) => {
                let check = Check::Answered(event.reply);
                self.change(&event.server_address, |server| server.note(check));
            }
            SdamEvent::ServerHeartbeatFailed(event) => {
                let check = Check::Failed(event.failure);
                self.change(&event.server_address, |server| server.note(check));
            }
            _ => return,
        }
        self.changed.notify_waiters();
    }

    fn change(&self, address: &impl ToString, change: impl FnOnce(&mut Server)) {
        change(lock(&self.servers).entry(address.to_string()).or_default());
    }
}

/// What to do about a server that wants an API version.
pub(crate) const API_VERSION: &str = "the server wants an API version, which a URI cannot name; set \
     server_api in the options of your own client, and pass its database to from_database";

/// Also in the driver's text about servers that were not selected.
pub(crate) fn wants_api_version(error: &DriverError) -> bool {
    let among_others = format!("code {API_VERSION_REQUIRED} ");
    let code = refusal(error).map(|(code, _)| code);
    code == Some(API_VERSION_REQUIRED)
        || matches!(&*error.kind, DriverKind::ServerSelection { message, .. }
            if message.contains(&among_others))
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
    use crate::store::codes::refused_command as refused;

    fn answered(address: &str, me: &str) -> (String, Server) {
        let last = Some(Check::Answered(doc! { "setName": "rs0", "me": me }));
        let server = Server {
            last,
            ..Server::default()
        };
        (address.to_owned(), server)
    }

    #[test]
    fn a_code_is_not_looked_for_in_a_text() {
        assert!(wants_api_version(&refused(498_870, "no")));
        assert!(!wants_api_version(&refused(
            11,
            "the user 498870 is unknown"
        )));
        assert!(!wants_api_version(&DriverError::custom("498870")));
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
