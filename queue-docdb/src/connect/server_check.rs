//! Mistakes in the configuration, found by what the driver's checks of the servers say while it
//! connects.
//!
//! The driver retries after every failed check. This module reports only what an outage cannot
//! cause.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
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
    tls_check,
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
#[derive(Default)]
pub(crate) struct Checks {
    /// By address. The driver reports each server at once.
    servers: Mutex<BTreeMap<String, Server>>,
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

/// A server's answer to `hello`, or why there is none.
type Check = Result<Document, DriverError>;

#[derive(Clone, Default)]
struct Server {
    /// Whether the driver has given it up, because it does not fit the settings.
    is_closed: bool,
    last: Option<Check>,
    has_answered: bool,
    /// When the kind of the checks last changed: failed, answered, or not initiated.
    since: Option<Instant>,
    mistake: Option<Mistake>,
    probed: Option<Probed>,
}

/// What was found out about a server whose check failed.
#[derive(Clone)]
struct Probed {
    /// The failure, in words.
    failure: String,
    mistake: Option<String>,
    at: Instant,
}

impl Server {
    fn note(&mut self, check: Check) {
        // A cancelled check of a closed server says nothing.
        if self.is_closed {
            return;
        }
        let kind = |check: &Check| check.as_ref().ok().map(is_uninitiated);
        if self.last.as_ref().map(kind) != Some(kind(&check)) {
            self.since = Some(Instant::now());
        }
        self.has_answered |= check.is_ok();
        self.last = Some(check);
    }

    /// Looks at the server if it fails in another way than before. One without a mistake is looked at
    /// again later, because it may have been starting.
    async fn probe(&mut self, address: &str, options: &ClientOptions, within: Duration) {
        let Some(Err(error)) = &self.last else {
            return;
        };
        let failure = words(error);
        let is_known = self.probed.as_ref().is_some_and(|probed| {
            let is_recent = probed.at.elapsed() < tls_check::PROBE;
            probed.failure == failure && (probed.mistake.is_some() || is_recent)
        });
        if !is_known {
            let mistake = tls_check::find(error, address, options, within).await;
            let at = Instant::now();
            self.probed = Some(Probed {
                failure,
                mistake,
                at,
            });
        }
    }

    /// From when on a mistake counts that a server may also make while it starts.
    fn counts_from(&self, options: &ClientOptions) -> Instant {
        let selection = options.server_selection_timeout.unwrap_or(STARTING);
        self.since.unwrap_or_else(Instant::now) + STARTING.min(selection / 2)
    }

    /// Whether an outage may be why the client did not connect, if this server has no mistake.
    fn may_be_down(&self) -> bool {
        match &self.last {
            // A primary that is well would have answered. Without a primary there is an election.
            Some(Ok(reply)) => is_writable(reply) || !reply.contains_key("primary"),
            Some(Err(_)) | None => true,
        }
    }

    fn state(&self, address: &str) -> String {
        match &self.last {
            None => format!("{address}: did not answer"),
            Some(Err(error)) => format!("{address}: {}", words(error)),
            Some(Ok(reply)) if is_writable(reply) => format!("{address}: answered"),
            Some(Ok(_)) => format!("{address}: is not the primary"),
        }
    }
}

impl Checks {
    /// For the driver's options.
    pub(crate) fn handler(self: &Arc<Self>) -> EventHandler<SdamEvent> {
        let checks = Arc::downgrade(self);
        EventHandler::callback(move |event| {
            // Gone once the client is connected.
            if let Some(checks) = checks.upgrade() {
                checks.note(event);
            }
        })
    }

