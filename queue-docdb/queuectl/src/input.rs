//! Reads messages from files or the standard input, on a thread of its own, because a read may wait
//! for ever.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use queue_api::{Limits, MessageId, NewMessage};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    cli::{ImportDead, InputFormat},
    failure::{Exit, Failure, Result},
    record::{Record, State},
};

/// Ids that are made of an input are UUIDs of version 5 in this namespace. It never changes: a
/// repeat would not find what it has enqueued.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f0e_39a4_6b6c_4c0e_9d5d_1f2a_7c55_e0b3);

/// The bytes of a batch, unless one message alone is larger.
const BATCH_BYTES: usize = 4 << 20;

/// JSON can write a byte in six.
const JSON_GROWTH: usize = 8;

const BUFFER: usize = 256 << 10;

/// The line of a message that is a whole file.
const WHOLE_FILE: u64 = 0;

const STDIN: &str = "-";

const STDIN_LABEL: &[u8] = b"stdin";

const DEAD: &str = "it is a dead letter, and no queue takes a message as dead; import with \
                    --dead=skip leaves it out, with --dead=enqueue it becomes ready";

/// What to read, and what the messages get.
pub(crate) struct Input {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) format: InputFormat,
    pub(crate) ids: Ids,
    /// What applies to messages that do not set it.
    pub(crate) defaults: Record,
    pub(crate) dead: ImportDead,
    /// How many messages to leave out at the beginning.
    pub(crate) skip: u64,
    pub(crate) limits: Limits,
}

/// The ids of messages that have none.
pub(crate) enum Ids {
    /// From the file's name or this label, the line and the content.
    Derived(Option<String>),
    New,
    /// It is an error.
    Required,
}

/// Messages that are enqueued together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<NewMessage>,
    /// With those that were left out.
    pub(crate) end: u64,
    /// Dead letters so far that were left out.
    pub(crate) dead_skipped: u64,
    /// How much of the input was read.
    pub(crate) bytes: u64,
    payload_bytes: usize,
}

impl Input {
    /// The total size. `None` if it is not known, as that of a pipe.
    pub(crate) fn size(&self) -> Result<Option<u64>> {
        let mut size = Some(0);
        // An early look at all files, so that the last one is not found missing after an hour.
        for file in self.files.iter().filter(|file| !is_stdin(file)) {
            let metadata = fs::metadata(file).map_err(|error| unreadable(file, &error))?;
            if metadata.is_dir() {
                let text = format!("cannot read {}: it is a folder", file.display());
                return Err(Failure::new(Exit::BadInput, text));
            }
            let length = metadata.is_file().then_some(metadata.len());
            size = size.zip(length).map(|(size, length)| size + length);
        }
        let has_stdin = self.files.iter().any(|file| is_stdin(file));
        Ok(size.filter(|_| !has_stdin))
    }

    /// Starts to read. The first failure comes last.
    pub(crate) fn read(self) -> mpsc::Receiver<Result<Batch>> {
        // One batch waits while another one is sent.
        let (sender, receiver) = mpsc::channel(1);
        thread::spawn(move || {
            let mut reader = Reader {
                input: &self,
                sender: &sender,
                batch: Batch::default(),
            };
            let read = self.files.iter().try_for_each(|file| reader.file(file));
            let done = read.and_then(|()| reader.is_after_skipped());
            // What was read before the failure is good.
            if reader.send().is_ok()
                && let Err(Ended::Failed(failure)) = done
            {
                let _ = sender.blocking_send(Err(failure));
            }
        });
        receiver
    }
}

/// Why reading ended early.
enum Ended {
    /// Nothing receives the batches.
    Closed,
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

struct Reader<'a> {
    input: &'a Input,
    sender: &'a mpsc::Sender<Result<Batch>>,
    batch: Batch,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path) -> Result<(), Ended> {
        let failed = |error| unreadable(path, &error);
        let is_stdin = is_stdin(path);
        let source: Box<dyn Read> = match is_stdin {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(path).map_err(failed)?),
        };
        let mut source = BufReader::with_capacity(BUFFER, source);
        let longest = self.input.longest();
        if self.input.format == InputFormat::Files {
            let mut content = Vec::new();
            let mut limited = source.take(longest.saturating_add(1) as u64);
            limited.read_to_end(&mut content).map_err(failed)?;
            self.batch.bytes += content.len() as u64;
            return self.take(path, WHOLE_FILE, content);
        }
        for number in 1.. {
            // The next read may wait.
            if is_stdin && source.buffer().is_empty() {
                self.flush()?;
            }
            let mut line = Vec::new();
            let most = longest.saturating_add(2);
            let read = source
                .by_ref()
                .take(most as u64)
                .read_until(b'\n', &mut line);
            if read.map_err(failed)? == 0 {
                break;
            }
            self.batch.bytes += line.len() as u64;
            let is_cut = line.len() == most && !line.ends_with(b"\n");
            if line.pop_if(|last| *last == b'\n').is_some() {
                line.pop_if(|last| *last == b'\r');
            }
            self.take(path, number, line)?;
            if is_cut {
                // It is left out, so what follows of it is no line of its own.
                let rest = source.skip_until(b'\n').map_err(failed)?;
                self.batch.bytes += rest as u64;
            }
        }
        Ok(())
    }

    /// A larger number to skip is a mistake, which would look like a success.
    fn is_after_skipped(&self) -> Result<(), Ended> {
        let (skip, end) = (self.input.skip, self.batch.end);
        if skip <= end {
            return Ok(());
        }
        let text = format!("--skip is {skip}, but the input has only {end} messages");
        Err(Failure::new(Exit::BadInput, text).into())
    }

    /// Adds a message to the batch.
    fn take(&mut self, path: &Path, line: u64, content: Vec<u8>) -> Result<(), Ended> {
        let is_json = self.input.format == InputFormat::Json;
        let is_short = content.len() <= self.input.longest();
        if is_json && is_short && content.trim_ascii().is_empty() {
            return Ok(());
        }
        if self.batch.end >= self.input.skip {
            let bad = |text: String| bad_line(path, line, &text);
            let message = self.input.message(path, line, content).map_err(bad)?;
            if message.is_none() {
                self.batch.dead_skipped += 1;
            }
            if let Some(message) = message {
                let bytes = message.payload.len() + message.header_bytes();
                if self.batch.messages.len() == self.input.limits.max_batch.get()
                    || self.batch.payload_bytes + bytes > BATCH_BYTES
                {
                    self.flush()?;
                }
                self.batch.payload_bytes += bytes;
                self.batch.messages.push(message);
            }
        }
        self.batch.end += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Ended> {
        match self.batch.messages.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }

    fn send(&mut self) -> Result<(), Ended> {
        let next = Batch {
            end: self.batch.end,
            dead_skipped: self.batch.dead_skipped,
            bytes: self.batch.bytes,
            ..Batch::default()
        };
        let batch = std::mem::replace(&mut self.batch, next);
        let sent = self.sender.blocking_send(Ok(batch));
        sent.map_err(|_| Ended::Closed)
    }
}

