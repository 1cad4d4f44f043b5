//! A replica set of three, for tests of failovers.

mod containers;
mod networks;
mod options;
mod processes;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::sync::Arc;

use tokio::sync::Mutex;

pub use self::options::{CutFrom, ReplicaSetOptions};

use self::containers::Containers;
use self::options::Action;
use self::processes::Processes;
use self::view::View;
use crate::error::{MemberError, StartError, StepError, StopError};
use crate::options::plain_uri;
use crate::source::Source;
use crate::ways::docker_or_process;
use crate::{dedicated_runtime, replica_set};

/// One of the three members of a [`MongoReplicaSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member(usize);

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {}", self.0)
    }
}

/// A replica set of three servers for tests of failovers. You can kill, stop and restart its
/// members, cut them off and heal them, freeze and thaw them. Their data survive a restart.
///
/// With Docker, each member is a container with a network of its own. Without, the members are
/// processes on ports of the loopback, which cannot be cut off.
///
/// Dropping it removes everything and blocks the thread for about a second;
/// [`shut_down`](Self::shut_down) does not block. If the process ends without a drop, everything
/// is removed, too.
#[derive(Debug)]
pub struct MongoReplicaSet {
    source: Source,
    addresses: Vec<String>,
    /// `None` once they are being removed. A tokio mutex: it is held while an action runs.
    servers: Arc<Mutex<Option<Servers>>>,
}

#[derive(Debug)]
enum Servers {
    Containers(Box<Containers>),
    Processes(Processes),
}

impl MongoReplicaSet {
    /// Starts three servers, as containers or as `mongod` processes, and waits for a primary
    /// and two secondaries.
    ///
    /// Works on every tokio runtime, also with a paused clock.
    ///
    /// # Errors
    /// If the servers could not be started. Nothing is left behind.
    pub async fn start(options: ReplicaSetOptions) -> Result<Self, StartError> {
        dedicated_runtime::run(async move || {
            let containers = async {
                let set = containers::start(&options).await?;
                Ok(Servers::Containers(Box::new(set)))
            };
            let processes = async { processes::start(&options).await.map(Servers::Processes) };
            let named = "not used for a replica set of three";
            let servers = docker_or_process(named, containers, processes).await?;
            Ok(Self::new(servers))
        })
        .await
    }

    /// The URI: `mongodb://<address>,<address>,<address>/?replicaSet=rs0`.
    #[must_use]
    pub fn uri(&self) -> String {
        let addresses = self.addresses.join(",");
        format!("mongodb://{addresses}/?replicaSet={}", replica_set::NAME)
    }

    /// The three members.
    #[must_use]
    pub fn members(&self) -> [Member; 3] {
        [0, 1, 2].map(Member)
    }

    /// The URI of one member, whatever its state.
    #[must_use]
    pub fn member_uri(&self, member: Member) -> String {
        plain_uri(&self.addresses[member.0])
    }

    /// Where the members come from. Of containers, the first one's.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Waits until two members, one of them the primary itself, name the same primary. So a
    /// primary that is cut off from the others does not count.
    ///
    /// # Errors
    /// The members name no primary for two minutes.
    pub async fn primary(&self) -> Result<Member, MemberError> {
        self.await_view("no primary", View::primary).await
    }

    /// Waits until both other members follow the primary, and each member hears from each.
    /// Returns the primary.
    ///
    /// # Errors
    /// If that is not so for two minutes, because a member is down.
    pub async fn settled(&self) -> Result<Member, MemberError> {
        self.await_view(view::NOT_SETTLED, View::settled).await
    }

    /// Ends a member with SIGKILL.
    ///
    /// # Errors
    /// If the member does not run.
    pub async fn kill(&self, member: Member) -> Result<(), MemberError> {
        self.apply(Action::Kill, member).await
    }

    /// Ends a member with SIGTERM and waits until it has ended. A primary steps down first. Thaw
    /// a frozen member before.
    ///
    /// # Errors
    /// If the member does not end cleanly within half a minute.
    pub async fn stop(&self, member: Member) -> Result<(), MemberError> {
        self.apply(Action::Stop, member).await
    }

    /// Starts a member that was killed or stopped, with its data. It may not answer yet.
    ///
    /// # Errors
    /// If it could not be started.
    pub async fn start_again(&self, member: Member) -> Result<(), MemberError> {
        self.apply(Action::Start, member).await
    }

    /// Cuts a member off. Connections stay open, and what is sent on them is lost.
    ///
    /// # Errors
    /// [`NeedsContainers`](MemberError::NeedsContainers) if the member is a process, or if a
    /// network could not be changed.
    pub async fn cut(&self, member: Member, from: CutFrom) -> Result<(), MemberError> {
        self.apply(Action::Cut(from), member).await
    }

    /// Ends every [cut](Self::cut) of a member.
    ///
    /// # Errors
    /// As for [`cut`](Self::cut).
    pub async fn heal(&self, member: Member) -> Result<(), MemberError> {
        self.apply(Action::Heal, member).await
    }

    /// Freezes a member. The kernel still accepts what is sent to it.
    ///
    /// # Errors
    /// If the member does not run.
    pub async fn freeze(&self, member: Member) -> Result<(), MemberError> {
        self.apply(Action::Freeze, member).await
    }

    /// Lets a frozen member continue where it was.
    ///
    /// # Errors
    /// If the member is not frozen.
    pub async fn thaw(&self, member: Member) -> Result<(), MemberError> {
        self.apply(Action::Thaw, member).await
    }

    /// Removes the servers and their networks, and returns when they are gone.
    ///
    /// # Errors
    /// If something could not be removed.
    pub async fn shut_down(self) -> Result<(), StopError> {
        dedicated_runtime::run(self.removal())
            .await
            .map_err(StopError)
    }

    fn new(servers: Servers) -> Self {
        let (source, addresses) = match &servers {
            Servers::Containers(set) => (set.source(), set.addresses()),
            Servers::Processes(set) => (set.source(), set.addresses()),
        };
        source.announce();
        Self {
            source,
            addresses,
            servers: Arc::new(Mutex::new(Some(servers))),
        }
    }

    async fn apply(&self, action: Action, member: Member) -> Result<(), MemberError> {
        let servers = Arc::clone(&self.servers);
        dedicated_runtime::run(async move || {
            let mut servers = servers.lock().await;
            match servers.as_mut().expect("only the drop takes them") {
                Servers::Containers(set) => Ok(set.apply(action, member.0).await?),
                Servers::Processes(set) => set.apply(action, member.0),
            }
        })
        .await
    }

    fn removal(&self) -> impl AsyncFnOnce() -> Result<(), StepError> + Send + 'static {
        let servers = Arc::clone(&self.servers);
        async move || match servers.lock().await.take() {
            None => Ok(()),
            Some(Servers::Containers(set)) => set.remove().await,
            Some(Servers::Processes(set)) => set.remove(),
        }
    }

    async fn await_view(
        &self,
        otherwise: &'static str,
        look: fn(&View) -> Option<usize>,
    ) -> Result<Member, MemberError> {
        let addresses = self.addresses.clone();
        let seen = async move || view::await_view(&addresses, otherwise, look).await;
        Ok(Member(dedicated_runtime::run(seen).await?))
    }
}

impl Drop for MongoReplicaSet {
    fn drop(&mut self) {
        if let Err(failure) = dedicated_runtime::block(self.removal()) {
            // A panic would abort a test that fails already.
            eprintln!("MongoDB for tests: {failure}");
        }
    }
}