    /// Returns once the settings are certainly wrong for every server, with the mistakes.
    pub(crate) async fn mistakes(
        &self,
        options: &ClientOptions,
        deadline: Deadline,
    ) -> Vec<Mistake> {
        let mut before = Vec::new();
        loop {
            let changed = self.changed.notified();
            let mut servers = lock(&self.servers).clone();
            let within = tls_check::probe_time(deadline.left());
            let all = servers.iter_mut();
            let probing = all.map(|(address, server)| server.probe(address, options, within));
            // All at the same time.
            join_all(probing).await;
            let (mut is_undecided, mut look_at) = (false, None);
            for (address, server) in &servers {
                let found = finding(address, server, &servers, options, within).await;
                let (mistake, from) = found.unzip();
                let counts = from.is_some_and(|from| from <= Instant::now());
                if !counts {
                    is_undecided |= from.is_some() || !server.is_closed;
                    look_at = look_at.into_iter().chain(from).min();
                }
                let (mistake, probed) = (mistake.filter(|_| counts), server.probed.clone());
                self.change(address, |server| {
                    server.mistake = mistake;
                    server.probed = probed;
                });
            }
            let found = self.diagnosis().mistakes;
            if !is_undecided && !found.is_empty() {
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
        for (address, server) in lock(&self.servers).iter() {
            match &server.mistake {
                Some(mistake) => diagnosis.mistakes.push(mistake.clone()),
                None if server.is_closed => {}
                None => {
                    diagnosis.states.push(server.state(address));
                    diagnosis.is_outage |= server.may_be_down();
                }
            }
        }
        diagnosis
            .mistakes
            .dedup_by(|one, other| one.text == other.text);
        diagnosis
    }

    fn note(&self, event: SdamEvent) {
        match event {
            SdamEvent::ServerOpening(event) => {
                self.change(&event.address, |server| server.is_closed = false);
            }
            SdamEvent::ServerClosed(event) => {
                self.change(&event.address, |server| server.is_closed = true);
            }
            SdamEvent::ServerHeartbeatSucceeded(event) => {
                self.change(&event.server_address, |server| server.note(Ok(event.reply)));
            }
            SdamEvent::ServerHeartbeatFailed(event) => {
                self.change(&event.server_address, |server| {
                    server.note(Err(event.failure))
                });
            }
            _ => return,
        }
        self.changed.notify_waiters();
    }

    fn change(&self, address: &impl ToString, change: impl FnOnce(&mut Server)) {
        change(lock(&self.servers).entry(address.to_string()).or_default());
    }
}

/// The mistake that the last check of a server shows, and from when on it counts.
async fn finding(
    address: &str,
    server: &Server,
    all: &BTreeMap<String, Server>,
    options: &ClientOptions,
    within: Duration,
) -> Option<(Mistake, Instant)> {
    let now = Instant::now();
    let (text, cause, from) = match server.last.as_ref()? {
        Ok(reply) => match judge(reply, address, Some(options)) {
            Verdict::Writable | Verdict::NotThePrimary => return None,
            Verdict::Mistake(text) => (text, None, now),
            Verdict::Secondary(text) => {
                let primary = reply.get_str("primary").ok()?;
                // A cluster endpoint leads to the former writer for a while.
                if amazon::is_cluster_endpoint(address)
                    || !tls_check::is_there(primary, options, within).await
                {
                    return None;
                }
                (text, None, now)
            }
            Verdict::Uninitiated(text) => (text, None, server.counts_from(options)),
        },
        Err(error) => {
            // What has been reached under its name is down now.
            let (text, from) = if !server.has_answered
                && let Some(text) = unreachable_name(address, error, all)
            {
                (text, server.counts_from(options))
            } else if wants_api_version(error) {
                (format!("{address}: {API_VERSION}"), now)
            } else {
                (server.probed.as_ref()?.mistake.clone()?, now)
            };
            (text, Some(error.clone()), from)
        }
    };
    Some((Mistake { text, cause }, from))
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
    all: &BTreeMap<String, Server>,
) -> Option<String> {
    let DriverKind::Io(cause) = &*error.kind else {
        return None;
    };
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    if matches!(cause.kind(), InvalidData | UnexpectedEof) {
        return None;
    }
    let (seed, _) = all.iter().find(|(other, server)| {
        let says_so = |reply: &Document| reply.get_str("me") == Ok(address);
        other.as_str() != address && matches!(&server.last, Some(Ok(reply)) if says_so(reply))
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

    fn answered(address: &str, me: &str) -> BTreeMap<String, Server> {
        let server = Server {
            last: Some(Ok(doc! { "setName": "rs0", "me": me })),
            ..Server::default()
        };
        BTreeMap::from([(address.to_owned(), server)])
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
        let all = answered("localhost:27017", "mongo1:27017");
        let refused = DriverError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        let mistake = unreachable_name("mongo1:27017", &refused, &all).expect("a mistake");
        assert!(
            mistake.contains("localhost:27017 calls itself mongo1:27017"),
            "{mistake}"
        );
        assert!(mistake.contains("connection refused"), "{mistake}");

        let other = unreachable_name("mongo2:27017", &refused, &all);
        assert_eq!(other, None, "it may be down");
        let all = answered("mongo1:27017", "mongo1:27017");
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
        assert!(may_be_down(Some(Ok(primary))), "it hangs");
        assert!(!may_be_down(Some(Ok(secondary))));
        assert!(may_be_down(Some(Ok(election))));
        let refused = DriverError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert!(may_be_down(Some(Err(refused))));
        assert!(may_be_down(None));
    }
}
