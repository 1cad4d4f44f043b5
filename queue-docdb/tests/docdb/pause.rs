//! Stops a backend at a command, while the test does something else.

use std::sync::{Arc, Mutex, mpsc};

/// A point at which a handler of command events stops if the test asks for it.
///
/// A stopped handler blocks a thread, so the test needs a runtime with several.
#[derive(Clone, Default)]
pub(crate) struct Pause(Arc<Mutex<Option<Stop>>>);

struct Stop {
    reached: mpsc::Sender<()>,
    resume: mpsc::Receiver<()>,
}

/// The test's side of a stop.
pub(crate) struct Stopped {
    reached: Option<mpsc::Receiver<()>>,
    resume: mpsc::Sender<()>,
}

impl Pause {
    /// Stops the next handler that calls [`stop`](Self::stop).
    pub(crate) fn next(&self) -> Stopped {
        let (is_reached, reached) = mpsc::channel();
        let (resume, is_resumed) = mpsc::channel();
        *self.0.lock().unwrap() = Some(Stop {
            reached: is_reached,
            resume: is_resumed,
        });
        Stopped {
            reached: Some(reached),
            resume,
        }
    }

    /// Called by a handler: stops here if the test asked for it.
    pub(crate) fn stop(&self) {
        let stop = self.0.lock().unwrap().take();
        if let Some(Stop { reached, resume }) = stop {
            reached.send(()).expect("the test waits");
            // A plain block would also stop the runtime's timers and sockets.
            tokio::task::block_in_place(|| resume.recv().expect("the test resumes"));
        }
    }
}

impl Stopped {
    /// Returns when a handler has stopped.
    pub(crate) async fn reached(&mut self) {
        let reached = self.reached.take().expect("called once");
        let waiting = tokio::task::spawn_blocking(move || reached.recv().unwrap());
        waiting.await.unwrap();
    }

    pub(crate) fn resume(self) {
        self.resume.send(()).expect("a handler has stopped");
    }
}
