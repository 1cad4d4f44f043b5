//! A proxy between one client and a server, which inflicts the faults of a case.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};

use crate::{
    agenda::Agenda,
    forge,
    schedule::{Fault, Place, Request},
    undo::{Shown, run_and_undo},
    wire::{Command, Message},
};

/// How long the client's messages wait for the adversary. It may itself wait for the client.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

/// A proxy. It ends on drop.
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: String,
    agenda: Mutex<Agenda>,
    /// All connections are silent.
    is_silent: watch::Sender<bool>,
    turn: watch::Sender<Turn>,
    /// A request that is to arrive late.
    late: Mutex<Option<Message>>,
    /// A write that is to be undone.
    shown: Mutex<Option<Shown>>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    BeforeTheFault,
    Adversary,
    AfterTheAdversary,
}

/// What happens to the reply of a request that was delivered.
enum Reply {
    Lose,
    Close,
    Late(Duration),
    Error { fault: Fault, is_part: bool },
}

impl Proxy {
    /// Forwards to `server`, a host and a port.
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared {
            server,
            agenda: Mutex::default(),
            is_silent: watch::Sender::new(false),
            turn: watch::Sender::new(Turn::BeforeTheFault),
            late: Mutex::default(),
            shown: Mutex::default(),
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
    /// the client was held.
    pub(crate) async fn heal(&self) -> (Vec<String>, Duration) {
        let (met, held) = {
            let mut agenda = self.shared.agenda();
            agenda.faults.clear();
            agenda.lasting = None;
            (std::mem::take(&mut agenda.met), agenda.held)
        };
        self.go_on();
        self.shared.is_silent.send_replace(false);
        // The server may be gone.
        let _ = self.shared.deliver_late().await;
        let _ = self.shared.undo_shown().await;
        (met, held)
    }

    /// The requests since the proxy was armed.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.agenda().seen.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().expect("no panic")
    }

    /// Now the adversary moves, if this is the first fault. Returns when it has.
    async fn strike(&self) {
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

    async fn outlast_adversary(&self) {
        let mut turn = self.turn.subscribe();
        let moved = turn.wait_for(|turn| *turn != Turn::Adversary);
        let is_late = timeout(LONGEST_HOLD, moved).await.is_err();
        if is_late {
            self.turn.send_replace(Turn::AfterTheAdversary);
        }
    }

    /// Waits for the end of a silence, which also ends the connection.
    async fn outlast_silence(&self) -> io::Result<()> {
        if !*self.is_silent.borrow() {
            return Ok(());
        }
        let _ = self.is_silent.subscribe().wait_for(|silent| !silent).await;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    fn take_shown(&self) -> Option<Shown> {
        self.shown.lock().expect("no panic").take()
    }

    async fn undo_shown(&self) -> io::Result<()> {
        match self.take_shown() {
            Some(shown) => shown.undo().await,
            None => Ok(()),
        }
    }

    async fn deliver_late(&self) -> io::Result<()> {
        let late = self.late.lock().expect("no panic").take();
        if let Some(late) = late {
            let mut server = TcpStream::connect(&self.server).await?;
            late.write(&mut server).await?;
            Message::read(&mut server).await?;
        }
        Ok(())
    }

    async fn connect(&self, client: TcpStream) -> io::Result<()> {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = TcpStream::connect(&self.server).await?.into_split();
        let connection = Connection {
            shared: self,
            to_client: AsyncMutex::new(to_client),
            replies: Mutex::default(),
        };
        tokio::select! {
            ended = connection.requests(from_client, to_server) => ended,
            ended = connection.replies(from_server) => ended,
        }
    }
}

/// One connection of the client.
struct Connection<'a> {
    shared: &'a Shared,
    to_client: AsyncMutex<OwnedWriteHalf>,
    /// By the id of the request.
    replies: Mutex<HashMap<i32, Reply>>,
}

impl Connection<'_> {
    async fn requests(
        &self,
        mut from_client: OwnedReadHalf,
        mut to_server: OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut is_monitor = false;
        loop {
            let message = match Message::read(&mut from_client).await {
                Ok(message) => message,
                Err(gone) => {
                    let is_silent = *self.shared.is_silent.borrow();
                    if is_monitor && is_silent && self.shared.agenda().lasting.is_none() {
                        self.shared.outlast_adversary().await;
                        self.shared.is_silent.send_replace(false);
                    }
                    return Err(gone);
                }
            };
            let command = Command(message.document());
            is_monitor |= command.is_monitor();
            self.shared.outlast_silence().await?;
            if !command.is_check() {
                self.shared.outlast_adversary().await;
                self.shared.outlast_silence().await?;
                self.shared.deliver_late().await?;
                let fault = self.shared.agenda().meet(&command);
                if let Some(fault) = fault {
                    self.inflict(fault, message, command, &mut to_server)
                        .await?;
                    continue;
                }
                if command.name() == "find"
                    && let Some(shown) = self.shared.take_shown()
                {
                    let reply = shown.find(&command).await?;
                    self.answer(&message.reply(&reply)).await?;
                    continue;
                }
                self.shared.undo_shown().await?;
            }
            message.write(&mut to_server).await?;
        }
    }

