//! Removes servers when this process ends, in whatever way.
//!
//! A killed process drops nothing, and a static is never dropped. So a shell reads from a pipe
//! that only this process can write to. The kernel closes the pipe when this process ends; the
//! shell reads the end of file and cleans up.
//!
//! The shell ignores a terminal's signals and has a process group of its own, so Ctrl-C does not
//! end it. It holds none of this process's outputs, or `cargo test` would wait for it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use uuid::Uuid;

use crate::error::StepError;

/// `mongod` inherits the ignored signals and sets handlers of its own.
const IGNORE_SIGNALS: &str = "trap '' HUP INT QUIT TERM PIPE\n";

/// Runs a server as a child of the shell, so there is no moment in which the server runs
/// without a reaper. Answers each line with the server's state.
///
/// `server` is empty once the shell has collected the server. From then on, another process may
/// have its process id.
const PROCESS: &str = r#"
folder=$1
shift
start() {
    "$@" </dev/null >>"$folder/output" 2>&1 &
    server=$!
}
signal() {
    test -n "$server" && kill "$1" "$server"
}
collect() {
    test -n "$server" && wait "$server"
    server=
}
start "$@"
while read -r line; do
    case $line in
        start) start "$@" ;;
        kill) signal -KILL; collect ;;
        stop) signal -TERM; collect ;;
        freeze) signal -STOP ;;
        thaw) signal -CONT ;;
    esac
    # Collects a server that has ended; until then it would still take signals.
    jobs >/dev/null
    if signal -0; then echo running; else server=; echo ended; fi
done
signal -KILL
collect
rm -rf -- "$folder"
"#;

/// Removes what has the label `$1`. Repeated, because the daemon may still create a container
/// that a killed process has asked for.
const DOCKER: &str = r#"
while read -r line; do :; done
for attempt in 1 2 3 4 5; do
    for container in $(docker ps --all --quiet --filter "label=$1"); do
        docker rm --force --volumes "$container"
    done
    for network in $(docker network ls --quiet --filter "label=$1"); do
        docker network rm "$network"
    done
    sleep 1
done
"#;

/// The variable that overrides `DOCKER_HOST`. Its daemon may be another one.
const CONTEXT: &str = "DOCKER_CONTEXT";

/// The parent of a server process. Dropping it kills the server, removes its folder, and waits
/// for both.
#[derive(Debug)]
pub(crate) struct ProcessReaper {
    shell: Child,
    /// `None` once it is dropped.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl ProcessReaper {
    /// Starts the program. Its output goes to the file `output` in the folder.
    pub(crate) fn start(
        folder: &Path,
        program: &Path,
        arguments: &[String],
    ) -> Result<Self, StepError> {
        let mut command = shell(PROCESS);
        command.arg(folder).arg(program).args(arguments);
        let mut shell = spawn(command.stdout(Stdio::piped()))?;
        Ok(Self {
            stdin: shell.stdin.take(),
            stdout: BufReader::new(shell.stdout.take().expect("stdout is piped")),
            shell,
        })
    }

    /// Sends `start`, `kill`, `stop`, `freeze`, `thaw` or, to change nothing, `state`. Blocks
    /// until it is done, and says whether the server runs.
    pub(crate) fn send(&mut self, line: &str) -> Result<bool, StepError> {
        let stdin = self.stdin.as_mut().expect("is open until the drop");
        let mut answer = String::new();
        writeln!(stdin, "{line}")
            .and_then(|()| self.stdout.read_line(&mut answer))
            .map_err(|error| StepError::of(format!("sending {line} to mongod's parent"), &error))?;
        match answer.trim_end() {
            "running" => Ok(true),
            "ended" => Ok(false),
            _ => Err(StepError::new(format!(
                "mongod's parent ended before it answered {line}"
            ))),
        }
    }
}

impl Drop for ProcessReaper {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Fails only for a child that was waited for before.
        let _ = self.shell.wait();
    }
}

/// The label of this process's containers and networks. The first call starts the reaper that
/// removes what has the label.
///
/// The reaper needs the `docker` command; `host` is the daemon's address.
pub(crate) fn docker_label(host: &str) -> Result<&'static str, StepError> {
    // The pipe stays open as long as the process lives, because a static is not dropped.
    static REAPER: OnceLock<Result<(String, Child), StepError>> = OnceLock::new();
    let reaper = REAPER.get_or_init(|| {
        let label = format!("{}={}", env!("CARGO_PKG_NAME"), Uuid::new_v4().simple());
        // What the reaper does first, to learn now whether it will work.
        let probe = Command::new("docker")
            .args(["ps", "--quiet", "--filter", &format!("label={label}")])
            .env("DOCKER_HOST", host)
            .env_remove(CONTEXT)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| StepError::of("running the command docker", &error))?;
        if !probe.status.success() {
            let text = String::from_utf8_lossy(&probe.stderr);
            return Err(StepError::new(format!("docker ps failed: {}", text.trim())));
        }
        let mut command = shell(DOCKER);
        command
            .arg(&label)
            .env("DOCKER_HOST", host)
            .env_remove(CONTEXT);
        Ok((label, spawn(command.stdout(Stdio::null()))?))
    });
    match reaper {
        Ok((label, _)) => Ok(label),
        Err(failure) => Err(failure.clone()),
    }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = format!("{IGNORE_SIGNALS}{script}");
    command.args([OsStr::new("-c"), script.as_ref(), "reaper".as_ref()]);
    command
}

fn spawn(command: &mut Command) -> Result<Child, StepError> {
    command
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .map_err(|error| StepError::of("starting /bin/sh", &error))
}
