//! Processes of this same program that are measured beside others. They are told what to do on
//! their standard input, a line of JSON for each order, and end with it: however the parent ends,
//! the kernel closes the pipe.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdin, stdout},
    process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{docdb, memory};

/// Tells a process that it is a child, and which.
const ROLE: &str = "QUEUE_BENCH_CHILD";

/// What a child is for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Leases and acks batches in competition with others.
    Competitor(docdb::Place),
    /// Waits for messages, and says when it has them.
    Listener(docdb::Place),
    /// Says how much memory stored messages take.
    Store { messages: usize },
}

/// The role that a parent gave this process.
pub(crate) fn role() -> anyhow::Result<Option<Role>> {
    let Ok(role) = env::var(ROLE) else {
        return Ok(None);
    };
    let role = serde_json::from_str(&role).with_context(|| format!("{ROLE} is {role:?}"))?;
    Ok(Some(role))
}

pub(crate) async fn play(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Competitor(place) => docdb::compete(&place).await,
        Role::Listener(place) => docdb::listen(&place).await,
        Role::Store { messages } => {
            let _ends_with_the_parent = orders::<()>();
            tell(&memory::bytes_for_each(messages).await?)
        }
    }
}

/// Says something to the parent.
pub(crate) fn tell(answer: &impl Serialize) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// What the parent says. When it has gone, so has this process.
pub(crate) fn orders<T: DeserializeOwned + Send + 'static>() -> mpsc::Receiver<T> {
    let (order, orders) = mpsc::channel();
    // A thread of its own notices the end of the parent also while something is measured.
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            let sent = serde_json::from_str(&line).is_ok_and(|it| order.send(it).is_ok());
            if !sent {
                // Not a panic, which would end this thread and leave the process behind.
                eprintln!("the parent is this same program, and said {line:?}");
                std::process::exit(1);
            }
        }
        std::process::exit(0);
    });
    orders
}

/// A child as its parent sees it. It is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    /// Always there until the drop.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub(crate) fn start(role: &Role) -> anyhow::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .env(ROLE, serde_json::to_string(role)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process of this program")?;
        Ok(Self {
            input: process.stdin.take(),
            output: BufReader::new(process.stdout.take().context("it is piped")?),
            process,
        })
    }

    pub(crate) fn order(&mut self, order: &impl Serialize) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("it was not dropped")?;
        let line = serde_json::to_string(order)? + "\n";
        input.write_all(line.as_bytes()).context("a child is gone")
    }

    /// What the child says next.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        // Blocks the thread of `main`, on which no other task runs.
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a child ended before it had answered");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.input.take());
        // Fails only for a child that was waited for before, which this one was not.
        let _ = self.process.wait();
    }
}
