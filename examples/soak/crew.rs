//! The processes: started, killed, stopped, and listened to.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::{CHILD, PROCESSES, books::Books, child::nanos};

/// The first ones are never relieved.
const OLD: usize = 2;

/// How many of the others are killed in a round, and how many stopped.
const KILLED: usize = 2;
const STOPPED: usize = 2;

pub(crate) struct HandlerRunner {
    place: String,
    members: Vec<Member>,
    books: Arc<Mutex<Books>>,
    /// Those who are coming to their end.
    leaving: Vec<JoinHandle<()>>,
    started: usize,
}

struct Member {
    name: usize,
    process: Child,
    reader: JoinHandle<()>,
}

impl HandlerRunner {
    pub(crate) fn start(place: String) -> anyhow::Result<Self> {
        let mut crew = Self {
            place,
            members: Vec::new(),
            books: Arc::default(),
            leaving: Vec::new(),
            started: 0,
        };
        crew.fill_up()?;
        Ok(crew)
    }

    /// Kills some, stops some, and starts as many.
    pub(crate) fn relieve(&mut self) -> anyhow::Result<()> {
        for _ in 0..KILLED {
            let Member {
                name,
                mut process,
                reader,
            } = self.take();
            process.kill()?;
            process.wait()?;
            let killed = nanos();
            let books = self.books.clone();
            self.leaving.push(thread::spawn(move || {
                let _ = reader.join();
                lock(&books).killed(name, killed);
            }));
        }
        for _ in 0..STOPPED {
            let member = self.take();
            self.stop(member)?;
        }
        self.fill_up()
    }

    /// Stops all of them, and hands over what they told.
    pub(crate) fn end(mut self) -> anyhow::Result<Books> {
        for member in std::mem::take(&mut self.members) {
            self.stop(member)?;
        }
        for leaving in self.leaving {
            leaving
                .join()
                .ok()
                .context("a process could not be stopped")?;
        }
        Ok(std::mem::take(&mut *lock(&self.books)))
    }

    /// The resident bytes of those that are never relieved.
    pub(crate) fn memory(&self) -> anyhow::Result<[u64; OLD]> {
        let mut memory = [0; OLD];
        for (bytes, member) in memory.iter_mut().zip(&self.members) {
            let status = fs::read_to_string(format!("/proc/{}/status", member.process.id()))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next());
            *bytes = kib
                .context("Linux tells the resident size")?
                .parse::<u64>()?
                << 10;
        }
        Ok(memory)
    }

    /// Takes down what a round has come to.
    pub(crate) fn remember(&self, memory: [u64; OLD], connections: u64) {
        lock(&self.books).remember(memory.iter().sum(), connections);
    }

    pub(crate) fn handled(&self) -> usize {
        lock(&self.books).handled()
    }

    fn take(&mut self) -> Member {
        self.members
            .remove(fastrand::usize(OLD..self.members.len()))
    }

    fn stop(&mut self, member: Member) -> anyhow::Result<()> {
        let Member {
            name,
            mut process,
            reader,
        } = member;
        let pid = Pid::from_child(&process);
        kill_process(pid, Signal::TERM)?;
        let books = self.books.clone();
        self.leaving.push(thread::spawn(move || {
            // Held until it is gone: a child whose input ends takes its parent for dead.
            let input = process.stdin.take();
            let status = process.wait().expect("it is our child");
            drop(input);
            let _ = reader.join();
            lock(&books).stopped(name, status);
        }));
        Ok(())
    }

    fn fill_up(&mut self) -> anyhow::Result<()> {
        while self.members.len() < PROCESSES {
            let name = self.started;
            self.started += 1;
            let mut process = Command::new(env::current_exe()?)
                .env(CHILD, &self.place)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let told = process.stdout.take().expect("it is piped");
            let books = self.books.clone();
            let reader = thread::spawn(move || {
                for line in BufReader::new(told).lines().map_while(Result::ok) {
                    lock(&books).enter(name, &line);
                }
            });
            self.members.push(Member {
                name,
                process,
                reader,
            });
        }
        Ok(())
    }
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().expect("keeping books does not panic")
}
