//! Where in the source a panic was raised, so that a failure says more than an assertion does.
//!
//! A panic's payload holds its text alone. The hook that [`watch_panics`] installs notes the place
//! on the panicking thread, and [`caught`] picks it up there.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    panic::{self, AssertUnwindSafe, Location},
    pin::Pin,
    sync::Once,
    task::{Context, Poll},
};

use futures::FutureExt;

use crate::{checks, fixture};

thread_local! {
    /// The place in a check whose call is being polled.
    static CALLER: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
    /// The place of this thread's last panic.
    static RAISED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has every panic from now on noted with its place, on top of what becomes of it anyway.
pub(crate) fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            RAISED.set(info.location().map(place));
            before(info);
        }));
    });
}

/// The check's own line, and where it called something that panicked by itself, that as well.
fn place(raised: &Location) -> String {
    let caller = CALLER.get().unwrap_or(raised);
    let mut text = format!("at {caller}");
    for line in statement(caller) {
        text = format!("{text}\n    {line}");
    }
    if caller == raised || raised.file() == fixture::FILE {
        return text;
    }
    format!("{text}\nby a panic at {raised}")
}

/// The statement of a check that stands at `place`, for an assertion alone does not say what it
/// compares.
fn statement(place: &Location) -> Vec<&'static str> {
    const LONGEST: usize = 8;
    let source = checks::source(place.file()).unwrap_or_default();
    let lines = source.lines().skip(place.line() as usize - 1).take(LONGEST);
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

/// What a panic said, and where.
#[derive(Debug)]
pub(crate) struct Panic {
    message: String,
    place: Option<String>,
}

impl Panic {
    /// Of a panic that was caught on this thread just now.
    pub(crate) fn of(payload: Box<dyn Any + Send>) -> Self {
        let payload = match payload.downcast::<Self>() {
            Ok(resumed) => return *resumed,
            Err(payload) => payload,
        };
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&'static str>().copied());
        Self {
            message: text.unwrap_or("panicked").to_owned(),
            place: RAISED.take(),
        }
    }

    /// Goes on with it on this thread.
    pub(crate) fn resume(self) -> ! {
        panic::resume_unwind(Box::new(self))
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.place
            .iter()
            .try_for_each(|place| write!(f, "\n{place}"))
    }
}

/// Runs `part` to its end or its panic.
pub(crate) async fn caught<T>(part: impl Future<Output = T>) -> Result<T, Panic> {
    AssertUnwindSafe(part)
        .catch_unwind()
        .await
        .map_err(Panic::of)
}

/// Has a panic in `call` count as one of the place that this function's caller was called from.
///
/// An async function cannot know its caller, so those that are to are written as functions that
/// give a future, and wrap it in this.
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
        // The outermost is the check: those within it are how its call is made.
        CALLER.set(outer.or(Some(self.caller)));
        let _restored = Restore(outer);
        self.call.as_mut().poll(cx)
    }
}

/// Puts back what was there before, also when a panic passes by.
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
    async fn a_panic_tells_the_line_of_the_outermost_call() {
        watch_panics();
        let line = line!() + 1;
        let panic = caught(outer()).await.expect_err("it panics");
        let told = panic.to_string();
        let here = format!("no\nat {}:{line}:", file!());
        assert!(told.starts_with(&here), "{told}");
        assert!(told.contains("\nby a panic at"), "{told}");
    }

    #[tokio::test]
    async fn a_panic_that_is_resumed_keeps_its_place() {
        watch_panics();
        let first = caught(outer()).await.expect_err("it panics");
        let told = first.to_string();
        let again: Result<(), _> = caught(async { first.resume() }).await;
        let again = again.expect_err("it panics again");
        assert_eq!(again.to_string(), told);
    }

    #[test]
    fn the_statement_of_a_check_is_quoted() {
        let (file, source) = ("settle.rs", include_str!("checks/settle.rs"));
        let quoted = "assert_eq!(fixture.ack(&first.receipt).await, Lost);";
        let known = checks::source(&file!().replace("place.rs", &format!("checks/{file}")));
        assert_eq!(known, Some(source));
        assert!(source.contains(quoted));
        assert_eq!(checks::source("elsewhere/src/checks/settle.rs"), None);
    }
}
