//! Failovers of a real replica set. Many cases meet one at the same time: an election takes seconds.

use std::{
    convert::Infallible,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc},
};
use mongodb_test_server::{Member, MongoReplicaSet, ReplicaSetOptions};
use tokio::{sync::watch, time::timeout};

use crate::proxy::pause;

/// How long the cases of a failover wait for each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the members are asked for what takes them a moment.
const OFTEN: Duration = Duration::from_millis(50);

/// How long writes that wait for a majority may take to get there.
const LONGEST_WRITE: Duration = Duration::from_secs(2);

/// The fail point that keeps a secondary from fetching more.
const NO_REPLICATION: &str = "stopReplProducer";

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What the replica set does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The primary steps down when a secondary has everything.
    StepDown,
    /// No secondary gets what the calls write, and one of them is elected.
    RollBack,
}

/// What the cases of a failover have come to.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    prepared: usize,
    held: usize,
    reached: usize,
    /// Writes that wait for a majority.
    writes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The cases fill their queues.
    Preparing,
    /// They make their calls, and each holds one of its messages.
    Calling,
    /// The secondaries do not get what the primary carries out.
    CutOff,
    /// The next primary takes writes.
    Over,
}

/// One failover.
pub(crate) struct Failover {
    kind: Kind,
    progress: watch::Sender<Progress>,
    stage: watch::Sender<Stage>,
}

/// The part of one case in a failover. If it is dropped, nobody waits for the case.
pub(crate) struct Seat {
    failover: Arc<Failover>,
    is_prepared: AtomicBool,
    has_held: AtomicBool,
    has_reached: AtomicBool,
}

impl Failover {
    pub(crate) fn new(kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            kind,
            progress: watch::Sender::default(),
            stage: watch::Sender::new(Stage::Preparing),
        })
    }

    pub(crate) fn seat(self: &Arc<Self>) -> Arc<Seat> {
        Arc::new(Seat {
            failover: self.clone(),
            is_prepared: AtomicBool::new(false),
            has_held: AtomicBool::new(false),
            has_reached: AtomicBool::new(false),
        })
    }

    async fn outlast(&self, stage: Stage) {
        let mut now = self.stage.subscribe();
        // The sender is this.
        let _ = now.wait_for(|now| *now >= stage).await;
    }

    async fn wait_for(&self, count: impl Fn(&Progress) -> usize, cases: usize) -> Outcome<()> {
        let mut progress = self.progress.subscribe();
        let waiting = progress.wait_for(|progress| count(progress) >= cases);
        let waited = timeout(PATIENCE, waiting).await;
        let progress = *self.progress.borrow();
        waited.map_err(|_| format!("{cases} cases have come to {progress:?}"))??;
        Ok(())
    }
}

impl Seat {
    /// The queue is filled. Returns when those of all cases are.
    pub(crate) async fn prepare(&self) {
        self.prepared();
        self.failover.outlast(Stage::Calling).await;
    }

    fn prepared(&self) {
        if !self.is_prepared.swap(true, Ordering::Relaxed) {
            self.failover.progress.send_modify(|it| it.prepared += 1);
        }
    }

    /// The case's message is held before it arrives. Returns when all cases hold theirs, and no secondary
    /// gets any more.
    pub(crate) async fn cut_off(&self) {
        self.hold();
        self.failover.outlast(Stage::CutOff).await;
    }

    fn hold(&self) {
        if !self.has_held.swap(true, Ordering::Relaxed) {
            self.failover.progress.send_modify(|it| it.held += 1);
        }
    }

    /// The case's message or its reply is held, or it is a write that is under way, or the call has
    /// ended.
    pub(crate) fn reach(&self, is_write: bool) {
        self.hold();
        if !self.has_reached.swap(true, Ordering::Relaxed) {
            self.failover.progress.send_modify(|it| {
                it.reached += 1;
                it.writes += usize::from(is_write);
            });
        }
    }

    /// Waits until the next primary takes writes.
    pub(crate) async fn outlast(&self) {
        self.reach(false);
        self.failover.outlast(Stage::Over).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.prepared();
        self.reach(false);
    }
}

/// A replica set whose primary changes.
pub(crate) struct Set {
    members: MongoReplicaSet,
    /// Its host and port.
    primary: watch::Sender<String>,
}

impl Set {
    pub(crate) async fn start() -> Outcome<Self> {
        let members = MongoReplicaSet::start(ReplicaSetOptions::new()).await?;
        let primary = members.settled().await?;
        let set = Self {
            primary: watch::Sender::new(address(&members, primary)),
            members,
        };
        let admin = set.admin(primary).await?;
        let config = admin.run_command(doc! { "replSetGetConfig": 1 }).await?;
        let mut config = config.get_document("config")?.clone();
        config.insert("version", config.get_i32("version")? + 1);
        // A new primary does not fetch first what it lacks.
        config
            .get_document_mut("settings")?
            .insert("catchUpTimeoutMillis", 0);
        admin
            .run_command(doc! { "replSetReconfig": config })
            .await?;
        for member in set.members.members() {
            // Transactions that are left open end soon.
            let short = doc! { "setParameter": 1, "transactionLifetimeLimitSeconds": 3 };
            set.admin(member).await?.run_command(short).await?;
        }
        Ok(set)
    }

    pub(crate) fn uri(&self) -> String {
        self.members.uri()
    }

    pub(crate) fn primary(&self) -> watch::Receiver<String> {
        self.primary.subscribe()
    }

