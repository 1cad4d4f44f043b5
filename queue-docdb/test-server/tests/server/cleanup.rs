//! Nothing stays behind, however a process ends.

use std::fs;
use std::process::Command;

use mongodb_test_server::{MongoServer, ServerOptions, Source};

use crate::program::{Program, Traces, program, without_docker};

async fn ends_with(command: Command, end: fn(&mut Program)) {
    let mut program = Program::start(command);
    let traces = program.traces().await;
    end(&mut program);
    program.process.wait().expect("is our child");
    traces.vanish().await;
}

fn kill(program: &mut Program) {
    program.process.kill().expect("it runs");
}

/// Ctrl-C in a terminal signals the whole process group.
fn interrupt(program: &mut Program) {
    let group = format!("-{}", program.process.id());
    let status = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(status.expect("a command kill").success());
}

/// A shell without job control starts background jobs, and so these tests, with interrupts
/// ignored. The program must not inherit that.
fn interruptible() -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.arg("--default-signal=INT");
    command.arg(program("").get_program());
    command
}

#[tokio::test]
async fn nothing_stays_after_the_return_from_main() {
    ends_with(program(""), Program::finish).await;
}

#[tokio::test]
async fn nothing_stays_after_the_return_from_main_without_docker() {
    ends_with(without_docker(program("")), Program::finish).await;
}

#[tokio::test]
async fn nothing_stays_after_a_kill() {
    ends_with(program(""), kill).await;
}

#[tokio::test]
async fn nothing_stays_after_a_kill_without_docker() {
    ends_with(without_docker(program("")), kill).await;
}

#[tokio::test]
async fn nothing_stays_after_an_interrupt() {
    ends_with(interruptible(), interrupt).await;
}

#[tokio::test]
async fn nothing_stays_after_an_interrupt_without_docker() {
    ends_with(without_docker(interruptible()), interrupt).await;
}

#[tokio::test]
async fn nothing_of_a_replica_set_stays_after_a_kill() {
    ends_with(program("replica-set"), kill).await;
}

#[tokio::test]
async fn nothing_of_a_replica_set_stays_after_a_kill_without_docker() {
    ends_with(without_docker(program("replica-set")), kill).await;
}

#[tokio::test]
async fn nothing_of_a_replica_set_stays_after_its_shutdown() {
    for command in [
        program("replica-set"),
        without_docker(program("replica-set")),
    ] {
        let mut program = Program::start(command);
        let traces = program.traces().await;
        program.finish();
        assert!(!traces.any_left().await, "{traces:?}");
    }
}

async fn traces_of(server: &MongoServer) -> Traces {
    match server.source() {
        Source::Container { name, .. } => Traces::of_docker("name", name.clone()).await,
        _ => Traces::of_processes(server.uri()).await,
    }
}

#[tokio::test]
async fn nothing_stays_after_a_stop() {
    let server = MongoServer::start_dedicated(ServerOptions::new());
    let server = server.await.unwrap();
    let traces = traces_of(&server).await;
    server.stop().await.unwrap();
    assert!(!traces.any_left().await, "{traces:?}");
}

#[tokio::test]
async fn nothing_stays_after_a_stop_without_docker() {
    // With an argument, the program stops its server. Without one, it leaves that to the reaper.
    let mut program = Program::start(without_docker(program("--quiet")));
    let traces = program.traces().await;
    program.finish();
    assert!(!traces.any_left().await, "{traces:?}");
}

#[test]
fn nothing_stays_after_a_drop_outside_of_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, traces) = runtime.block_on(async {
        let server = MongoServer::start_dedicated(ServerOptions::new());
        let server = server.await.unwrap();
        let traces = traces_of(&server).await;
        (server, traces)
    });
    drop(server);
    assert!(!runtime.block_on(traces.any_left()), "{traces:?}");
}

/// A refused argument, with files already in the folder of the process.
#[tokio::test]
async fn nothing_stays_after_a_failed_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = without_docker(program("--invalid-option"));
    command.env("TMPDIR", folder.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("unrecognised option '--invalid-option'"),
        "{text}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
