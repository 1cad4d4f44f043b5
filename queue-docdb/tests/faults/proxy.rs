//! A proxy between one client and a server, which inflicts the faults of a case.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};

use crate::{
    agenda::Agenda,
    connection::Connection,
    failover::Seat,
    late::Late,
    schedule::{Fault, Request},
    undo::OldPrimary,
    wire::Message,
};

/// How long the client's messages wait for the adversary. It may itself wait for the client.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

/// A proxy. It ends on drop.
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

pub(crate) struct Shared {
    /// The host and the port of the primary.
    pub(crate) primary: watch::Receiver<String>,
    /// If the case meets a failover of a replica set.
    pub(crate) seat: Option<Arc<Seat>>,
    agenda: Mutex<Agenda>,
    /// All connections are silent.
    pub(crate) is_silent: watch::Sender<bool>,
    turn: watch::Sender<Turn>,
    pub(crate) late: Late,
    pub(crate) old_primary: Arc<OldPrimary>,
    /// Once armed, the client meets only the old primary.
    is_beside: bool,
    /// It has written there.
    pub(crate) has_written: Notify,
    /// The client meets a real primary without a majority.
    is_isolated: AtomicBool,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    BeforeTheFault,
    Adversary,
    AfterTheAdversary,
}

impl Proxy {
    /// Forwards to the primary, a host and a port.
    pub(crate) async fn start(primary: watch::Receiver<String>, seat: Option<Arc<Seat>>) -> Self {
        Self::listen(primary, seat, Arc::default(), false).await
    }

    /// A proxy of another client. Once armed, that one meets only the old primary of this one.
    pub(crate) async fn beside(&self) -> Self {
        let Shared {
            primary,
            old_primary,
            ..
        } = &*self.shared;
        Self::listen(primary.clone(), None, old_primary.clone(), true).await
    }

    async fn listen(
        primary: watch::Receiver<String>,
        seat: Option<Arc<Seat>>,
        old_primary: Arc<OldPrimary>,
        is_beside: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared {
            primary,
            seat,
            agenda: Mutex::default(),
            is_silent: watch::Sender::new(false),
            turn: watch::Sender::new(Turn::BeforeTheFault),
            late: Late::default(),
            old_primary,
            is_beside,
            has_written: Notify::new(),
            is_isolated: AtomicBool::new(false),
        });
        let all = shared.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = all.clone();
                connections.spawn(async move { shared.connect(client).await });
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on requests count. After `skip` of them, each of the next meets a fault.
    pub(crate) fn arm(&self, skip: usize, faults: &[Fault]) {
        *self.shared.agenda() = Agenda {
            is_armed: true,
            skip,
            faults: faults.iter().copied().collect(),
            ..Agenda::default()
        };
    }

    /// Waits until the first fault has done what it does to the server. Returns false if none will.
    pub(crate) async fn fault(&self) -> bool {
        let mut turn = self.shared.turn.subscribe();
        let turn = turn.wait_for(|turn| *turn != Turn::BeforeTheFault).await;
        turn.is_ok_and(|turn| *turn == Turn::Adversary)
    }

    /// The adversary has moved, so the client goes on.
    pub(crate) fn go_on(&self) {
        self.shared.turn.send_replace(Turn::AfterTheAdversary);
    }

    /// No further faults, and what is late arrives now. Returns what met a fault, and for how long
    /// the client was held. It may still meet the old primary.
    pub(crate) async fn heal(&self) -> (Vec<String>, Duration) {
        let (met, held) = {
            let mut agenda = self.shared.agenda();
            agenda.faults.clear();
            agenda.lasting = None;
            agenda.handshake = None;
            agenda.is_armed = false;
            (std::mem::take(&mut agenda.met), agenda.held)
        };
        self.go_on();
        self.shared.is_silent.send_replace(false);
        // The server may be gone.
        let _ = self.shared.late.deliver(&self.shared.server()).await;
        (met, held)
    }

    /// Waits until the client has written to the old primary.
    pub(crate) async fn written(&self) {
        self.shared.has_written.notified().await;
    }

    /// An old primary is voted out at last.
    pub(crate) async fn undo(&self) {
        // The server may be gone.
        let _ = self.shared.old_primary.end().await;
    }

    /// The requests since the proxy was armed.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.agenda().seen.clone()
    }

    /// Waits until the client has sent `count` requests.
    pub(crate) async fn await_requests(&self, count: usize) {
        while self.shared.agenda().seen.len() < count {
            pause(Duration::from_millis(10)).await;
        }
    }

    /// Whether the client has gone on before the adversary had moved.
    pub(crate) fn is_adversary_late(&self) -> bool {
        self.shared.agenda().is_adversary_late
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Where a new connection leads.
    pub(crate) fn server(&self) -> String {
        self.primary.borrow().clone()
    }

    pub(crate) fn meets_only_old_primary(&self) -> bool {
        self.is_beside && self.agenda().is_armed
    }

    /// The client meets a primary that no majority follows, until it waits for a majority.
    pub(crate) fn isolate(&self) {
        self.is_isolated.store(true, Ordering::Relaxed);
    }

    /// Returns whether it had to.
    pub(crate) fn end_isolation(&self) -> bool {
        self.is_isolated.swap(false, Ordering::Relaxed)
    }

    /// Waits until the next primary of the replica set takes writes.
    pub(crate) async fn outlast_failover(&self) {
        if let Some(seat) = &self.seat {
            let began = Instant::now();
            seat.outlast().await;
            self.agenda().held += began.elapsed();
        }
    }

    /// Waits until the primary of the replica set has no majority.
    pub(crate) async fn await_cut(&self) {
        if let Some(seat) = &self.seat {
            let began = Instant::now();
            seat.cut_off().await;
            self.agenda().held += began.elapsed();
        }
    }

    /// The reply of the primary to a message on a connection of its own.
    pub(crate) async fn send_to_primary(&self, message: &Message) -> io::Result<Message> {
        let mut primary = TcpStream::connect(self.server()).await?;
        message.write(&mut primary).await?;
        Message::read(&mut primary).await
    }

    pub(crate) fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().expect("no panic")
    }

    /// Now the adversary moves, if this is the first fault. Returns when it has.
    pub(crate) async fn strike(&self) {
        let is_first = |turn: &mut Turn| {
            let is_first = *turn == Turn::BeforeTheFault;
            if is_first {
                *turn = Turn::Adversary;
            }
            is_first
        };
        if !self.turn.send_if_modified(is_first) {
            return;
        }
        let began = Instant::now();
        self.outlast_adversary().await;
        self.agenda().held += began.elapsed();
    }

    pub(crate) async fn outlast_adversary(&self) {
        let mut turn = self.turn.subscribe();
        let moved = turn.wait_for(|turn| *turn != Turn::Adversary);
        let is_late = timeout(LONGEST_HOLD, moved).await.is_err();
        if is_late {
            self.agenda().is_adversary_late = true;
            self.turn.send_replace(Turn::AfterTheAdversary);
        }
    }

    /// Waits for the end of a silence, which also ends the connection.
    pub(crate) async fn outlast_silence(&self) -> io::Result<()> {
        if !*self.is_silent.borrow() {
            return Ok(());
        }
        let _ = self.is_silent.subscribe().wait_for(|silent| !silent).await;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    async fn connect(&self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.server()).await?;
        Connection::run(self, client, server).await
    }
}

/// In real time, as the clients' timeouts are.
#[allow(clippy::disallowed_methods)]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