    /// Lets so many cases prepare and call, and lets the primary fail meanwhile.
    ///
    /// # Errors
    /// The members do not do what they are told. The cases go on all the same.
    pub(crate) async fn fail_over(&self, failover: &Failover, cases: usize) -> Outcome<()> {
        let done = self.fail_over_once(failover, cases).await;
        failover.stage.send_replace(Stage::Over);
        done?;
        self.members.settled().await?;
        Ok(())
    }

    /// Once the failover is over, forwards to each primary. On a busy machine, there may be several elections.
    pub(crate) async fn follow_primary(&self, failover: &Failover) -> Infallible {
        failover.outlast(Stage::Over).await;
        loop {
            if let Ok(primary) = self.members.primary().await {
                self.forward_to(primary);
            }
            pause(OFTEN).await;
        }
    }

    /// Each change of the address ends the monitors' connections.
    fn forward_to(&self, primary: Member) {
        let next = address(&self.members, primary);
        self.primary.send_if_modified(|now| {
            let is_other = *now != next;
            *now = next;
            is_other
        });
    }

    async fn fail_over_once(&self, failover: &Failover, cases: usize) -> Outcome<()> {
        failover.wait_for(|it| it.prepared, cases).await?;
        let old = self.members.settled().await?;
        failover.stage.send_replace(Stage::Calling);
        if failover.kind == Kind::RollBack {
            failover.wait_for(|it| it.held, cases).await?;
            self.stop_replication(old).await?;
            failover.stage.send_replace(Stage::CutOff);
        }
        failover.wait_for(|it| it.reached, cases).await?;
        match failover.kind {
            Kind::StepDown => self.step_down(old).await?,
            Kind::RollBack => {
                let writes = failover.progress.borrow().writes;
                // Some of them may be refused.
                let _ = timeout(LONGEST_WRITE, self.await_writes(old, writes)).await;
                self.vote_out(old).await?;
            }
        }
        let elected = async {
            loop {
                let next = self.members.primary().await?;
                if next != old {
                    return Outcome::Ok(next);
                }
            }
        };
        let next = timeout(PATIENCE, elected).await;
        let next = next.map_err(|_| format!("{old:?} is still the primary"))??;
        // It may be elected again.
        let admin = self.admin(old).await?;
        admin.run_command(doc! { "replSetFreeze": 0 }).await?;
        self.forward_to(next);
        Ok(())
    }

    async fn step_down(&self, old: Member) -> Outcome<()> {
        let admin = self.admin(old).await?;
        let step_down = doc! { "replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 9 };
        admin.run_command(step_down).await?;
        Ok(())
    }

    async fn stop_replication(&self, primary: Member) -> Outcome<()> {
        for secondary in self.others(primary) {
            let admin = self.admin(secondary).await?;
            let on = admin.run_command(replication("alwaysOn")).await?;
            let entered = on.get("count").and_then(number).unwrap_or(0);
            let has_stopped = doc! {
                "waitForFailPoint": NO_REPLICATION,
                "timesEntered": entered + 1,
                "maxTimeMS": 30_000,
            };
            admin.run_command(has_stopped).await?;
        }
        Ok(())
    }

    /// Waits until so many writes of the primary wait for a majority.
    async fn await_writes(&self, primary: Member, writes: usize) -> Outcome<()> {
        let admin = self.admin(primary).await?;
        loop {
            let status = admin.run_command(doc! { "serverStatus": 1 }).await?;
            let metrics = status.get_document("metrics")?.get_document("repl")?;
            let waiting = metrics.get_document("waiters")?.get("replication");
            if waiting.and_then(number).unwrap_or(0) >= writes as i64 {
                return Ok(());
            }
            pause(OFTEN).await;
        }
    }

    /// Has one of the secondaries elected, without what only the old primary has.
    async fn vote_out(&self, old: Member) -> Outcome<()> {
        let [one, other] = self.others(old);
        let secondaries = [self.admin(one).await?, self.admin(other).await?];
        let elected = timeout(PATIENCE, elect_one(&secondaries)).await;
        // Not before, or they would fetch what the old primary has.
        for admin in &secondaries {
            admin.run_command(replication("off")).await?;
        }
        elected.map_err(|_| format!("{one} and {other} are not elected"))?;
        Ok(())
    }

    fn others(&self, primary: Member) -> [Member; 2] {
        let members = self.members.members();
        let others: Vec<Member> = members.into_iter().filter(|it| *it != primary).collect();
        [others[0], others[1]]
    }

    async fn admin(&self, member: Member) -> Outcome<Database> {
        let client = Client::with_uri_str(self.members.member_uri(member)).await?;
        Ok(client.database("admin"))
    }
}

/// Only the one that has more gets the other one's vote.
async fn elect_one(secondaries: &[Database; 2]) {
    for admin in secondaries.iter().cycle() {
        if admin.run_command(doc! { "replSetStepUp": 1 }).await.is_ok() {
            while !is_primary(admin).await {
                pause(OFTEN).await;
            }
            return;
        }
        pause(OFTEN).await;
    }
}

async fn is_primary(admin: &Database) -> bool {
    let hello = admin.run_command(doc! { "hello": 1 }).await;
    hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary") == Ok(true))
}

fn replication(mode: &str) -> Document {
    doc! { "configureFailPoint": NO_REPLICATION, "mode": mode }
}

fn number(value: &Bson) -> Option<i64> {
    value.as_i64().or(value.as_i32().map(i64::from))
}

fn address(members: &MongoReplicaSet, member: Member) -> String {
    let uri = members.member_uri(member);
    let host = uri.trim_start_matches("mongodb://").split('/').next();
    host.unwrap_or_default().to_owned()
}
