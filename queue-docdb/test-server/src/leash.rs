//! A leash: a shell that takes a server down when this process is gone.
//!
//! A static is never dropped, and a killed process drops nothing. So a shell holds the
//! read end of a pipe whose write end only this process has. However this process
//! ends, the kernel closes the write end, the shell reads end-of-file, and cleans up.
//!
//! The shell is deaf to the signals of a terminal and sits in a process group of its
//! own, or Ctrl-C would end it before its work begins. It holds none of this
//! process's outputs, or `cargo test` would wait for it.
//!
//! The pipe carries words as well: `release` sends the one that exists. Pausing, killing
//! and restarting a server would be further words, understood by the shell that is the
//! server's parent.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::error::Failure;

/// What both scripts begin with. Ignored signals stay ignored in what they start, which
/// does not matter: `mongod` sets its own handlers and is killed the hard way.
const DEAF: &str = "trap '' HUP INT QUIT TERM\n";

/// Runs `"$@"` with its output on the leash's stdout until the leash is pulled; then
/// kills it and removes the folder `$1`. Parent of the server, so that there is no
/// moment in which the server runs and nobody would end it.
const HOLD_PROCESS: &str = r#"
folder=$1
shift
"$@" </dev/null 2>&1 &
server=$!
# Only the server holds the pipe to its starter now: its end is the server's end.
exec >/dev/null
while read -r word; do :; done
kill -KILL "$server"
wait "$server"
rm -rf -- "$folder"
"#;

/// Removes the container `$1` when the leash is pulled, unless it was told otherwise.
/// Starts before the container is created, and tries for a while: a killed process may
/// have sent an order to create it that the daemon has yet to follow.
const HOLD_CONTAINER: &str = r#"
exec >/dev/null
read -r word && exit
for attempt in 1 2 3 4 5; do
    if command -v docker; then
        docker container inspect "$1" && docker rm --force --volumes "$1" && exit
    elif [ -n "$2" ]; then
        curl --fail --unix-socket "$2" --request DELETE \
            "http://localhost/containers/$1?force=true&v=true" && exit
    fi
    sleep 1
done
"#;

/// Holds a server; dropping it lets the shell do its work and waits until it is done.
#[derive(Debug)]
pub(crate) struct Leash {
    shell: Child,
    hold: Option<ChildStdin>,
}

impl Leash {
    /// Starts a program that ends with this leash, and its folder with it. Returns its
    /// output as well, which ends when the program does.
    pub(crate) fn process(
        folder: &OsStr,
        program: &OsStr,
        arguments: &[String],
    ) -> Result<(Self, ChildStdout), Failure> {
        let mut command = shell(HOLD_PROCESS);
        command.arg(folder).arg(program).args(arguments);
        let mut leash = Self::attach(command.stdout(Stdio::piped()))?;
        let output = leash.shell.stdout.take().expect("stdout is piped");
        Ok((leash, output))
    }

    /// Waits with the removal of a container that is about to be created.
    ///
    /// `docker_host` is the daemon's address; `socket` the path in it, or empty.
    pub(crate) fn container(name: &str, docker_host: &str, socket: &str) -> Result<Self, Failure> {
        let mut command = shell(HOLD_CONTAINER);
        // The command line tool may have a context that is another daemon.
        command.env("DOCKER_HOST", docker_host);
        Self::attach(command.arg(name).arg(socket).stdout(Stdio::null()))
    }

    fn attach(command: &mut Command) -> Result<Self, Failure> {
        let mut shell = command
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::of("starting /bin/sh", &error))?;
        let hold = shell.stdin.take();
        Ok(Self { shell, hold })
    }

    /// The container is removed already: the shell has nothing to do but to end.
    pub(crate) fn release(mut self) {
        if let Some(hold) = &mut self.hold {
            // An error means that the shell is gone, which is all we want.
            let _ = hold.write_all(b"released\n");
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.hold.take());
        // Fails only for a child that was waited for before, which this one was not.
        let _ = self.shell.wait();
    }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{DEAF}{script}"), "leash"]);
    command
}