impl Input {
    /// The message, unless it is to be left out. An error says what is wrong with it.
    fn message(
        &self,
        path: &Path,
        line: u64,
        content: Vec<u8>,
    ) -> Result<Option<NewMessage>, String> {
        let longest = self.longest();
        if content.len() > longest {
            return Err(format!("it is longer than {longest} bytes"));
        }
        let (record, id, payload) = match self.format {
            InputFormat::Lines | InputFormat::Files => {
                let id = self.id(path, line, &content)?;
                (Record::default(), id, content.into())
            }
            InputFormat::Json => {
                let mut record = Record::parse(&content)?;
                if record.state == Some(State::Dead) {
                    match self.dead {
                        ImportDead::Enqueue => {}
                        ImportDead::Skip => return Ok(None),
                        ImportDead::Refuse => return Err(DEAD.to_owned()),
                    }
                }
                let id = match record.id.take() {
                    Some(id) => id,
                    None => self.id(path, line, &content)?,
                };
                let payload = record.take_payload()?;
                (record, id, payload)
            }
        };
        let message = record.complete(NewMessage::new(payload).with_id(id), &self.defaults);
        let checked = self.limits.check_messages(std::slice::from_ref(&message));
        let wrong = |error: queue_api::Error| match error.invalid_input() {
            Some(it) => format!("{} is {}; it must be {}", it.name, it.value, it.allowed),
            None => error.to_string(),
        };
        checked.map_err(wrong)?;
        Ok(Some(message))
    }

    /// An id for a message that has none.
    fn id(&self, path: &Path, line: u64, content: &[u8]) -> Result<MessageId, String> {
        let label = match &self.ids {
            Ids::New => return Ok(MessageId::generate()),
            Ids::Required => return Err("it has no id; import needs one".to_owned()),
            Ids::Derived(Some(label)) => label.as_bytes(),
            Ids::Derived(None) if is_stdin(path) => STDIN_LABEL,
            Ids::Derived(None) => path.as_os_str().as_encoded_bytes(),
        };
        let (line, settings) = (line.to_string(), self.settings());
        let name = [label, line.as_bytes(), settings.as_bytes(), content].join(&0);
        let id = Uuid::new_v5(&NAMESPACE, &name).to_string();
        MessageId::new(&id).map_err(|error| error.to_string())
    }

    /// What else makes a message: a repeat with another format or other flags is a new one.
    fn settings(&self) -> String {
        let Record {
            headers,
            delay,
            visibility_timeout,
            max_attempts,
            ..
        } = &self.defaults;
        let milliseconds = |time: &Duration| time.as_millis().to_string();
        let mut parts = vec![
            self.format.name().to_owned(),
            delay.as_ref().map(milliseconds).unwrap_or_default(),
            visibility_timeout
                .as_ref()
                .map(milliseconds)
                .unwrap_or_default(),
            max_attempts.map(|it| it.to_string()).unwrap_or_default(),
        ];
        parts.extend(
            headers
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        parts.join("\n")
    }

    /// The bytes of the longest line that may be a message.
    fn longest(&self) -> usize {
        let payload = self.limits.max_payload_bytes;
        match self.format {
            InputFormat::Lines | InputFormat::Files => payload,
            InputFormat::Json => payload.saturating_mul(JSON_GROWTH),
        }
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let text = format!("cannot read {}: {error}", path.display());
    Failure::new(Exit::BadInput, text)
}

fn bad_line(path: &Path, line: u64, text: &str) -> Failure {
    let name = match is_stdin(path) {
        true => "the standard input".into(),
        false => path.display().to_string(),
    };
    let text = match line {
        WHOLE_FILE => format!("{name}: {text}"),
        line => format!("{name}, line {line}: {text}"),
    };
    Failure::new(Exit::BadInput, text)
}

/// The files of a command line, or else the standard input.
pub(crate) fn or_stdin(files: Vec<PathBuf>) -> Vec<PathBuf> {
    match files.is_empty() {
        true => vec![PathBuf::from(STDIN)],
        false => files,
    }
}
