//! On a terminal: questions, and a password that is not shown.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    process::{Command, Stdio},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

use crate::fixture::{Done, Fixture, SECRET, message, pause};

/// Runs the program on a terminal, and types `answer` when `question` stands there. Returns the end,
/// and what the terminal showed.
async fn converse(command: &mut Command, question: &str, answer: &str) -> (Done, String) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&controller).expect("granted");
    unlockpt(&controller).expect("unlocked");
    let name = ptsname(&controller, Vec::new()).expect("a name");
    let name = name.to_str().expect("UTF-8").to_owned();
    let open = || -> Stdio {
        let file = OpenOptions::new().read(true).write(true).open(&name);
        file.expect("the terminal opens").into()
    };
    let piped = command.stdin(open()).stderr(open()).stdout(Stdio::piped());
    let program = piped.spawn().expect("it starts");
    // The command holds the terminal open, and the end would not be seen.
    command.stdin(Stdio::null()).stderr(Stdio::null());

    let mut terminal = File::from(controller);
    let mut shown = Vec::new();
    let mut is_answered = false;
    let mut buffer = [0; 1024];
    // At the end, Linux reports an error.
    while let Ok(read @ 1..) = terminal.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..read]);
        if !is_answered && String::from_utf8_lossy(&shown).contains(question) {
            // What is typed before the program listens is dropped.
            let echoes = || {
                let modes = tcgetattr(&terminal).expect("the modes").local_modes;
                modes.contains(LocalModes::ECHO)
            };
            while echoes() {
                pause().await;
            }
            terminal.write_all(answer.as_bytes()).expect("typed");
            is_answered = true;
        }
    }
    let done = Done::from(program.wait_with_output().expect("it ends"));
    let shown = String::from_utf8(shown).expect("UTF-8");
    assert!(is_answered, "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    done.has_no_secret();
    (done, shown)
}

#[tokio::test]
async fn a_password_is_asked_for_and_not_shown() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let mut command = fixture.command(&["queues", "--look=0s"]);
    command.env_remove("QUEUECTL_PASSWORD_FILE");
    let (done, _) = converse(&mut command, "Password of ada", &format!("{SECRET}\n")).await;
    assert!(done.succeeds().out.contains("mail"));
}

#[tokio::test]
async fn only_a_yes_destroys() {
    let fixture = Fixture::new().await;
    fixture.store_dead("mail", message("x"), "broken").await;
    fixture.store("mail", &["a", "b"]).await;
    let question = "This will delete queue mail with 2 live messages and 1 dead letter. Go on?";
    for answer in ["n", "\n"] {
        let mut command = fixture.command(&["delete", "mail"]);
        let (done, shown) = converse(&mut command, question, answer).await;
        assert_eq!(done.code, 6);
        assert!(shown.contains("nothing was changed"), "{shown}");
    }
    assert_eq!(fixture.admin().stats("mail").await.expect("stats").ready, 2);
    let (done, _) = converse(&mut fixture.command(&["delete", "mail"]), question, "y").await;
    done.succeeds();
    assert_eq!(fixture.admin().list_queues().await.expect("a list"), []);
}
