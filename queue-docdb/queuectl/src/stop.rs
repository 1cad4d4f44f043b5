//! SIGINT and SIGTERM, for commands that end at a good place.

use std::{io, process};

use tokio::sync::watch;

use crate::failure::{Exit, Failure, Result};

/// Whether a signal asks to stop.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<Option<Exit>>);

impl Stop {
    /// From now on, the first signal asks to stop. A second one ends the program at once.
    pub(crate) fn listen() -> Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let mut signals = Signals::new().map_err(|error| {
            let text = format!("cannot listen for signals: {error}");
            Failure::new(Exit::Failed, text)
        })?;
        tokio::spawn(async move {
            let exit = signals.next().await;
            sender.send_replace(Some(exit));
            let exit = signals.next().await;
            process::exit(exit as i32);
        });
        Ok(Self(receiver))
    }

    pub(crate) fn requested(&self) -> Option<Exit> {
        *self.0.borrow()
    }

    /// Waits for the request.
    pub(crate) async fn wait(&mut self) -> Exit {
        match self.0.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The task waits for ever, unless the runtime ends.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Exit {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Exit::Interrupted,
            Err(_) => std::future::pending().await,
        }
    }
}
