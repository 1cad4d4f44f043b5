//! The signals that ask a program to end.

use std::{future::Future, io};

use tokio::signal;

/// Resolves when the program is asked to end: by Ctrl-C, or by SIGTERM, which Kubernetes, systemd and
/// `docker stop` send. Pass it to [`Worker::run`](super::Worker::run).
///
/// ```no_run
/// use queue_api::consumer::{Handler, Worker, shutdown_signal};
///
/// # async fn program(worker: Worker<String, impl Handler<String>>) -> queue_api::Result<()> {
/// let report = worker.run(shutdown_signal()).await?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
///
/// From this call on, these signals do not end the process by themselves, also after the future was
/// dropped: tokio never removes its signal handlers. So a second signal does nothing, and the program
/// ends at the shutdown deadline. To end at once on the second signal:
///
/// ```no_run
/// use queue_api::consumer::{Handler, Worker, shutdown_signal};
///
/// # async fn program(worker: Worker<String, impl Handler<String>>) -> queue_api::Result<()> {
/// let first = shutdown_signal();
/// tokio::spawn(async {
///     for _ in 0..2 {
///         let _ = shutdown_signal().await;
///     }
///     std::process::exit(1)
/// });
/// let report = worker.run(first).await?;
/// # Ok(())
/// # }
/// ```
///
/// Needs the feature `signal`, which is on by default.
///
/// # Errors
/// The future's error is an [`io::Error`]: the signal handler cannot be installed. The error is logged, and a worker shuts
/// down at once.
///
/// # Panics
/// Outside a tokio runtime, or if its I/O driver is not enabled.
pub fn shutdown_signal() -> impl Future<Output = io::Result<()>> + Send + use<> {
    // Here and not in the future, so that a signal before its first poll counts.
    let installed = Signals::install();
    async move {
        let asked = match installed {
            Ok(mut signals) => signals.next().await,
            Err(error) => Err(error),
        };
        if let Err(error) = &asked {
            crate::telemetry::log::no_signals(error);
        }
        asked
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: signal::unix::Signal,
    terminate: signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn install() -> io::Result<Self> {
        use signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::select! {
            _ = self.interrupt.recv() => Ok(()),
            _ = self.terminate.recv() => Ok(()),
        }
    }
}

#[cfg(windows)]
struct Signals {
    ctrl_c: signal::windows::CtrlC,
    shutdown: signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            ctrl_c: signal::windows::ctrl_c()?,
            shutdown: signal::windows::ctrl_shutdown()?,
        })
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::select! {
            _ = self.ctrl_c.recv() => Ok(()),
            _ = self.shutdown.recv() => Ok(()),
        }
    }
}
