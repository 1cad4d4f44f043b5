//! `export`: the messages of a queue as JSON lines, page by page.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use queue_api::{Admin, PageOptions, PageToken, QueueName};
use serde::{Deserialize, Serialize};

use crate::{
    cli::{ExportArgs, What},
    connect::Connection,
    depth::depth,
    failure::{Exit, Failure, Result},
    find_queue::must_exist,
    output::{Output, count},
    progress::Progress,
    record::Record,
    stop::Stop,
};

/// Messages of a page, unless they are large.
const PAGE: usize = 1000;

#[derive(Serialize)]
struct Exported {
    queue: QueueName,
    file: PathBuf,
    exported: u64,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (messages, file) = (count(self.exported, "message"), self.file.display());
        write!(f, "exported {messages} of queue {} into {file}", self.queue)
    }
}

/// One of the two lists of a queue.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum List {
    Live,
    Dead,
}

/// How far an export is. The file beside an incomplete output has it.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Position {
    queue: QueueName,
    /// The hosts, the database and the prefix.
    place: String,
    what: What,
    list: List,
    /// Where the next page starts.
    token: Option<String>,
    messages: u64,
    /// The length of the output.
    bytes: u64,
}

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: ExportArgs,
) -> Result<()> {
    let (admin, queue) = (&connection.admin, &args.queue);
    must_exist(connection, queue).await?;
    let stop = Stop::listen()?;
    let begin = Position {
        queue: queue.clone(),
        place: connection.place.clone(),
        what: args.what,
        list: match args.what {
            What::Dead => List::Dead,
            What::Live | What::All => List::Live,
        },
        token: None,
        messages: 0,
        bytes: 0,
    };
    let file = args.file.filter(|file| file.as_os_str() != "-");
    let mut target = match &file {
        Some(file) => Target::file(file, begin, args.force)?,
        None => Target::standard_output(begin),
    };
    let stats = admin.stats(queue).await?;
    let live = depth(&stats);
    let total = match args.what {
        What::Live => live,
        What::Dead => stats.dead,
        What::All => live + stats.dead,
    };
    let mut progress = Progress::new(Some(total));
    let mut is_complete = false;
    while !is_complete {
        if let Some(exit) = stop.requested() {
            drop(progress);
            return Err(target.stopped(exit));
        }
        let page = read(admin, &target.position).await;
        let (records, next) = page.map_err(|failure| target.resumable(failure))?;
        is_complete = target
            .write(&records, next)
            .map_err(|failure| target.resumable(failure))?;
        progress.advance(records.len() as u64, target.position.messages);
    }
    drop(progress);
    let exported = target.position.messages;
    match target.complete()? {
        Some(file) => output.summary(&Exported {
            queue: args.queue,
            file,
            exported,
        }),
        None => Ok(()),
    }
}

/// The page at this position, and where the next one starts.
async fn read(admin: &Admin, position: &Position) -> Result<(Vec<Record>, Option<PageToken>)> {
    let mut page = PageOptions::new(PAGE);
    if let Some(token) = &position.token {
        page = page.with_token(PageToken::new(token.as_str()));
    }
    match position.list {
        List::Live => {
            let page = admin.messages(&position.queue, &page).await?;
            let next = page.next.clone();
            Ok((page.into_iter().map(Record::from).collect(), next))
        }
        List::Dead => {
            let page = admin.dead_letters(&position.queue, &page).await?;
            let next = page.next.clone();
            Ok((page.into_iter().map(Record::from).collect(), next))
        }
    }
}

/// Where the records go.
struct Target {
    out: BufWriter<Box<dyn Write>>,
    position: Position,
    /// The output and the file with the position. The standard output has none.
    files: Option<Files>,
}

struct Files {
    output: PathBuf,
    part: PathBuf,
}

impl Target {
    fn standard_output(position: Position) -> Self {
        Self {
            out: BufWriter::new(Box::new(io::stdout())),
            position,
            files: None,
        }
    }

    /// A new file, or one that an export has begun.
    fn file(output: &Path, begin: Position, force: bool) -> Result<Self> {
        if output.is_dir() {
            let text = format!("{} is a folder; name a file", output.display());
            return Err(Failure::usage(text));
        }
        let mut part = output.as_os_str().to_owned();
        part.push(".part");
        let files = Files {
            output: output.to_owned(),
            part: part.into(),
        };
        let position = match force {
            true => None,
            false => files.position(&begin)?,
        };
        let position = position.unwrap_or(begin);
        // Before the output, so that the next try can tell an output that has just begun.
        files.save(&position)?;
        let failed = |error| cannot("write", output, &error);
        let mut options = OpenOptions::new();
        let opened = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(output);
        let mut file = opened.map_err(failed)?;
        cut(&mut file, position.bytes).map_err(failed)?;
        Ok(Self {
            out: BufWriter::new(Box::new(file)),
            position,
            files: Some(files),
        })
    }

