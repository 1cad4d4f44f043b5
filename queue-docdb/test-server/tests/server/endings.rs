//! However a process ends, its server ends too, and everything that belongs to it.

use std::process::Command;

use mongodb_test_server::MongoServer;

use crate::held::{Held, Traces, interruptible_program, program, without_docker};

/// Ends a process that holds a server, and expects the server's end.
async fn ends_with(command: &mut Command, end: fn(&mut Held)) {
    let mut held = Held::start(command);
    let traces = held.traces().await;
    end(&mut held);
    held.process.wait().expect("is our child");
    traces.vanish().await;
}

/// What Ctrl-C in a terminal does: to the whole process group.
fn interrupt(held: &mut Held) {
    let group = format!("-{}", held.process.id());
    let status = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(status.expect("there is a kill").success());
}

fn kill(held: &mut Held) {
    held.process.kill().expect("still runs");
}

#[tokio::test]
async fn returning_from_main() {
    ends_with(program().arg("leave"), Held::let_go).await;
}

#[tokio::test]
async fn returning_from_main_without_docker() {
    ends_with(without_docker(program().arg("leave")), Held::let_go).await;
}

#[tokio::test]
async fn panicking() {
    ends_with(program().arg("panic"), Held::let_go).await;
}

#[tokio::test]
async fn panicking_without_docker() {
    ends_with(without_docker(program().arg("panic")), Held::let_go).await;
}

#[tokio::test]
async fn being_killed() {
    ends_with(&mut program(), kill).await;
}

#[tokio::test]
async fn being_killed_without_docker() {
    ends_with(without_docker(&mut program()), kill).await;
}

#[tokio::test]
async fn being_interrupted() {
    ends_with(&mut interruptible_program(), interrupt).await;
}

#[tokio::test]
async fn being_interrupted_without_docker() {
    ends_with(without_docker(&mut interruptible_program()), interrupt).await;
}

#[tokio::test]
async fn stopping_without_docker() {
    let mut held = Held::start(without_docker(program().arg("stop")));
    let traces = held.traces().await;
    held.let_go();
    assert!(held.process.wait().expect("is our child").success());
    assert!(!traces.any_left().await, "{traces:?}");
}

#[tokio::test]
async fn stopping() {
    let server = MongoServer::start_dedicated(Default::default())
        .await
        .unwrap();
    let traces = Traces::of(server.uri(), &server.source().to_string()).await;
    server.stop().await.unwrap();
    assert!(!traces.any_left().await, "{traces:?}");
}

#[test]
fn dropping_where_there_is_no_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, traces) = runtime.block_on(async {
        let server = MongoServer::start_dedicated(Default::default())
            .await
            .unwrap();
        let traces = Traces::of(server.uri(), &server.source().to_string()).await;
        (server, traces)
    });
    drop(server);
    assert!(!runtime.block_on(traces.any_left()), "{traces:?}");
}
