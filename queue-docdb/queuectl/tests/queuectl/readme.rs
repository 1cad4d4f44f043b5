//! The examples of the README: each command prints what stands below it.

use std::{path::Path, process::Command};

use crate::fixture::{Done, Fixture};

tests! {
    every_example_prints_what_it_says,
}

const README: &str = include_str!("../../README.md");

/// Commands, each with the lines below it.
fn examples() -> Vec<(String, Vec<String>)> {
    let mut examples: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_console = false;
    for line in README.lines() {
        match (line, line.strip_prefix("$ "), examples.last_mut()) {
            ("```console", ..) => is_console = true,
            ("```", ..) => is_console = false,
            (_, Some(command), _) if is_console => examples.push((command.to_owned(), Vec::new())),
            (_, None, Some((_, output))) if is_console => output.push(line.to_owned()),
            _ => {}
        }
    }
    examples
}

/// Whether a line has the words of the pattern. `…` stands for one or more words.
fn fits(pattern: &[&str], words: &[&str]) -> bool {
    match pattern {
        [] => words.is_empty(),
        ["…", rest @ ..] => (1..=words.len()).any(|count| fits(rest, &words[count..])),
        [first, rest @ ..] => words.first() == Some(first) && fits(rest, &words[1..]),
    }
}

async fn every_example_prints_what_it_says() {
    let fixture = Fixture::new().await;
    let program = Path::new(env!("CARGO_BIN_EXE_queuectl"));
    let folder = program.parent().expect("a folder");
    let examples = examples();
    assert!(examples.len() > 10, "{examples:?}");
    for (command, expected) in examples {
        let mut shell = Command::new("sh");
        let with_settings = fixture.command(&[]);
        let settings = with_settings
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        shell
            .args(["-c", &command])
            .current_dir(fixture.folder.path())
            .env_clear();
        shell
            .envs(settings)
            .env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
        let done = Done::of(shell.stdin(std::process::Stdio::null()));
        let shown = format!("{}{}", done.out, done.err);
        let is_same = shown.lines().count() == expected.len()
            && shown.lines().zip(&expected).all(|(line, pattern)| {
                let line: Vec<_> = line.split_whitespace().collect();
                let pattern: Vec<_> = pattern.split_whitespace().collect();
                fits(&pattern, &line)
            });
        assert!(
            is_same,
            "$ {command}\n{shown}\nbut the README has\n{}",
            expected.join("\n")
        );
    }
}
