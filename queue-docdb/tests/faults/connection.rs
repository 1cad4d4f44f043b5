//! One connection of a client, and the faults that its messages meet.

use std::{
    collections::HashMap,
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex as AsyncMutex,
};

use crate::{
    forge,
    proxy::{Shared, pause},
    schedule::{Fault, Place, Timeout},
    undo::run_and_undo,
    wire::{Command, Message},
};

/// What happens to the reply of a request that was delivered.
enum Reply {
    Lose,
    Close,
    Late(Duration),
    AfterFailover,
    Error { fault: Fault, is_part: bool },
}

/// One connection of the client.
pub(crate) struct Connection<'a> {
    shared: &'a Shared,
    to_client: AsyncMutex<OwnedWriteHalf>,
    /// By the id of the request.
    replies: Mutex<HashMap<i32, Reply>>,
    is_monitor: AtomicBool,
}

impl<'a> Connection<'a> {
    /// Until one side ends it.
    pub(crate) async fn run(
        shared: &'a Shared,
        client: TcpStream,
        server: TcpStream,
    ) -> io::Result<()> {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let connection = Self {
            shared,
            to_client: AsyncMutex::new(to_client),
            replies: Mutex::default(),
            is_monitor: AtomicBool::new(false),
        };
        tokio::select! {
            ended = connection.requests(from_client, to_server) => ended,
            ended = connection.replies(from_server) => ended,
            ended = connection.outlive_primary() => ended,
        }
    }

    /// The monitor of a client that knows all members finds the next primary.
    async fn outlive_primary(&self) -> io::Result<()> {
        let mut primary = self.shared.primary.clone();
        primary.mark_unchanged();
        let is_moved = primary.changed().await.is_ok();
        if is_moved && self.is_monitor.load(Ordering::Relaxed) {
            return Err(aborted());
        }
        std::future::pending().await
    }

    async fn requests(
        &self,
        mut from_client: OwnedReadHalf,
        mut to_server: OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut is_new = true;
        loop {
            let mut message = match Message::read(&mut from_client).await {
                Ok(message) => message,
                Err(gone) => {
                    let is_silent = *self.shared.is_silent.borrow();
                    let is_monitor = self.is_monitor.load(Ordering::Relaxed);
                    if is_monitor && is_silent && self.shared.agenda().lasting.is_none() {
                        self.shared.outlast_adversary().await;
                        self.shared.is_silent.send_replace(false);
                    }
                    return Err(gone);
                }
            };
            let mut command = Command(message.document());
            self.is_monitor
                .fetch_or(command.is_monitor(), Ordering::Relaxed);
            self.shared.outlast_silence().await?;
            if std::mem::take(&mut is_new) {
                let fault = self.shared.agenda().meet_handshake();
                match fault {
                    Some(Fault::HelloReset | Fault::HandshakeReset) => return Err(aborted()),
                    Some(_) => pause(Timeout::Connection.passed()).await,
                    None => {}
                }
            }
            if !command.is_check() {
                self.shared.outlast_adversary().await;
                self.shared.outlast_silence().await?;
                // A client that knows all members does not read from a secondary.
                if self.shared.seat.is_some() && command.0.remove("$readPreference").is_some() {
                    message = message.with_document(&command.0);
                }
                if self.shared.meets_only_old_primary() && command.fits_transaction() {
                    self.write_beside(message, &command, &mut to_server).await?;
                    continue;
                }
                self.shared.late.approach(&self.shared.server()).await?;
                let fault = self.shared.agenda().meet(&command);
                if let Some(fault) = fault {
                    if command.is_change() {
                        self.shared.old_primary.end().await?;
                    }
                    self.inflict(fault, message, command, &mut to_server)
                        .await?;
                    continue;
                }
                if let Some(reply) = self.shared.old_primary.answer(&command).await? {
                    self.answer(&message.reply(&reply)).await?;
                    continue;
                }
                if command.waits_for_majority() && self.shared.end_isolation() {
                    self.shared.outlast_failover().await;
                    self.shared.strike().await;
                    let reply = self.shared.send_to_primary(&message).await?;
                    self.answer(&reply).await?;
                    continue;
                }
            }
            message.write(&mut to_server).await?;
        }
    }

    /// The client meets only the old primary. Its writes get no majority, so they have no reply.
    async fn write_beside(
        &self,
        message: Message,
        command: &Command,
        to_server: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let old = &self.shared.old_primary;
        match old.carry_out(&self.shared.server(), command).await? {
            None => message.write(to_server).await,
            Some(_) if command.is_durable() => {
                self.shared.has_written.notify_one();
                std::future::pending().await
            }
            Some(reply) => self.answer(&message.reply(&reply)).await,
        }
    }

    async fn inflict(
        &self,
        fault: Fault,
        message: Message,
        command: Command,
        to_server: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
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
            Fault::HelloReset | Fault::HelloLate | Fault::HandshakeReset | Fault::HandshakeLate => {
                self.shared.strike().await;
                let mut agenda = self.shared.agenda();
                if agenda.is_armed {
                    agenda.handshake = fault.handshake().map(|skip| (skip, fault));
                }
                return Err(aborted());
            }
            Fault::RequestLate(arrival) => {
                self.shared.strike().await;
                self.shared.late.put(message, arrival);
                return Err(aborted());
            }
            Fault::OthersUndone => {
                self.shared.strike().await;
                return match self.shared.old_primary.answer(&command).await? {
                    Some(reply) => self.answer(&message.reply(&reply)).await,
                    None => message.write(to_server).await,
                };
            }
            Fault::ShownUndone | Fault::ShownUnconfirmed => {
                self.shared.strike().await;
                let old = &self.shared.old_primary;
                old.end().await?;
                let Some(reply) = old.carry_out(&self.shared.server(), &command).await? else {
                    return message.write(to_server).await;
                };
                if fault == Fault::ShownUndone {
                    return Err(aborted());
                }
                let reply = forge::undone(reply, true);
                return self.answer(&message.reply(&reply)).await;
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
                let undone = run_and_undo(&self.shared.server(), &command).await?;
                let Some(undone) = undone else {
                    return message.write(to_server).await;
                };
                self.shared.strike().await;
                let reply = forge::undone(undone, fault == Fault::Undone);
                return self.answer(&message.reply(&reply)).await;
            }
            Fault::StepDownBefore => {
                self.shared.outlast_failover().await;
                self.shared.strike().await;
                return message.write(to_server).await;
            }
            Fault::RollBackShown => {
                self.shared.await_cut().await;
                let local = message.with_document(&command.without_majority());
                self.shared.send_to_primary(&local).await?;
                self.shared.isolate();
                return Err(aborted());
            }
            Fault::RollBack => {
                self.shared.await_cut().await;
                self.reply_to(&message, Reply::AfterFailover);
                message.write(to_server).await?;
                if let Some(seat) = &self.shared.seat {
                    seat.reach(command.is_durable());
                }
                return Ok(());
            }
            Fault::StepDownAfter => Reply::AfterFailover,
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
        self.reply_to(&message, reply);
        sent.write(to_server).await
    }

    fn reply_to(&self, message: &Message, reply: Reply) {
        let mut replies = self.replies.lock().expect("no panic");
        replies.insert(message.id(), reply);
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
            if matches!(reply, Reply::AfterFailover) {
                self.shared.outlast_failover().await;
            }
            self.shared.strike().await;
            match reply {
                Reply::AfterFailover => self.answer(&message).await?,
                Reply::Lose => {}
                Reply::Close => return Err(aborted()),
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

fn aborted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}
