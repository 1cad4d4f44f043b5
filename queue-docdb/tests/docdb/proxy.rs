//! A proxy that drops one command or the reply to it. No fail point of mongod does that.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What happens in place of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The connection is closed.
    Close,
    /// Nothing: the client waits.
    Withhold,
    /// Nothing, and the command does not arrive: as on a connection that a load balancer has
    /// forgotten.
    NeverArrive,
    /// The connection is closed, and the command arrives late, just before the next of its name: as
    /// out of a buffer in the network.
    ArriveLate,
    /// Nothing, and from then on nothing on any connection, until the client closes the command's
    /// connection: as in a network that drops all packets.
    Silence,
}

/// What the connections of a proxy share.
#[derive(Debug, Default)]
struct Shared {
    is_silent: watch::Sender<bool>,
    /// Whether the silence goes on after the client has closed the connection.
    is_held: watch::Sender<bool>,
    trap: Mutex<Option<Trap>>,
    /// The commands of traps that were sprung.
    sprung: Mutex<Vec<String>>,
    /// How many connections are accepted before the one that is silent from its start.
    before_mute: Mutex<Option<usize>>,
    /// A command that is to arrive late.
    late: Mutex<Option<Vec<u8>>>,
}

impl Shared {
    /// The trap that this message springs.
    fn spring(&self, message: &[u8]) -> Option<Trap> {
        let command = str::from_utf8(command_of(message)?).ok()?;
        let mut trap = self.trap.lock().unwrap();
        let sprung = trap.take_if(|trap| trap.is_sprung_by(command))?;
        self.sprung.lock().unwrap().push(command.to_owned());
        Some(sprung)
    }

    fn is_next_mute(&self) -> bool {
        let mut before = self.before_mute.lock().unwrap();
        let is_next = *before == Some(0);
        *before = before.and_then(|before| before.checked_sub(1));
        is_next
    }

    /// Waits for the end of a silence, which also ends the connection.
    async fn outlast_silence(&self) -> io::Result<()> {
        if !*self.is_silent.borrow() {
            return Ok(());
        }
        let _ = self.is_silent.subscribe().wait_for(|silent| !silent).await;
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

/// A command that is to lose its reply.
#[derive(Clone, Debug)]
struct Trap {
    /// The next of this name, or of any name.
    command: Option<String>,
    /// How many commands pass before.
    skip: usize,
    loss: Loss,
}

impl Trap {
    /// Whether this command springs the trap.
    fn is_sprung_by(&mut self, command: &str) -> bool {
        let is_meant = match &self.command {
            Some(name) => name == command,
            None => !OF_THE_DRIVER.contains(&command),
        };
        if is_meant && self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        is_meant
    }
}

/// Commands that the driver sends by itself, or that end a test.
const OF_THE_DRIVER: [&str; 5] = [
    "hello",
    "isMaster",
    "killCursors",
    "endSessions",
    "abortTransaction",
];

/// A proxy in front of a server. It ends on drop.
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `server`, a host and a port.
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::<Shared>::default();
        let all = shared.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, shared) = (server.clone(), all.clone());
                let is_mute = shared.is_next_mute();
                connections.spawn(async move {
                    let _ = match is_mute {
                        true => swallow(&mut client.into_split().0).await,
                        false => forward(client, &server, &shared).await,
                    };
                });
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

    /// The next `command` loses its reply.
    pub(crate) fn set(&self, command: &str, loss: Loss) {
        let command = Some(command.to_owned());
        let trap = Trap {
            command,
            skip: 0,
            loss,
        };
        *self.shared.trap.lock().unwrap() = Some(trap);
    }

    /// A command loses its reply after `skip` others. The driver's own commands do not count.
    pub(crate) fn set_after(&self, skip: usize, loss: Loss) {
        let trap = Trap {
            command: None,
            skip,
            loss,
        };
        *self.shared.trap.lock().unwrap() = Some(trap);
    }

    /// The name of the command that lost its reply.
    pub(crate) fn sprung(&self) -> Option<String> {
        self.shared.sprung.lock().unwrap().pop()
    }

    /// After `skip` more connections, one is silent from its start.
    pub(crate) fn mute_after(&self, skip: usize) {
        *self.shared.before_mute.lock().unwrap() = Some(skip);
    }

    /// The next silence lasts at least until [`let_go`](Self::let_go).
    pub(crate) fn hold(&self) {
        self.shared.is_held.send_replace(true);
    }

    pub(crate) fn let_go(&self) {
        self.shared.is_held.send_replace(false);
    }

    pub(crate) fn clear(&self) {
        *self.shared.trap.lock().unwrap() = None;
        self.shared.is_silent.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, on which a client sends a command only when the last one was answered.
async fn forward(client: TcpStream, server: &str, shared: &Shared) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let loss = Mutex::new(None);
    let requests = async {
        loop {
            let message = match read(&mut from_client).await {
                Err(gone) if *loss.lock().unwrap() == Some(Loss::Silence) => {
                    let _ = shared.is_held.subscribe().wait_for(|held| !held).await;
                    shared.is_silent.send_replace(false);
                    return Err(gone);
                }
                message => message?,
            };
            shared.outlast_silence().await?;
            let sprung = shared.spring(&message);
            let same = |late: &mut Vec<u8>| command_of(late) == command_of(&message);
            let late = shared.late.lock().unwrap().take_if(same);
            if let Some(late) = late {
                let (mut from, mut to) = TcpStream::connect(server).await?.into_split();
                write(&mut to, &late).await?;
                read(&mut from).await?;
            }
            if let Some(sprung) = sprung {
                if sprung.loss == Loss::ArriveLate {
                    *shared.late.lock().unwrap() = Some(message);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                if sprung.loss == Loss::NeverArrive {
                    return swallow(&mut from_client).await;
                }
                *loss.lock().unwrap() = Some(sprung.loss);
                shared.is_silent.send_replace(sprung.loss == Loss::Silence);
            }
            write(&mut to_server, &message).await?;
        }
    };
    let replies = async {
        loop {
            let message = read(&mut from_server).await?;
            let taken = *loss.lock().unwrap();
            if taken.is_none() {
                shared.outlast_silence().await?;
            }
            match taken {
                None => write(&mut to_client, &message).await?,
                Some(Loss::Close) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Some(_) => {}
            }
        }
    };
    tokio::select! {
        ended = requests => ended,
        ended = replies => ended,
    }
}

/// Takes what comes until the client closes the connection.
async fn swallow(from: &mut OwnedReadHalf) -> io::Result<()> {
    loop {
        read(from).await?;
    }
}

/// A message of the wire protocol: its length, in 4 bytes, counts itself.
async fn read(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let mut message = vec![0; u32::from_le_bytes(length) as usize];
    message[..4].copy_from_slice(&length);
    from.read_exact(&mut message[4..]).await?;
    Ok(message)
}

async fn write(to: &mut OwnedWriteHalf, message: &[u8]) -> io::Result<()> {
    to.write_all(message).await
}

/// The command's name, which is its document's first key: behind a header of 16 bytes, flags
/// of 4, the kind of section, the document's length and the type of the first value.
fn command_of(message: &[u8]) -> Option<&[u8]> {
    let key = message.get(16 + 4 + 1 + 4 + 1..)?;
    key.split(|&byte| byte == 0).next()
}
