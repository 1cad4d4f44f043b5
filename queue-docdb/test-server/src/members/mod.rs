//! A replica set of three whose members can be made to fail.

mod containers;
mod networks;
mod options;
mod processes;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

pub use self::options::ReplicaSetOptions;

use self::containers::Containers;
use self::processes::Processes;
use self::view::View;
use crate::error::{Failure, FaultError, StartError, StopError};
use crate::options::{REPLICA_SET, plain_uri};
use crate::source::Source;
use crate::{apart, fetch, process, replica_set};

const MEMBERS: usize = 3;

/// From whatever state the members are in to a primary that the others follow.
const SETTLED: Duration = Duration::from_secs(120);

/// One of the three members of a [`MongoReplicaSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member(usize);

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {}", self.0)
    }
}

/// Whom a member is [cut off](MongoReplicaSet::cut) from. Both sides stay alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutFrom {
    /// The other members and all clients.
    Everybody,
    /// The other members: clients of this machine still reach it. A primary that is cut off
    /// so goes on answering for as long as the election timeout.
    Members,
}

/// A replica set of three servers for tests of failover: its members can be killed, stopped
/// and started again, cut off and healed, frozen and thawed. Their data are on disk and
/// outlive a restart.
///
/// Where Docker runs, each member is a container with a network of its own; else they are
/// processes on ports of the loopback, which cannot be cut off.
///
/// Dropping it takes everything down and waits until it is gone; so does the end of the
/// process, in whatever way, without the waiting. A drop blocks its thread for a second or
/// so; [`take_down`](Self::take_down) does not.
#[derive(Debug)]
pub struct MongoReplicaSet {
    source: Source,
    addresses: Vec<String>,
    /// Only `None` once the set is being taken down. A tokio mutex: faults are made one after
    /// another, and each takes a while.
    machinery: Arc<Mutex<Option<Machinery>>>,
}

#[derive(Debug)]
enum Machinery {
    Containers(Box<Containers>),
    Processes(Processes),
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Stop,
    Start,
    Freeze,
    Thaw,
    Cut(CutFrom),
    Heal,
}

impl MongoReplicaSet {
    /// Starts three servers, in containers or as processes of the `mongod` on the `PATH` or
    /// of a fetched one, and makes them a replica set with a primary and two secondaries.
    ///
    /// Works on any tokio runtime, also with a paused clock.
    ///
    /// # Errors
    /// When no servers could be started; what was started on the way is gone again.
    pub async fn start(options: ReplicaSetOptions) -> Result<Self, StartError> {
        apart::run(async move { find(&options).await.map(Self::new) }).await
    }

    /// How to connect: `mongodb://<address>,<address>,<address>/?replicaSet=rs0`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!(
            "mongodb://{}/?replicaSet={REPLICA_SET}",
            self.addresses.join(",")
        )
    }

    /// The three members.
    #[must_use]
    pub fn members(&self) -> [Member; MEMBERS] {
        [0, 1, 2].map(Member)
    }

    /// How to connect to one member, whatever its state.
    #[must_use]
    pub fn member_uri(&self, member: Member) -> String {
        plain_uri(&self.addresses[member.0])
    }

    /// Where the members come from; of containers, the first one's.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The member that is the primary in the eyes of at least two, itself included; waits for
    /// one. So a primary that was cut off from the others is none.
    ///
    /// # Errors
    /// When there is none for two minutes.
    pub async fn primary(&self) -> Result<Member, FaultError> {
        self.seen("a primary", View::primary).await
    }

    /// Waits until there is a primary that both others follow, and each member hears from each,
    /// and says which it is.
    ///
    /// # Errors
    /// When that is not so for two minutes: when a member is down, say.
    pub async fn settled(&self) -> Result<Member, FaultError> {
        self.seen("a primary and two secondaries", View::settled)
            .await
    }

    /// Ends a member with SIGKILL.
    ///
    /// # Errors
    /// When that does not work, as for a container that does not run.
    pub async fn kill(&self, member: Member) -> Result<(), FaultError> {
        self.apply(Fault::Kill, member).await
    }

    /// Ends a member cleanly, with SIGTERM, and returns when it has ended: a primary steps
    /// down first and writes out what it has. A frozen one has to be thawed for it.
    ///
    /// # Errors
    /// When it does not end within half a minute, and had to be killed.
    pub async fn stop(&self, member: Member) -> Result<(), FaultError> {
        self.apply(Fault::Stop, member).await
    }

    /// Starts a member again that was killed or stopped, with the data that it had. It may
    /// not answer yet.
    ///
    /// # Errors
    /// When it could not be started.
    pub async fn start_again(&self, member: Member) -> Result<(), FaultError> {
        self.apply(Fault::Start, member).await
    }

    /// Lets nothing pass between a member and others, without a word to either: connections
    /// stay open, and what is sent on them is lost.
    ///
    /// # Errors
    /// [`NeedsContainers`](FaultError::NeedsContainers), where the member is a process of
    /// this machine; or when a network could not be changed.
    pub async fn cut(&self, member: Member, from: CutFrom) -> Result<(), FaultError> {
        self.apply(Fault::Cut(from), member).await
    }

    /// Takes back whatever [`cut`](Self::cut) did to a member.
    ///
    /// # Errors
    /// As for [`cut`](Self::cut).
    pub async fn heal(&self, member: Member) -> Result<(), FaultError> {
        self.apply(Fault::Heal, member).await
    }

    /// Lets a member do nothing any more, though the kernel still takes what is sent to it.
    ///
    /// # Errors
    /// When that does not work, as for a container that does not run.
    pub async fn freeze(&self, member: Member) -> Result<(), FaultError> {
        self.apply(Fault::Freeze, member).await
    }

    /// Lets a frozen member go on, where it was.
    ///
    /// # Errors
    /// When that does not work, as for a container that is not frozen.
    pub async fn thaw(&self, member: Member) -> Result<(), FaultError> {
        self.apply(Fault::Thaw, member).await
    }

    /// Takes everything down and returns when it is gone: no process, no container, no
    /// network, no folder.
    ///
    /// # Errors
    /// When something could not be removed.
    pub async fn take_down(self) -> Result<(), StopError> {
        apart::run(shut_down(Arc::clone(&self.machinery)))
            .await
            .map_err(|failure| StopError { failure })
    }

    fn new(machinery: Machinery) -> Self {
        let (source, addresses) = match &machinery {
            Machinery::Containers(set) => (set.source.clone(), set.addresses()),
            Machinery::Processes(set) => (set.source.clone(), set.addresses()),
        };
        source.announce();
        Self {
            source,
            addresses,
            machinery: Arc::new(Mutex::new(Some(machinery))),
        }
    }

    async fn apply(&self, fault: Fault, member: Member) -> Result<(), FaultError> {
        let machinery = Arc::clone(&self.machinery);
        apart::run(async move {
            let mut machinery = machinery.lock().await;
            let machinery = machinery.as_mut().expect("is not being taken down");
            machinery.apply(fault, member.0).await
        })
        .await
    }

    async fn seen(
        &self,
        what: &'static str,
        look: fn(&View) -> Option<usize>,
    ) -> Result<Member, FaultError> {
        let addresses = self.addresses.clone();
        let seen = apart::run(async move { view::await_view(&addresses, what, look).await });
        Ok(Member(seen.await?))
    }
}

