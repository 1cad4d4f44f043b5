//! This program, started again as a process that makes one call.

use std::{
    env,
    io::{self, BufRead, BufReader, Lines, StdinLock, Write},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use queue_api::Result;
use queue_conformance::record::{Call as RecordedCall, Millis};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use crate::{
    case::{Case, HANGS},
    log::{Event, Leased, Party, World},
    record::record,
    server::Server,
};

/// Holds the task of a child.
const CHILD: &str = "QUEUE_FAULTS_CHILD";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The name of a case.
    pub(crate) case: String,
    pub(crate) address: String,
    pub(crate) database: String,
    pub(crate) timeout: Duration,
}

/// What the parent says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make the call, with these deliveries.
    Call(Vec<Leased>, Millis),
    /// It is later now.
    Clock(Millis),
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum News {
    /// It is connected.
    Ready,
    /// Its clock is set.
    Later,
    /// It makes these calls, or they have ended.
    Calls(Vec<RecordedCall>),
    /// The call has ended. With an error, whether that is retryable.
    Ended(std::result::Result<(), bool>),
}

fn say(news: &News) {
    println!("{}", serde_json::to_string(news).expect("plain data"));
}

fn say_calls(event: &Event) {
    say(&News::Calls(record(std::slice::from_ref(event))));
}

/// If the environment says so, makes a call as a child.
pub(crate) fn child_main() -> Option<ExitCode> {
    let task = env::var(CHILD).ok()?;
    let task: Task = serde_json::from_str(&task).expect("a task");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("the system gives a thread to a runtime");
    runtime.block_on(work(task)).expect("an undisturbed start");
    Some(ExitCode::SUCCESS)
}

async fn work(task: Task) -> Result<()> {
    let case = Case::parse(&task.case).expect("a case");
    let world = Arc::new(World::of_child(&task.database, say_calls));
    let (address, database) = (&task.address, &task.database);
    let connect = async || {
        let connecting = Server::subject(address, case.client, task.timeout, database, &world);
        let subject = connecting.await?;
        if !case.call.is_first() {
            subject.lease(1).await?;
        }
        Ok(subject)
    };
    let mut connected: Result<Party> = connect().await;
    // Its timeouts are short for a busy machine.
    for _ in 0..5 {
        if connected.is_err() {
            connected = connect().await;
        }
    }
    let subject = connected?;
    say(&News::Ready);
    let mut orders = io::stdin().lock().lines();
    let Some(Order::Call(leased, now)) = next_order(&mut orders) else {
        return Ok(());
    };
    drop(orders);
    set_clock(&world, now);
    let others_time = world.clone();
    thread::spawn(move || {
        let mut orders = io::stdin().lock().lines();
        while let Some(Order::Clock(now)) = next_order(&mut orders) {
            set_clock(&others_time, now);
            say(&News::Later);
        }
        // The parent has ended.
        std::process::exit(0);
    });
    let answer = case.call.make(&subject, &leased).await;
    let ended = answer.map(drop).map_err(|error| error.is_retryable());
    say(&News::Ended(ended));
    Ok(())
}

fn next_order(orders: &mut Lines<StdinLock<'_>>) -> Option<Order> {
    let line = orders.next()?.ok()?;
    serde_json::from_str(&line).ok()
}

fn set_clock(world: &World, now: Millis) {
    let later = now.saturating_sub(world.now());
    world.clock.advance(Duration::from_millis(later));
}

/// A child. It is killed on drop.
pub(crate) struct Child {
    process: std::process::Child,
    news: UnboundedReceiver<News>,
    /// In the order in which they were told. Of each, the last one counts.
    pub(crate) calls: Vec<RecordedCall>,
    pub(crate) ended: Option<std::result::Result<(), bool>>,
}

impl Child {
    pub(crate) async fn start(task: &Task) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .env(CHILD, serde_json::to_string(task)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().expect("stdout is piped");
        let (told, news) = unbounded_channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(io::Result::ok) {
                // The last line may be cut off.
                if let Ok(news) = serde_json::from_str(&line) {
                    let _ = told.send(news);
                }
            }
        });
        let mut child = Self {
            process,
            news,
            calls: Vec::new(),
            ended: None,
        };
        let ready = child.hear_until(|news| matches!(news, News::Ready)).await;
        ready.map_err(|error| io::Error::other(format!("the process does not start: {error}")))?;
        Ok(child)
    }

    pub(crate) fn order(&mut self, order: &Order) -> io::Result<()> {
        let stdin = self.process.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{}", serde_json::to_string(order)?)
    }

    /// Hears the child until it says this.
    pub(crate) async fn hear_until(&mut self, is_it: impl Fn(&News) -> bool) -> io::Result<()> {
        loop {
            let news = timeout(HANGS, self.news.recv()).await?;
            let news = news.ok_or(io::ErrorKind::UnexpectedEof)?;
            let is_last = is_it(&news);
            match news {
                News::Calls(calls) => self.calls.extend(calls),
                News::Ended(ended) => self.ended = Some(ended),
                News::Ready | News::Later => {}
            }
            if is_last {
                return Ok(());
            }
        }
    }

    pub(crate) async fn hear_the_end(&mut self) -> io::Result<()> {
        match self.ended {
            Some(_) => Ok(()),
            None => self.hear_until(|news| matches!(news, News::Ended(_))).await,
        }
    }

    pub(crate) fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.process);
        kill_process(id, signal).expect("a child that was not waited for");
    }

    /// Kills it, and hears what it has said before.
    pub(crate) async fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        while let Some(news) = self.news.recv().await {
            if let News::Calls(calls) = news {
                self.calls.extend(calls);
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
