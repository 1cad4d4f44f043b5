//! The command line itself: help, completions, manual, and mistakes.

use std::fs;

use crate::fixture::{Done, bare};

tests! {
    completions_and_manual_need_no_database,
    a_wrong_command_line_is_an_error_of_usage,
    help_shows_no_value_of_the_environment,
}

fn run(args: &[&str]) -> Done {
    Done::of(&mut bare(args))
}

async fn completions_and_manual_need_no_database() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).succeeds().out;
        assert!(
            script.contains("queuectl") && script.contains("purge"),
            "{shell}"
        );
    }
    let page = run(&["man"]).succeeds().out;
    assert!(
        page.starts_with(".ie") && page.contains("Exit codes"),
        "{page}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("man1");
    run(&["man", "--dir", path.to_str().expect("UTF-8")]).succeeds();
    let pages = fs::read_dir(path).expect("the folder").count();
    assert!(pages > 5, "{pages}");
}

async fn a_wrong_command_line_is_an_error_of_usage() {
    run(&[]).fails(2, &["Usage: queuectl"]);
    run(&["quues"]).fails(2, &["unrecognized subcommand 'quues'", "queues"]);
    run(&["peek"]).fails(2, &["<QUEUE>"]);
    run(&["peek", "no name"]).fails(2, &["\"no name\" is not a queue name"]);
    run(&["queues", "--interval", "30"]).fails(2, &["\"30\" is not a duration", "500ms"]);
    run(&["queues", "--output", "xml"]).fails(2, &["table", "json"]);
    for (args, least) in [
        (&["queues", "--timeout=0s"][..], "1ms"),
        (&["enqueue", "q", "--visibility-timeout=0s"], "1ms"),
        (&["stats", "q", "--watch=0s"], "1ms"),
        (&["dead", "list", "q", "--limit=0"], "at least 1"),
        (&["move", "a", "b", "--max=0"], "at least 1"),
        (&["bench", "--batch=1,0"], "at least 1"),
        (&["bench", "--batch=1,x"], "whole number"),
    ] {
        let flag = args
            .last()
            .and_then(|it| it.split('=').next())
            .expect("a flag");
        run(args).fails(2, &[flag, least]);
    }
    run(&["stats", "q", "1s"]).fails(2, &["--watch"]);
    run(&["stats", "q", "--watch", "1s"]).fails(2, &["there is no URI"]);
    run(&["queues", "--timeout", "soon"]).fails(2, &["\"soon\" is not a duration"]);
}

async fn help_shows_no_value_of_the_environment() {
    let secret = "mongodb://ada:pw-of-the-environment@host";
    let done = Done::of(bare(&["--help"]).env("QUEUECTL_URI", secret)).succeeds();
    assert!(done.out.contains("QUEUECTL_URI"));
    assert!(!done.out.contains("pw-of-the-environment"), "{}", done.out);
    let wrong = Done::of(bare(&["peek"]).env("QUEUECTL_URI", "mongodb://host"));
    let wrong = wrong.fails(2, &["Usage: queuectl peek [OPTIONS] <QUEUE>"]);
    assert!(!wrong.err.contains("--uri"), "{}", wrong.err);
}
