//! The plain backend's state in a file, for a store that processes share.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io,
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use queue_api::{
    Clock, DeadReason, Headers, MessageId, NewMessage, QueueName, Receipt, Result, TokioClock,
    async_trait,
};
use serde::{Deserialize, Serialize};

use crate::{
    message::{Death, Lease, Message, Millis, Scars},
    state::State,
};

/// A folder with the state, the lock that whoever works on it holds, and a clock.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    number: u64,
    queues: BTreeMap<String, Vec<Row>>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    id: String,
    payload: Vec<u8>,
    headers: Headers,
    visibility: Duration,
    max_attempts: u32,
    arrival: u64,
    enqueued_at: Millis,
    ready_at: Millis,
    attempts: u32,
    /// The receipt and the begin of the lease.
    lease: Option<(String, Millis)>,
    /// When it died; why is nothing that the checks among processes ask.
    died_at: Option<Millis>,
}

impl Folder {
    pub(crate) fn make(name: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        File::create(path.join("lock"))?;
        Ok(Self(path))
    }

    /// The folder of a store that another process has made.
    pub(crate) fn at(path: &str) -> io::Result<Self> {
        let path = PathBuf::from(path);
        fs::metadata(path.join("lock"))?;
        Ok(Self(path))
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.0)
    }

    /// Keeps everybody else out until the file is dropped, or its process is killed.
    fn lock(&self) -> io::Result<File> {
        let file = File::create(self.0.join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    fn load(&self, state: &mut State) -> io::Result<()> {
        let stored: Stored = match fs::read(self.0.join("state")) {
            Ok(json) => serde_json::from_slice(&json)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stored::default(),
            Err(error) => return Err(error),
        };
        state.numbers.fetch_max(stored.number, Ordering::Relaxed);
        let queue = |(name, rows): (String, Vec<Row>)| {
            let messages: Result<_> = rows.into_iter().map(Row::into_message).collect();
            Ok((QueueName::new(&name)?, messages?))
        };
        let queues: Result<_> = stored.queues.into_iter().map(queue).collect();
        state.queues = queues.map_err(io::Error::other)?;
        Ok(())
    }

    /// Puts the new state in the place of the old one in one step, so that a process that is
    /// killed leaves the one or the other.
    fn save(&self, state: &State) -> io::Result<()> {
        let rows = |messages: &Vec<Message>| messages.iter().map(Row::of).collect();
        let queues = state.queues.iter();
        let stored = Stored {
            number: state.numbers.load(Ordering::Relaxed),
            queues: queues
                .map(|(name, messages)| (name.to_string(), rows(messages)))
                .collect(),
        };
        let next = self.0.join("next");
        fs::write(&next, serde_json::to_vec(&stored)?)?;
        fs::rename(next, self.0.join("state"))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Row {
    fn of(message: &Message) -> Self {
        let lease = message.lease.as_ref();
        Self {
            id: message.sent.id.to_string(),
            payload: message.sent.payload.to_vec(),
            headers: message.sent.headers.clone(),
            visibility: message.sent.visibility_timeout,
            max_attempts: message.sent.max_attempts,
            arrival: message.arrival,
            enqueued_at: message.enqueued_at,
            ready_at: message.ready_at,
            attempts: message.attempts,
            lease: lease.map(|lease| (lease.receipt.to_string(), lease.begun_at)),
            died_at: message.death.as_ref().map(|death| death.at),
        }
    }

    fn into_message(self) -> Result<Message> {
        let sent = NewMessage {
            headers: self.headers,
            ..NewMessage::new(self.payload)
                .with_id(MessageId::new(&self.id)?)
                .with_visibility_timeout(self.visibility)
                .with_max_attempts(self.max_attempts)
        };
        Ok(Message {
            sent,
            arrival: self.arrival,
            enqueued_at: self.enqueued_at,
            ready_at: self.ready_at,
            attempts: self.attempts,
            lease: self.lease.map(|(receipt, begun_at)| Lease {
                receipt: Receipt::new(receipt),
                begun_at,
                connection: 0,
                call: 0,
            }),
            death: self.died_at.map(|at| Death {
                at,
                reason: DeadReason::AttemptsExhausted,
            }),
            scars: Scars::default(),
        })
    }
}

/// The state, to be used by nobody else; what has become of it is saved at the end.
pub(crate) struct Locked<'a> {
    state: MutexGuard<'a, State>,
    folder: Option<(&'a Folder, File)>,
}

impl<'a> Locked<'a> {
    pub(crate) fn new(state: &'a Mutex<State>, folder: Option<&'a Folder>) -> Self {
        // One bug panics in here, and what the suite says of it is to be about that.
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = folder.map(|folder| {
            let lock = folder.lock().expect(FOLDER);
            folder.load(&mut state).expect(FOLDER);
            (folder, lock)
        });
        Self { state, folder }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some((folder, _lock)) = &self.folder {
            folder.save(&self.state).expect(FOLDER);
        }
    }
}

const FOLDER: &str = "the folder is there as long as its store";

/// The time of the file system, which is the same for all processes, whatever a process thinks
/// that time it is.
#[derive(Debug)]
pub(crate) struct FolderClock {
    folder: Folder,
    timer: TokioClock,
}

impl FolderClock {
    pub(crate) fn new(folder: Folder) -> Self {
        let timer = TokioClock::new();
        Self { folder, timer }
    }
}

#[async_trait]
impl Clock for FolderClock {
    fn now(&self) -> SystemTime {
        let path = self.folder.0.join("clock");
        let touched = fs::write(&path, []).and_then(|()| fs::metadata(&path)?.modified());
        touched.expect(FOLDER)
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        while let Ok(left) = deadline.duration_since(self.now())
            && !left.is_zero()
        {
            self.timer.sleep_until(self.timer.now() + left).await;
        }
    }
}
