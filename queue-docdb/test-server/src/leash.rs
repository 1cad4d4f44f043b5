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
//! The pipe carries words as well: `release` sends the only one that a leash of containers
//! knows, and a member of a replica set is killed, paused and restarted by words to the shell
//! that is its parent.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use crate::daemon;
use crate::error::Failure;

/// What all scripts begin with. Ignored signals stay ignored in what they start, which
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

/// Runs the rest of its arguments as a server until the leash is pulled; then kills it and
/// removes the folder `$1`. Each word on the way is carried out and then answered with a line
/// on stderr, which the server does not have.
const HOLD_MEMBER: &str = r#"
# Whoever would read what is said here may be gone.
trap '' PIPE
folder=$1
shift
start() {
    "$@" </dev/null >>"$folder/output" 2>&1 3>&- &
    server=$!
}
start "$@"
while read -r word; do
    case $word in
        start) start "$@" ;;
        kill) kill -KILL "$server"; wait "$server" ;;
        stop) kill -TERM "$server"; wait "$server" ;;
        freeze) kill -STOP "$server" ;;
        thaw) kill -CONT "$server" ;;
    esac
    # Buries a server that ended by itself; until then it could still be sent signals.
    jobs >/dev/null
    if kill -0 "$server"; then echo running >&3; else echo ended >&3; fi
done 3>&2 2>/dev/null
exec 2>/dev/null
kill -KILL "$server"
wait "$server"
rm -rf -- "$folder"
"#;

/// Removes containers and networks when the leash is pulled, unless it was told otherwise:
/// `$1` is the daemon's socket, the others are `containers/<name>` and `networks/<name>`,
/// containers first. Starts before they are created, and tries for a while: a killed process
/// may have sent an order to create one that the daemon has yet to follow.
const HOLD_IN_DOCKER: &str = r#"
exec >/dev/null
read -r word && exit
socket=$1
shift
remove() {
    if command -v docker; then
        case $1 in
            containers/*) docker container inspect "${1#*/}" \
                && docker rm --force --volumes "${1#*/}" ;;
            *) docker network rm "${1#*/}" ;;
        esac
    elif [ -n "$socket" ]; then
        curl --fail --unix-socket "$socket" --request DELETE \
            "http://localhost/$1?force=true&v=true"
    fi
}
for attempt in 1 2 3 4 5; do
    left=
    for thing; do
        remove "$thing" || left=$thing
    done
    [ -z "$left" ] && exit
    sleep 1
done
"#;

/// Holds a server; dropping it lets the shell do its work and waits until it is done.
#[derive(Debug)]
pub(crate) struct Leash {
    shell: Child,
    hold: Option<ChildStdin>,
    answers: Option<BufReader<ChildStderr>>,
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
        let mut leash = Self::attach(command.stdout(Stdio::piped()).stderr(Stdio::null()))?;
        let output = leash.shell.stdout.take().expect("stdout is piped");
        Ok((leash, output))
    }

    /// Starts a program that ends with this leash, its folder with it, and that can be told
    /// [words](Self::tell) until then. Its output goes to the file `output` in the folder.
    pub(crate) fn member(
        folder: &OsStr,
        program: &OsStr,
        arguments: &[String],
    ) -> Result<Self, Failure> {
        let mut command = shell(HOLD_MEMBER);
        command.arg(folder).arg(program).args(arguments);
        let mut leash = Self::attach(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        leash.answers = leash.shell.stderr.take().map(BufReader::new);
        Ok(leash)
    }

    /// Waits with the removal of a container that is about to be created.
    ///
    /// `docker_host` is the daemon's address.
    pub(crate) fn container(name: &str, docker_host: &str) -> Result<Self, Failure> {
        Self::in_docker(&[format!("containers/{name}")], docker_host)
    }

    /// Waits with the removal of `containers/<name>` and `networks/<name>`, in this order.
    pub(crate) fn in_docker(things: &[String], docker_host: &str) -> Result<Self, Failure> {
        let mut command = shell(HOLD_IN_DOCKER);
        // The command line tool may have a context that is another daemon.
        command.env("DOCKER_HOST", docker_host);
        command.arg(daemon::socket(docker_host)).args(things);
        Self::attach(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    fn attach(command: &mut Command) -> Result<Self, Failure> {
        let mut shell = command
            .stdin(Stdio::piped())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::of("starting /bin/sh", &error))?;
        let hold = shell.stdin.take();
        Ok(Self {
            shell,
            hold,
            answers: None,
        })
    }

    /// Tells a [member](Self::member) to `start`, `kill`, `stop`, `freeze` or `thaw`, or asks
    /// with any other word; blocks until that is done, and says whether it runs now.
    pub(crate) fn tell(&mut self, word: &str) -> Result<bool, Failure> {
        let (Some(hold), Some(answers)) = (&mut self.hold, &mut self.answers) else {
            unreachable!("only members are told words");
        };
        let mut answer = String::new();
        writeln!(hold, "{word}")
            .and_then(|()| answers.read_line(&mut answer))
            .map_err(|error| Failure::of(format!("telling a member to {word}"), &error))?;
        match answer.trim_end() {
            "running" => Ok(true),
            "ended" => Ok(false),
            _ => Err(Failure::new(format!(
                "the parent of a member ended before it was told to {word}"
            ))),
        }
    }

    /// What it holds is removed already: the shell has nothing to do but to end.
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
