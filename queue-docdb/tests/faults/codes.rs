//! The error codes of servers, as `error_codes.txt` lists them.

/// Each code, and the kind of the public error.
fn table() -> impl Iterator<Item = (i32, &'static str)> {
    let lines = include_str!("../../src/store/error_codes.txt").lines();
    let rows = lines.filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let mut words = line.split(' ');
        let code = words.next().and_then(|code| code.parse().ok());
        (code.expect(line), words.nth(1).expect(line))
    })
}

pub(crate) fn all() -> Vec<i32> {
    table().map(|(code, _)| code).collect()
}

/// Whether it passes without an operator.
pub(crate) fn passes(code: i32) -> bool {
    // Out of memory, and out of disk space.
    ![146, 14031].contains(&code)
}

/// Whether a call with this code may be repeated.
pub(crate) fn is_retryable(code: i32) -> bool {
    let kind = table().find(|(listed, _)| *listed == code);
    kind.is_some_and(|(_, kind)| ["Unavailable", "TimedOut"].contains(&kind))
}
