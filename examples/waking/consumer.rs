//! A consumer that is measured: in this process, or in one of its own.

use std::{
    env, fmt,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use mongodb::event::{EventHandler, command::CommandEvent};
use queue_api::{
    Queue,
    consumer::{ListenOptions, Listener},
};
use queue_docdb::DocDbBackend;
use rustix::time::{ClockId, clock_gettime};

use crate::{Arguments, Measured, message, pause};

/// Tells a child where its queue is.
const CHILD: &str = "QUEUE_WAKING_CHILD";

/// How a consumer learns of what other processes do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Streamed,
    Polled,
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Streamed => "change stream",
            Self::Polled => "looking",
        })
    }
}

impl News {
    pub(crate) fn place(self, database: &str, uri: &str) -> String {
        format!("{self} {database} {uri}").replacen("change stream", "streamed", 1)
    }
}

/// A queue of this process, and how many commands it has sent.
pub(crate) struct Connected {
    queue: Queue,
    commands: Arc<AtomicU64>,
}

pub(crate) struct Here {
    connected: Connected,
    listener: Listener,
}

impl Here {
    pub(crate) async fn connect(place: &str) -> anyhow::Result<Connected> {
        let words: Vec<&str> = place.splitn(3, ' ').collect();
        let [news, database, uri] = words[..] else {
            anyhow::bail!("a place is three words, this is {place:?}");
        };
        let commands = Arc::new(AtomicU64::new(0));
        let count = commands.clone();
        let events = EventHandler::callback(move |event| {
            if let CommandEvent::Started(_) = event {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut builder = DocDbBackend::builder(uri)
            .database(database)
            .command_event_handler(events);
        if news == "looking" {
            builder = builder.without_change_stream();
        }
        let backend = Arc::new(builder.connect().await?);
        let queue = Queue::new(backend, "waking")?;
        Ok(Connected { queue, commands })
    }

    pub(crate) async fn listen(place: &str) -> anyhow::Result<Self> {
        let connected = Self::connect(place).await?;
        let listener = connected.queue.listen(ListenOptions::new(8))?;
        Ok(Self {
            connected,
            listener,
        })
    }

    pub(crate) async fn measure(&mut self, arguments: &Arguments) -> anyhow::Result<Measured> {
        let idle = Duration::from_secs(arguments.idle_seconds);
        let Connected { queue, commands } = &self.connected;
        let idling = async {
            let before = begin_idle(commands).await;
            pause(idle).await;
            commands.load(Ordering::Relaxed) - before
        };
        let sent = tokio::select! {
            sent = idling => sent,
            _ = self.listener.next() => anyhow::bail!("nobody has sent anything"),
        };
        let mut wakes = Vec::with_capacity(arguments.wakes);
        // The first enqueue of all makes the queue, so it does not count.
        for wake in 0..=arguments.wakes {
            let sending = async {
                settle_down().await;
                queue.enqueue(&message()).await
            };
            let (sent, lease) = tokio::join!(sending, self.listener.next());
            sent?;
            let lease = lease.context("the listener was not stopped")?;
            let took = nanos() - std::str::from_utf8(lease.payload())?.parse::<u64>()?;
            if wake > 0 {
                wakes.push(took);
            }
            lease.ack().await?;
        }
        Ok(Measured {
            commands_a_second: sent as f64 / idle.as_secs_f64(),
            wakes,
        })
    }

    pub(crate) async fn stop(self) {
        self.listener.drain().await;
    }
}

/// Lets pauses grow to their full length first, and a change stream be opened.
async fn begin_idle(commands: &AtomicU64) -> u64 {
    pause(Duration::from_secs(10)).await;
    commands.load(Ordering::Relaxed)
}

/// So that the consumer waits again, at moments that nothing is in step with.
async fn settle_down() {
    pause(Duration::from_millis(fastrand::u64(20..60))).await;
}

/// A consumer in a process of its own.
pub(crate) struct Apart {
    process: Child,
    input: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Apart {
    pub(crate) fn start(place: &str) -> anyhow::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .env(CHILD, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            input: process.stdin.take().expect("it is piped"),
            told: BufReader::new(process.stdout.take().expect("it is piped")),
            process,
        })
    }

    pub(crate) async fn measure(
        &mut self,
        sender: &Connected,
        arguments: &Arguments,
        news: News,
    ) -> anyhow::Result<Measured> {
        let idle = Duration::from_secs(arguments.idle_seconds);
        pause(Duration::from_secs(10)).await;
        let before = self.ask()?;
        pause(idle).await;
        let sent = self.ask()? - before;
        let most = match news {
            News::Streamed => arguments.wakes,
            News::Polled => arguments.looks,
        };
        let mut wakes = Vec::with_capacity(most);
        while wakes.len() < most {
            settle_down().await;
            sender.queue.enqueue(&message()).await?;
            wakes.push(self.line("woken")?);
        }
        Ok(Measured {
            commands_a_second: sent as f64 / idle.as_secs_f64(),
            wakes,
        })
    }

    /// How many commands it has sent.
    fn ask(&mut self) -> anyhow::Result<u64> {
        writeln!(self.input, "commands")?;
        self.line("commands")
    }

    fn line(&mut self, about: &str) -> anyhow::Result<u64> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        let number = line.trim().strip_prefix(about);
        let number = number.with_context(|| format!("{about} was asked, told was {line:?}"))?;
        Ok(number.trim().parse()?)
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input);
        self.process.wait()?;
        Ok(())
    }
}

pub(crate) fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Consumes until the parent goes away.
pub(crate) async fn child() -> anyhow::Result<()> {
    let mut here = Here::listen(&env::var(CHILD)?).await?;
    let commands = here.connected.commands.clone();
    thread::spawn(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            println!("commands {}", commands.load(Ordering::Relaxed));
        }
        std::process::exit(0);
    });
    while let Some(lease) = here.listener.next().await {
        let sent: u64 = std::str::from_utf8(lease.payload())?.parse()?;
        println!("woken {}", nanos() - sent);
        lease.ack().await?;
    }
    Ok(())
}

/// Now, by the clock that all processes of this machine share.
pub(crate) fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