impl Drop for MongoReplicaSet {
    fn drop(&mut self) {
        if let Err(failure) = apart::block(shut_down(Arc::clone(&self.machinery))) {
            // A panic here would abort a test that is failing already.
            eprintln!("MongoDB for tests: {failure}");
        }
    }
}

async fn shut_down(machinery: Arc<Mutex<Option<Machinery>>>) -> Result<(), Failure> {
    match machinery.lock().await.take() {
        None => Ok(()),
        Some(Machinery::Containers(set)) => set.shut_down().await,
        Some(Machinery::Processes(set)) => set.shut_down(),
    }
}

impl Machinery {
    async fn apply(&mut self, fault: Fault, member: usize) -> Result<(), FaultError> {
        let set = match self {
            Self::Processes(set) => return set.apply(fault, member),
            Self::Containers(set) => set,
        };
        match fault {
            Fault::Kill => set.kill(member).await?,
            Fault::Stop => set.stop(member).await?,
            Fault::Start => set.start_again(member).await?,
            Fault::Freeze => set.freeze(member).await?,
            Fault::Thaw => set.thaw(member).await?,
            Fault::Cut(from) => set.cut(member, from).await?,
            Fault::Heal => set.heal(member).await?,
        }
        Ok(())
    }
}

impl Processes {
    fn apply(&self, fault: Fault, member: usize) -> Result<(), FaultError> {
        let (word, runs) = match fault {
            Fault::Kill => ("kill", false),
            Fault::Stop => ("stop", false),
            Fault::Start => ("start", true),
            Fault::Freeze => ("freeze", true),
            Fault::Thaw => ("thaw", true),
            Fault::Cut(_) | Fault::Heal => return Err(FaultError::NeedsContainers),
        };
        if self.tell(member, word)? == runs {
            return Ok(());
        }
        let state = if runs { "does not run" } else { "still runs" };
        Err(FaultError::Failed(format!(
            "member {member} {state} after it was told to {word}"
        )))
    }
}

/// Makes servers a replica set, and waits until it is complete.
async fn initiate(options: &ReplicaSetOptions, addresses: &[String]) -> Result<(), Failure> {
    let config = options.config(addresses);
    let first = plain_uri(&addresses[0]);
    replica_set::initiate_as(&first, config).await?;
    view::await_view(addresses, "a primary and two secondaries", View::settled).await?;
    Ok(())
}

async fn find(options: &ReplicaSetOptions) -> Result<Machinery, StartError> {
    let docker = match containers::start(options).await {
        Ok(set) => return Ok(Machinery::Containers(Box::new(set))),
        Err(failure) => failure,
    };
    let path = match on_path(options).await {
        Ok(set) => return Ok(Machinery::Processes(set)),
        Err(failure) => failure,
    };
    let fetched = match fetched(options).await {
        Ok(set) => return Ok(Machinery::Processes(set)),
        Err(failure) => failure,
    };
    let no_environment = "not for a replica set of three";
    Err(StartError::all(no_environment, &docker, &path, &fetched))
}

async fn on_path(options: &ReplicaSetOptions) -> Result<Processes, Failure> {
    let program = process::on_path()?;
    processes::start(Source::OnPath { program }, options).await
}

async fn fetched(options: &ReplicaSetOptions) -> Result<Processes, Failure> {
    let program = fetch::mongod().await?;
    processes::start(Source::Fetched { program }, options).await
}
