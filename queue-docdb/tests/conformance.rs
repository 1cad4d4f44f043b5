//! The conformance suite on a real MongoDB.

use std::{
    env, fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mongodb::{
    Client,
    bson::{Document, doc},
    event::{EventHandler, command::CommandEvent},
};
use mongodb_test_server::{
    MongoServer, ScratchDatabase,
    documentdb::{Engine, Engines, Gate},
};
use queue_api::async_trait;
use queue_conformance::{
    Capability, Connection, Fault, Faults, Harness, HarnessError, Store, TestTime,
};
use queue_docdb::DocDbBackend;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// More than the default: the suite's tests run side by side, perhaps on a busy machine.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct DocDb {
    /// The builder's `entry_size`.
    pub(crate) entry_size: usize,
    pub(crate) histories: u32,
}

impl DocDb {
    /// The builder's defaults.
    pub(crate) const DEFAULT: Self = Self {
        entry_size: 16,
        histories: 100,
    };
}

struct Database {
    server: &'static MongoServer,
    database: ScratchDatabase,
    time: TestTime,
    entry_size: usize,
    has_fail_points: bool,
    /// Judges every command. A check fails if an engine refuses one of its commands.
    gate: Gate,
}

#[async_trait]
impl Harness for DocDb {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        // A server of the user's may lack them: they need `enableTestCommands`.
        static HAS_FAIL_POINTS: OnceCell<bool> = OnceCell::const_new();
        let server = MongoServer::shared().await?;
        let probe = async || {
            let answer = FailPoint::new(server.uri(), "").clear().await;
            if let Err(why) = &answer {
                eprintln!("this MongoDB has no fail points, so no faults are injected: {why}");
            }
            answer.is_ok()
        };
        Ok(Arc::new(Database {
            has_fail_points: *HAS_FAIL_POINTS.get_or_init(probe).await,
            server,
            database: server.scratch_database(),
            gate: Gate::new(engines(&time, self.entry_size)),
            entry_size: self.entry_size,
            time,
        }))
    }

    fn histories(&self) -> u32 {
        self.histories
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[
            Capability::Admin,
            Capability::Processes,
            Capability::ServerTime,
        ]
    }

    async fn attach(&self, address: &str) -> Result<Connection, HarnessError> {
        let (database, uri) = address
            .split_once(' ')
            .ok_or("an address is a database and a URI")?;
        // This process will be killed, so it leaves a note for its parent.
        let note = refusals(database);
        let gate = Gate::new(engines(&TestTime::Real, self.entry_size));
        let events = gate.watch_and_report(move |refused| {
            fs::write(&note, refused.to_string()).expect("a writable folder");
        });
        connect(uri, database, &TestTime::Real, self.entry_size, events).await
    }
}

#[async_trait]
impl Store for Database {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        let events = self.gate.watch();
        let (uri, database) = (self.server.uri(), self.database.name());
        connect(uri, database, &self.time, self.entry_size, events).await
    }

    fn faults(&self) -> Option<Arc<dyn Faults>> {
        self.has_fail_points.then(|| -> Arc<dyn Faults> {
            Arc::new(FailPoint::new(self.server.uri(), self.database.name()))
        })
    }

    fn address(&self) -> String {
        format!("{} {}", self.database.name(), self.server.uri())
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        self.server.drop_database(self.database.name()).await?;
        let note = refusals(self.database.name());
        if let Ok(refused) = fs::read_to_string(&note) {
            fs::remove_file(&note)?;
            return Err(refused.into());
        }
        Ok(self.gate.verify()?)
    }
}

/// mongod's `failCommand`, for the connections with this store's application name. A server has
/// only one, so stores use it one after another.
struct FailPoint {
    uri: &'static str,
    app_name: String,
    in_use: Mutex<Option<MutexGuard<'static, ()>>>,
    met: AtomicU64,
}

static IN_USE: Mutex<()> = Mutex::const_new(());

#[async_trait]
impl Faults for FailPoint {
    async fn inject(&self, fault: Fault) -> Result<(), HarnessError> {
        let mut data = doc! {
            "failCommands": ["find", "insert", "update", "delete"],
            "appName": &self.app_name,
        };
        match fault {
            // A write conflict, which is transient.
            Fault::ErrorBefore => data.insert("errorCode", 112),
            Fault::ErrorAfter => data.insert(
                "writeConcernError",
                doc! { "code": 64, "errmsg": "timed out" },
            ),
            Fault::Disconnect => data.insert("closeConnection", true),
        };
        let mut in_use = self.in_use.lock().await;
        if in_use.is_none() {
            *in_use = Some(IN_USE.lock().await);
        }
        self.set(doc! { "mode": { "times": 1 }, "data": data })
            .await
    }

    fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    async fn clear(&self) -> Result<(), HarnessError> {
        let mut in_use = self.in_use.lock().await;
        self.set(doc! { "mode": "off" }).await?;
        *in_use = None;
        Ok(())
    }
}

impl FailPoint {
    fn new(uri: &'static str, app_name: &str) -> Self {
        Self {
            uri,
            app_name: app_name.to_owned(),
            in_use: Mutex::new(None),
            met: AtomicU64::new(0),
        }
    }

    async fn set(&self, how: Document) -> Result<(), HarnessError> {
        let client = Client::with_uri_str(self.uri).await?;
        let mut command = doc! { "configureFailPoint": "failCommand" };
        command.extend(how);
        let reply = client.database("admin").run_command(command).await?;
        // Of all commands since the server started.
        let count = reply
            .get_i64("count")
            .or_else(|_| reply.get_i32("count").map(i64::from))?;
        self.met.store(u64::try_from(count)?, Ordering::Relaxed);
        Ok(())
    }
}

/// The engines that must accept every command. Elastic clusters have no change streams, which waits
/// use in real time, and no unique index.
fn engines(time: &TestTime, entry_size: usize) -> Engines {
    match time {
        TestTime::Manual(_) if entry_size == 1 => Engines::ALL,
        _ => Engines::of(&[Engine::V3_6, Engine::V4_0, Engine::V5_0, Engine::V8_0]),
    }
}

async fn connect(
    uri: &str,
    database: &str,
    time: &TestTime,
    entry_size: usize,
    events: EventHandler<CommandEvent>,
) -> Result<Connection, HarnessError> {
    let uri = with_app_name(uri, database);
    let builder = DocDbBackend::builder(uri)
        .database(database)
        .entry_size(entry_size)
        .operation_timeout(OPERATION_TIMEOUT)
        .command_event_handler(events);
    let builder = time.give_to(builder, |builder, clock| {
        builder.clock(clock).without_change_stream()
    });
    Ok(Connection::new(builder.connect().await?))
}

/// The URI with an application name, by which the fail point finds a store's connections.
fn with_app_name(uri: &str, name: &str) -> String {
    let hosts = uri.find("://").map_or(0, |scheme| scheme + 3);
    let separator = match (uri.contains('?'), uri[hosts..].contains('/')) {
        (true, _) => "&",
        (false, true) => "?",
        (false, false) => "/?",
    };
    format!("{uri}{separator}appName={name}")
}

/// The file in which a process notes what the gate refused.
fn refusals(database: &str) -> PathBuf {
    env::temp_dir().join(format!("{database}.refused"))
}

fn main() -> ExitCode {
    queue_conformance::run(DocDb::DEFAULT)
}
