//! The source location of a panic, and the statement of the check that stands there.
//!
//! A panic's payload holds only its text. The hook that [`watch_panics`] installs keeps the
//! location on the panicking thread, and [`caught`] reads it there.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    panic::{self, AssertUnwindSafe, Location},
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use futures::FutureExt;

thread_local! {
    /// The line of a check whose call is being polled.
    static CALLER: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
    /// The line of a check whose call was polled last, also after it ended.
    static LAST_CALL: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
    /// The location of this thread's last panic, as text.
    static RAISED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The text of a file of checks, by its name. A failure quotes it: an assertion alone does not say
/// what it compares.
pub(crate) type Source = fn(&str) -> Option<&'static str>;

static SOURCE: OnceLock<Source> = OnceLock::new();

/// Keeps the location of every panic from now on. The hook that was there before still runs.
pub(crate) fn watch_panics(source: Source) {
    SOURCE.get_or_init(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            RAISED.set(info.location().map(describe));
            before(info);
        }));
        source
    });
}

/// Forgets the calls that were polled on this thread.
pub(crate) fn forget_last_call() {
    LAST_CALL.set(None);
}

/// The line and the statement of the last call that was polled on this thread, if there is one. Calls
/// of tasks are polled on others.
pub(crate) fn last_call() -> Option<String> {
    LAST_CALL.get().map(quote)
}

/// The location, and the statement there if it is in a check.
fn quote(location: &Location) -> String {
    let mut text = format!("at {location}");
    for line in statement(location) {
        text = format!("{text}\n    {line}");
    }
    text
}

/// The check's own line, and the location of the panic if that is in the backend.
fn describe(raised: &Location) -> String {
    let caller = CALLER.get().unwrap_or(raised);
    let text = quote(caller);
    if caller == raised || raised.file() == format!("{}fixture.rs", folder()) {
        return text;
    }
    format!("{text}\nby a panic at {raised}")
}

/// The folder of this file, as panics name it.
fn folder() -> &'static str {
    file!().trim_end_matches("panic_location.rs")
}

/// The name of a file of checks, such as `settle.rs`.
fn name_of(file: &str) -> Option<&str> {
    file.strip_prefix(folder())?.strip_prefix("checks/")
}

/// The statement of a check at `location`.
fn statement(location: &Location) -> Vec<&'static str> {
    const LONGEST: usize = 8;
    let source = SOURCE.get().zip(name_of(location.file()));
    let source = source.and_then(|(source, name)| source(name));
    let source = source.unwrap_or_default();
    let lines = source
        .lines()
        .skip(location.line() as usize - 1)
        .take(LONGEST);
    let lines: Vec<_> = lines.collect();
    let indent = lines
        .first()
        .map_or(0, |line| line.len() - line.trim_start().len());
    let end = lines.iter().position(|line| line.ends_with(';'));
    let shown = lines.iter().take(end.map_or(1, |end| end + 1));
    shown
        .map(|line| line.get(indent..).unwrap_or(line.trim_start()))
        .collect()
}

/// The message and the location of a panic.
#[derive(Debug)]
pub(crate) struct Panic {
    message: String,
    location: Option<String>,
}

impl Panic {
    /// The panic that was just caught on this thread.
    pub(crate) fn of(payload: Box<dyn Any + Send>) -> Self {
        let payload = match payload.downcast::<Self>() {
            Ok(resumed) => return *resumed,
            Err(payload) => payload,
        };
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&'static str>().copied());
        Self {
            message: text.unwrap_or("panicked").to_owned(),
            location: RAISED.take(),
        }
    }

    /// Continues the panic on this thread.
    pub(crate) fn resume(self) -> ! {
        panic::resume_unwind(Box::new(self))
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.location {
            Some(location) => write!(f, "\n{location}"),
            None => Ok(()),
        }
    }
}

/// Runs `part` until it ends or panics.
pub(crate) async fn caught<T>(part: impl Future<Output = T>) -> Result<T, Panic> {
    AssertUnwindSafe(part)
        .catch_unwind()
        .await
        .map_err(Panic::of)
}

/// Reports a panic in `call` at the line that called this function's caller.
///
/// `#[track_caller]` does not work on async functions. So the functions of the fixture are plain
/// functions that return a future wrapped in this.
#[track_caller]
pub(crate) fn called_from_here<F: Future>(call: F) -> CalledFrom<F> {
    CalledFrom {
        call: Box::pin(call),
        caller: Location::caller(),
    }
}

pub(crate) struct CalledFrom<F> {
    call: Pin<Box<F>>,
    caller: &'static Location<'static>,
}

impl<F: Future> Future for CalledFrom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let outer = CALLER.get();
        // The outermost caller is the check; the others are functions of the fixture.
        CALLER.set(outer.or(Some(self.caller)));
        LAST_CALL.set(CALLER.get());
        let _restored = Restore(outer);
        self.call.as_mut().poll(cx)
    }
}

/// Restores the caller, also after a panic.
struct Restore(Option<&'static Location<'static>>);

impl Drop for Restore {
    fn drop(&mut self) {
        CALLER.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn inner() -> impl Future<Output = ()> {
        called_from_here(async { panic!("no") })
    }

    #[track_caller]
    fn outer() -> impl Future<Output = ()> {
        called_from_here(async { inner().await })
    }

    #[tokio::test]
    async fn a_panic_names_the_line_of_the_outermost_call() {
        watch_panics(|_| None);
        let line = line!() + 1;
        let panic = caught(outer()).await.expect_err("it panics");
        let text = panic.to_string();
        let here = format!("no\nat {}:{line}:", file!());
        assert!(text.starts_with(&here), "{text}");
        assert!(text.contains("\nby a panic at"), "{text}");
    }

    #[tokio::test]
    async fn a_resumed_panic_keeps_its_location() {
        watch_panics(|_| None);
        let first = caught(outer()).await.expect_err("it panics");
        let text = first.to_string();
        let again: Result<(), _> = caught(async { first.resume() }).await;
        let again = again.expect_err("it panics again");
        assert_eq!(again.to_string(), text);
    }
}
