//! Other processes of this program. Parent and child exchange lines of JSON over pipes. A child
//! ends when its input ends, so no child outlives its parent.

use std::{
    env, io,
    process::{self, Stdio},
    thread,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
    sync::mpsc,
};

use crate::docdb::location::Location;

/// The variable with the role of a child.
const ROLE: &str = "QUEUE_BENCH_ROLE";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Leases and acks batches, in competition with other processes.
    Consumer(Location),
    /// Waits for messages and reports when it has them.
    Listener(Location),
    /// Reports the memory that stored messages take.
    Store { messages: usize },
}

/// The role of this process and its orders. `None` for the parent.
pub(crate) fn role() -> Result<Option<(Role, Orders)>> {
    let Ok(role) = env::var(ROLE) else {
        return Ok(None);
    };
    let parsed = serde_json::from_str(&role);
    let role = parsed.with_context(|| format!("{ROLE} is {role:?}, which is not a role"))?;
    Ok(Some((role, Orders::read())))
}

/// Sends an answer to the parent.
pub(crate) fn tell(answer: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}

/// What the parent sends.
#[derive(Debug)]
pub(crate) struct Orders(mpsc::UnboundedReceiver<String>);

impl Orders {
    fn read() -> Self {
        let (send, lines) = mpsc::unbounded_channel();
        thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                // Fails for a role without orders.
                let _ = send.send(line);
            }
            process::exit(0);
        });
        Self(lines)
    }

    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.0.recv().await.context("the input has ended")?;
        Ok(serde_json::from_str(&line)?)
    }
}

#[derive(Debug)]
pub(crate) struct Child {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Killed when it is dropped.
    _process: tokio::process::Child,
}

impl Child {
    pub(crate) fn start(role: &Role) -> Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .env(ROLE, serde_json::to_string(role)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a child process")?;
        let output = process.stdout.take().context("stdout is piped")?;
        Ok(Self {
            input: process.stdin.take().context("stdin is piped")?,
            output: BufReader::new(output).lines(),
            _process: process,
        })
    }

    pub(crate) async fn order(&mut self, order: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(order)? + "\n";
        let written = self.input.write_all(line.as_bytes()).await;
        written.context("a child process has ended")
    }

    /// The next answer.
    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.output.next_line().await?;
        let line = line.context("a child process ended without an answer")?;
        Ok(serde_json::from_str(&line)?)
    }
}