    /// Writes a page and then the position behind it. Returns whether it was the last one.
    fn write(&mut self, records: &[Record], next: Option<PageToken>) -> Result<bool> {
        let written = self.write_lines(records);
        self.position.bytes += written.map_err(|error| match &self.files {
            Some(files) => cannot("write", &files.output, &error),
            None => error.into(),
        })?;
        self.position.messages += records.len() as u64;
        let is_last = match next {
            Some(next) => {
                self.position.token = Some(next.as_str().to_owned());
                false
            }
            None if self.position.list == List::Live && self.position.what.has_dead() => {
                self.position.list = List::Dead;
                self.position.token = None;
                false
            }
            None => true,
        };
        if let (false, Some(files)) = (is_last, &self.files) {
            files.save(&self.position)?;
        }
        Ok(is_last)
    }

    /// Returns the number of bytes.
    fn write_lines(&mut self, records: &[Record]) -> io::Result<u64> {
        let mut bytes = 0;
        for record in records {
            let mut line = serde_json::to_vec(record)?;
            line.push(b'\n');
            self.out.write_all(&line)?;
            bytes += line.len() as u64;
        }
        self.out.flush()?;
        Ok(bytes)
    }

    /// The failure, with how to go on. The standard output cannot.
    fn resumable(&self, failure: Failure) -> Failure {
        match self.files {
            Some(_) => failure.advise("repeat the command to go on"),
            None => failure,
        }
    }

    fn stopped(&self, exit: Exit) -> Failure {
        let messages = count(self.position.messages, "message");
        let how = match self.files {
            Some(_) => "repeat the command to go on",
            None => "only an export into a file can go on",
        };
        exit.stopped()
            .advise(&format!("{messages} are written; {how}"))
    }

    /// Removes the position. Returns the output, if it is a file.
    fn complete(self) -> Result<Option<PathBuf>> {
        let Some(files) = self.files else {
            return Ok(None);
        };
        fs::remove_file(&files.part).map_err(|error| cannot("remove", &files.part, &error))?;
        Ok(Some(files.output))
    }
}

impl Files {
    /// Where an export of the same messages stopped. `None` if there is no output yet.
    fn position(&self, begin: &Position) -> Result<Option<Position>> {
        let text = match fs::read(&self.part) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match self.output.exists() {
                    true => Err(self.refused("it exists")),
                    false => Ok(None),
                };
            }
            Err(error) => return Err(cannot("read", &self.part, &error)),
        };
        let position: Position = serde_json::from_slice(&text).map_err(|error| {
            let part = self.part.display();
            self.refused(&format!("{part} is not valid: {error}"))
        })?;
        let is_same = (&position.queue, &position.place, position.what)
            == (&begin.queue, &begin.place, begin.what);
        if !is_same {
            let (queue, place) = (&position.queue, &position.place);
            let what = position.what.name();
            let text =
                format!("it is part of an export of queue {queue} with --what {what} in {place}");
            return Err(self.refused(&text));
        }
        let length = fs::metadata(&self.output).map_or(0, |metadata| metadata.len());
        if length < position.bytes {
            let expected = position.bytes;
            let text = format!("it has {length} bytes; it must have the {expected} written so far");
            return Err(self.refused(&text));
        }
        Ok(Some(position))
    }

    fn refused(&self, why: &str) -> Failure {
        let output = self.output.display();
        let text = format!("cannot export into {output}: {why}; --force begins it again");
        Failure::usage(text)
    }

    /// Replaces the position, whole or not at all.
    fn save(&self, position: &Position) -> Result<()> {
        let mut next = self.part.clone().into_os_string();
        next.push(".new");
        let json = serde_json::to_vec(position).map_err(io::Error::from)?;
        fs::write(&next, json)
            .and_then(|()| fs::rename(&next, &self.part))
            .map_err(|error| cannot("write", &self.part, &error))
    }
}

/// Removes what came after the last known position: a page that is not whole.
fn cut(file: &mut File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    file.seek(SeekFrom::Start(bytes)).map(drop)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let text = format!("cannot {what} {}: {error}", path.display());
    Failure::new(Exit::Failed, text)
}