    async fn inflict(
        &self,
        fault: Fault,
        message: Message,
        command: Command,
        to_server: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let aborted = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let mut sent = message.clone();
        let reply = match fault {
            Fault::Pause => {
                self.shared.strike().await;
                return message.write(to_server).await;
            }
            Fault::RequestLost => {
                self.shared.strike().await;
                return Ok(());
            }
            Fault::ResetBefore => {
                self.shared.strike().await;
                return Err(aborted());
            }
            Fault::RequestLate => {
                self.shared.strike().await;
                *self.shared.late.lock().expect("no panic") = Some(message);
                return Err(aborted());
            }
            Fault::ShownUndone => {
                self.shared.strike().await;
                let shown = Shown::run(&self.shared.server, &command).await?;
                *self.shared.shown.lock().expect("no panic") = Some(shown);
                return Err(aborted());
            }
            Fault::SilenceBefore | Fault::Gone => {
                self.shared.is_silent.send_replace(true);
                self.shared.strike().await;
                return self.shared.outlast_silence().await;
            }
            Fault::Refusing(_)
            | Fault::Error {
                place: Place::Refused | Place::Statements,
                ..
            } => {
                self.shared.strike().await;
                let error = forge::refusal(fault, &command);
                return self.answer(&message.reply(&error)).await;
            }
            Fault::Undone | Fault::UndoneUnnoticed => {
                let undone = run_and_undo(&self.shared.server, &command).await?;
                let Some(undone) = undone else {
                    return message.write(to_server).await;
                };
                self.shared.strike().await;
                let reply = forge::undone(undone, fault == Fault::Undone);
                return self.answer(&message.reply(&reply)).await;
            }
            Fault::ReplyLost | Fault::NoMajority => Reply::Lose,
            Fault::SilenceAfter => {
                self.shared.is_silent.send_replace(true);
                Reply::Lose
            }
            Fault::ResetAfter => Reply::Close,
            Fault::PauseAfter => Reply::Late(Duration::ZERO),
            Fault::ReplyLate(timeout) => Reply::Late(timeout.passed()),
            Fault::Error { place, .. } => {
                let is_part = matches!(place, Place::Part | Place::Statement);
                if is_part {
                    sent = message.with_document(&command.without_first_statement());
                }
                Reply::Error { fault, is_part }
            }
        };
        let id = message.id();
        self.replies.lock().expect("no panic").insert(id, reply);
        sent.write(to_server).await
    }

    async fn answer(&self, reply: &Message) -> io::Result<()> {
        reply.write(&mut *self.to_client.lock().await).await
    }

    async fn replies(&self, mut from_server: OwnedReadHalf) -> io::Result<()> {
        loop {
            let message = Message::read(&mut from_server).await?;
            let id = message.answers();
            let reply = self.replies.lock().expect("no panic").remove(&id);
            let Some(reply) = reply else {
                self.shared.outlast_silence().await?;
                self.answer(&message).await?;
                continue;
            };
            self.shared.strike().await;
            match reply {
                Reply::Lose => {}
                Reply::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
                Reply::Late(after) => {
                    pause(after).await;
                    self.answer(&message).await?;
                }
                Reply::Error { fault, is_part } => {
                    let error = forge::error(fault, message.document(), is_part);
                    self.answer(&message.with_document(&error)).await?;
                }
            }
        }
    }
}

/// In real time, as the clients' timeouts are.
#[allow(clippy::disallowed_methods)]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
