//! Shrinks a failing history further than proptest, which tries to remove each step only once.

use super::command::Command;

/// Removes single steps and parts until none can go, and returns what is left and why it fails.
/// `fails` plays a history and returns `None` if it passes.
pub(super) fn smallest(
    mut commands: Vec<Command>,
    mut why: String,
    mut fails: impl FnMut(&[Command]) -> Option<String>,
) -> (Vec<Command>, String) {
    let mut smaller = |commands: &[Command]| {
        let mut candidates = one_less(commands).into_iter();
        candidates.find_map(|fewer| fails(&fewer).map(|why| (fewer, why)))
    };
    while let Some(next) = smaller(&commands) {
        (commands, why) = next;
    }
    (commands, why)
}

/// Every history with one step or one part of a batch less, or with two passes of time joined.
fn one_less(commands: &[Command]) -> Vec<Vec<Command>> {
    let mut smaller = Vec::new();
    for (n, command) in commands.iter().enumerate() {
        let with = |replaced: usize, by: Option<Command>| {
            let (before, after) = (&commands[..n], &commands[n + replaced..]);
            let by = by.into_iter();
            before
                .iter()
                .cloned()
                .chain(by)
                .chain(after.iter().cloned())
                .collect()
        };
        smaller.push(with(1, None));
        if let (Command::Pass(one), Some(Command::Pass(other))) = (command, commands.get(n + 1)) {
            smaller.push(with(2, Some(Command::Pass(one + other))));
        }
        for part in 0..parts(command) {
            smaller.push(with(1, Some(without(command, part))));
        }
    }
    smaller
}

/// The number of parts of a batch. 0 if it has only one, which cannot be removed.
fn parts(command: &Command) -> usize {
    let parts = match command {
        Command::Enqueue { messages, .. } => messages.len(),
        Command::Ack { picks, .. } => picks.len(),
        Command::Change { changes, .. } => changes.len(),
        _ => 0,
    };
    if parts > 1 { parts } else { 0 }
}

fn without(command: &Command, part: usize) -> Command {
    let mut command = command.clone();
    match &mut command {
        Command::Enqueue { messages, .. } => drop(messages.remove(part)),
        Command::Ack { picks, .. } => drop(picks.remove(part)),
        Command::Change { changes, .. } => drop(changes.remove(part)),
        _ => unreachable!("the command has no parts"),
    }
    command
}

#[cfg(test)]
mod tests {
    use super::{super::command::MessageSpec, *};

    fn enqueue(ids: &[usize]) -> Command {
        let message_spec = |id: &usize| MessageSpec {
            id: *id,
            payload: 0,
            delay: 0,
            visibility: 5,
            max_attempts: 3,
        };
        Command::Enqueue {
            queue: 0,
            messages: ids.iter().map(message_spec).collect(),
        }
    }

    fn time(commands: &[Command]) -> u64 {
        let passes = commands.iter().map(|command| match command {
            Command::Pass(millis) => *millis,
            _ => 0,
        });
        passes.sum()
    }

    #[test]
    fn a_step_is_removed_even_if_it_was_needed_at_first() {
        let history = vec![
            enqueue(&[1, 2, 1]),
            Command::Pass(5),
            Command::Reconnect,
            Command::Pass(5),
            Command::Reconnect,
            enqueue(&[1]),
        ];
        // It fails if the id is 2 and 10 ms pass. Without the last enqueue it fails only if there
        // is no reconnect either.
        let fails = |commands: &[Command]| {
            let text = format!("{commands:?}");
            let kept = text.contains("id: 2") && time(commands) == 10;
            let ends = matches!(commands.last(), Some(Command::Enqueue { .. }));
            let fails = kept && (ends || !text.contains("Reconnect"));
            fails.then(|| format!("{} steps", commands.len()))
        };
        let (left, why) = smallest(history, "6 steps".to_owned(), fails);
        let expected = vec![enqueue(&[2]), Command::Pass(10)];
        assert_eq!(format!("{left:?}"), format!("{expected:?}"));
        assert_eq!(why, "2 steps");
    }
}
