//! The contract, on a real MongoDB.

use std::{process::ExitCode, sync::Arc};

use mongodb::{
    Client,
    bson::{Document, doc},
};
use mongodb_test_server::{MongoServer, ScratchDatabase};
use queue_api::async_trait;
use queue_conformance::{Claim, Connection, Fault, Faults, Harness, HarnessError, Store, TestTime};
use queue_docdb::DocDbBackend;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

struct DocDb;

struct Database {
    server: &'static MongoServer,
    database: ScratchDatabase,
    time: TestTime,
    has_fail_points: bool,
}

#[async_trait]
impl Harness for DocDb {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        // A server of somebody else's may lack them (`enableTestCommands`); ours have them.
        static HAS_FAIL_POINTS: OnceCell<bool> = OnceCell::const_new();
        let server = MongoServer::shared().await?;
        let probe = async || {
            let answer = FailPoint::new(server.uri(), "").heal().await;
            if let Err(why) = &answer {
                eprintln!("this MongoDB has no fail points, so none are used: {why}");
            }
            answer.is_ok()
        };
        Ok(Arc::new(Database {
            has_fail_points: *HAS_FAIL_POINTS.get_or_init(probe).await,
            server,
            database: server.scratch_database(),
            time,
        }))
    }

    fn histories(&self) -> u32 {
        100
    }

    fn claims(&self) -> &'static [Claim] {
        &[Claim::Admin, Claim::Processes, Claim::ServerTime]
    }

    async fn attach(&self, address: &str) -> Result<Connection, HarnessError> {
        let (database, uri) = address
            .split_once(' ')
            .ok_or("an address is a database and a URI")?;
        connect(uri, database, &TestTime::Real).await
    }
}

#[async_trait]
impl Store for Database {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        connect(self.server.uri(), self.database.name(), &self.time).await
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
        Ok(self.server.drop_database(self.database.name()).await?)
    }
}

/// mongod's `failCommand`. It strikes only connections of this store's application name; but it is
/// one for the whole server, so stores take turns.
struct FailPoint {
    uri: &'static str,
    app_name: String,
    turn: Mutex<Option<MutexGuard<'static, ()>>>,
}

static TURN: Mutex<()> = Mutex::const_new(());

#[async_trait]
impl Faults for FailPoint {
    async fn inject(&self, fault: Fault) -> Result<(), HarnessError> {
        let mut data = doc! {
            "failCommands": ["find", "insert", "update", "delete"],
            "appName": &self.app_name,
        };
        match fault {
            // A write conflict, which passes.
            Fault::ErrorBefore => data.insert("errorCode", 112),
            Fault::ErrorAfter => data.insert(
                "writeConcernError",
                doc! { "code": 64, "errmsg": "timed out" },
            ),
            Fault::Disconnect => data.insert("closeConnection", true),
        };
        let mut turn = self.turn.lock().await;
        if turn.is_none() {
            *turn = Some(TURN.lock().await);
        }
        self.set(doc! { "mode": { "times": 1 }, "data": data })
            .await
    }

    async fn heal(&self) -> Result<(), HarnessError> {
        let mut turn = self.turn.lock().await;
        self.set(doc! { "mode": "off" }).await?;
        *turn = None;
        Ok(())
    }
}

impl FailPoint {
    fn new(uri: &'static str, app_name: &str) -> Self {
        Self {
            uri,
            app_name: app_name.to_owned(),
            turn: Mutex::new(None),
        }
    }

    async fn set(&self, how: Document) -> Result<(), HarnessError> {
        let client = Client::with_uri_str(self.uri).await?;
        let mut command = doc! { "configureFailPoint": "failCommand" };
        command.extend(how);
        client.database("admin").run_command(command).await?;
        Ok(())
    }
}

async fn connect(uri: &str, database: &str, time: &TestTime) -> Result<Connection, HarnessError> {
    let uri = with_app_name(uri, database);
    let builder = DocDbBackend::builder(uri).database(database);
    let builder = time.give_to(builder, |builder, clock| builder.clock(clock));
    Ok(Connection::new(builder.connect().await?))
}

/// The URI with a name for its connections, by which the fail point knows those of a store.
fn with_app_name(uri: &str, name: &str) -> String {
    let hosts = uri.find("://").map_or(0, |scheme| scheme + 3);
    let joint = match (uri.contains('?'), uri[hosts..].contains('/')) {
        (true, _) => "&",
        (false, true) => "?",
        (false, false) => "/?",
    };
    format!("{uri}{joint}appName={name}")
}

fn main() -> ExitCode {
    queue_conformance::run(DocDb)
}
