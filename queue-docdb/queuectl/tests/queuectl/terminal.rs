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

use crate::fixture::{Done, Fixture, SECRET, bare, message, pause};

tests! {
    a_password_is_asked_for_and_not_shown,
    only_a_yes_destroys,
    progress_is_for_terminals,
    colours_are_for_terminals_that_want_them,
}

/// Runs the program on a terminal, and types the answer when the question stands there. Returns the
/// end, and what the terminal showed.
async fn converse(command: &mut Command, question: &str, answer: &str) -> (Done, String) {
    let (done, shown, is_answered) = on_terminal(command, Some((question, answer))).await;
    assert!(is_answered, "{shown}");
    (done, shown)
}

async fn on_terminal(
    command: &mut Command,
    mut question: Option<(&str, &str)>,
) -> (Done, String, bool) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&controller).expect("granted");
    unlockpt(&controller).expect("unlocked");
    let name = ptsname(&controller, Vec::new()).expect("a name");
    let name = name.to_str().expect("UTF-8").to_owned();
    let open = || -> Stdio {
        let file = OpenOptions::new().read(true).write(true).open(&name);
        file.expect("the terminal opens").into()
    };
    command.env("TERM", "xterm");
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
        let is_asked =
            |(question, _): &mut (&str, &str)| String::from_utf8_lossy(&shown).contains(*question);
        if let Some((_, answer)) = question.take_if(is_asked) {
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
    assert!(!shown.contains(SECRET), "{shown}");
    done.has_no_secret();
    (done, shown, is_answered)
}

async fn a_password_is_asked_for_and_not_shown() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let mut command = fixture.command(&["queues", "--interval=0s"]);
    command.env_remove("QUEUECTL_PASSWORD_FILE");
    let (done, _) = converse(&mut command, "Password of ada", &format!("{SECRET}\n")).await;
    assert!(done.succeeds().out.contains("mail"));
    // The end of the input, as Ctrl-D makes it.
    let mut command = fixture.command(&["queues"]);
    command.env_remove("QUEUECTL_PASSWORD_FILE");
    let (done, shown) = converse(&mut command, "Password of ada", "\u{4}").await;
    assert!(done.code == 2 && shown.contains("it is empty"), "{shown}");
}

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

async fn progress_is_for_terminals() {
    let fixture = Fixture::new().await;
    fixture.folder_file("lines", "a line\n".repeat(5000));
    let args = ["enqueue", "q", "--create", "lines"];
    let (done, shown, _) = on_terminal(&mut fixture.command(&args), None).await;
    assert_eq!(done.succeeds().out, "enqueued 5000 messages into queue q\n");
    for part in ["messages, ", "/s, ", " left", "%"] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    let done = fixture.run(&args).succeeds();
    assert_eq!(done.err, "");
}

async fn colours_are_for_terminals_that_want_them() {
    let mistake = || bare(&["quues"]);
    let (done, shown, _) = on_terminal(&mut mistake(), None).await;
    assert!(done.code == 2 && shown.contains("\x1b[31m"), "{shown}");
    let (_, shown, _) = on_terminal(mistake().env("NO_COLOR", "1"), None).await;
    assert!(
        shown.contains("quues") && !shown.contains("\x1b[31m"),
        "{shown}"
    );
    let piped = Done::of(mistake().env("TERM", "xterm"));
    assert!(!piped.err.contains('\x1b'), "{}", piped.err);
}
