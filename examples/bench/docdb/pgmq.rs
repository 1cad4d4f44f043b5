//! What the queue is compared with on PostgreSQL: pgmq, a queue in SQL functions.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use tokio_postgres::{Client, NoTls, Statement};

use super::{
    Scale,
    backlog::{ensure_enough, in_batches, payload},
    batches::BATCH,
};
use crate::{
    report::{Report, Row, Target},
    window::{Window, work},
};

/// Which of the two is faster depends on the store and on the cores.
const CALLERS: [usize; 2] = [1, 4];

/// In seconds. Longer than a round.
const VISIBILITY_TIMEOUT: i32 = 60;

#[derive(Clone)]
pub(super) struct Pgmq {
    url: String,
    /// For what is not measured.
    client: Arc<Client>,
    /// A name of its own, so that no queue of the server's owner is touched.
    queue: String,
    /// A connection runs one statement at a time, so each caller has its own.
    idle: Arc<Mutex<Vec<Connection>>>,
}

struct Connection {
    client: Client,
    read: Statement,
    delete: Statement,
}

impl Pgmq {
    /// Fails if the server has no pgmq.
    pub(super) async fn new(url: &str) -> Result<Self> {
        let client = connect(url).await?;
        let installed = client.query("SELECT FROM pgmq.meta", &[]).await;
        installed.context(
            "the database of --postgres has no pgmq; install the extension and run CREATE EXTENSION \
             pgmq, or run pgmq-extension/sql/pgmq.sql of https://github.com/pgmq/pgmq with psql",
        )?;
        Ok(Self {
            url: url.to_owned(),
            client: Arc::new(client),
            queue: format!("bench_{:016x}", fastrand::u64(..)),
            idle: Arc::default(),
        })
    }

    /// Measures the better number of callers of pgmq and of the queue in turn.
    pub(super) async fn compare(
        &self,
        report: &mut Report,
        scale: &Scale,
        of_queue: impl AsyncFn(usize) -> Result<f64>,
    ) -> Result<()> {
        let run = async |statement| self.client.execute(statement, &[&self.queue]).await;
        run("SELECT pgmq.create($1)").await?;
        let compared = async {
            self.fill(scale.backlog).await?;
            let of_pgmq = async |callers| self.drain(scale, callers).await;
            let baseline = async || better(of_pgmq).await;
            let measured = async || better(&of_queue).await;
            let name = format!("batches of {BATCH}, better of 1 and 4 callers: lease + ack");
            let row = Row::new(name, "messages/s", Target::AtLeast(1.5));
            let name = "pgmq on PostgreSQL";
            report.compare(row, name, baseline, measured).await
        };
        let compared = compared.await;
        run("SELECT pgmq.drop_queue($1)").await?;
        compared
    }

    async fn fill(&self, messages: u64) -> Result<()> {
        let send = "SELECT pgmq.send_batch($1::text, $2::text[]::jsonb[])";
        let send = self.client.prepare(send).await?;
        let store = async |batch| {
            let batch: Vec<_> = (0..batch).map(|_| payload()).collect();
            self.client.execute(&send, &[&self.queue, &batch]).await?;
            Ok(())
        };
        in_batches(messages, store).await?;
        // Autovacuum would do this at some time, in the middle of a round or not.
        let vacuum = format!("VACUUM (ANALYZE) pgmq.q_{}", self.queue);
        Ok(self.client.batch_execute(&vacuum).await?)
    }

    /// Messages per second that `callers` callers lease and ack.
    async fn drain(&self, scale: &Scale, callers: usize) -> Result<f64> {
        let window = Window::after_warm_up(scale.counted);
        let work = work(window, callers, self, Self::lease_and_ack).await?;
        ensure_enough(work.total, scale.backlog)?;
        self.fill(work.total).await?;
        Ok(work.rate)
    }

    async fn lease_and_ack(self) -> Result<u64> {
        let connection = self.connection().await?;
        let Connection {
            client,
            read,
            delete,
        } = &connection;
        let leased = client
            .query(read, &[&self.queue, &VISIBILITY_TIMEOUT, &(BATCH as i32)])
            .await?;
        let mut ids: Vec<i64> = Vec::new();
        for row in &leased {
            let payload: &str = row.get("payload");
            ensure!(payload.len() == 256, "a payload is missing");
            ids.push(row.get("msg_id"));
        }
        let acked = client.query(delete, &[&self.queue, &ids]).await?.len();
        let leased = ids.len();
        ensure!(acked == leased, "{acked} of {leased} messages acked");
        self.idle.lock().expect("not poisoned").push(connection);
        Ok(acked as u64)
    }

    async fn connection(&self) -> Result<Connection> {
        let idle = self.idle.lock().expect("not poisoned").pop();
        if let Some(connection) = idle {
            return Ok(connection);
        }
        let client = connect(&self.url).await?;
        let read = "SELECT msg_id, message::text AS payload FROM pgmq.read($1::text, $2, $3)";
        let delete = "SELECT pgmq.delete($1::text, $2::bigint[])";
        Ok(Connection {
            read: client.prepare(read).await?,
            delete: client.prepare(delete).await?,
            client,
        })
    }
}

/// The URL is not in the error, since it may have a password.
async fn connect(url: &str) -> Result<Client> {
    let connected = tokio_postgres::connect(url, NoTls).await;
    let (client, connection) = connected.context("cannot connect to the server of --postgres")?;
    // An error of the connection is an error of the next call as well.
    tokio::spawn(connection);
    Ok(client)
}

async fn better(measure: impl AsyncFn(usize) -> Result<f64>) -> Result<f64> {
    let mut best = 0.0_f64;
    for callers in CALLERS {
        best = best.max(measure(callers).await?);
    }
    Ok(best)
}
