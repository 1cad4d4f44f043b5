//! A moment in the life of a command in which others act.

use std::sync::{Arc, Mutex, mpsc};

/// Where handlers of command events stop when they are told.
///
/// They hold a thread meanwhile, so a test needs a runtime with several.
#[derive(Clone, Default)]
pub(crate) struct Pause(Arc<Mutex<Option<Stop>>>);

struct Stop {
    reached: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

/// Whoever has stopped, or is about to.
pub(crate) struct Stopped {
    is_reached: Option<mpsc::Receiver<()>>,
    tell: mpsc::Sender<()>,
}

impl Pause {
    /// Stops the next one who comes by.
    pub(crate) fn next(&self) -> Stopped {
        let (reached, is_reached) = mpsc::channel();
        let (tell, go_on) = mpsc::channel();
        *self.0.lock().unwrap() = Some(Stop { reached, go_on });
        Stopped {
            is_reached: Some(is_reached),
            tell,
        }
    }

    pub(crate) fn come_by(&self) {
        let stop = self.0.lock().unwrap().take();
        if let Some(Stop { reached, go_on }) = stop {
            reached.send(()).expect("somebody waits for this");
            // A worker that just blocked would keep the runtime's timers and sockets to itself.
            tokio::task::block_in_place(|| go_on.recv().expect("somebody says so"));
        }
    }
}

impl Stopped {
    /// Returns when somebody has come by.
    pub(crate) async fn reached(&mut self) {
        let is_reached = self.is_reached.take().expect("it is reached once");
        let waiting = tokio::task::spawn_blocking(move || is_reached.recv().unwrap());
        waiting.await.unwrap();
    }

    pub(crate) fn go_on(self) {
        self.tell.send(()).expect("somebody has stopped");
    }
}
