//! Progress of a long command, on the standard error if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far it is, the messages a second, and the time left.
pub(crate) struct Progress {
    bar: ProgressBar,
    messages: u64,
}

impl Progress {
    /// `total` is what [`advance`](Self::advance) counts to, if that is known.
    pub(crate) fn new(total: Option<u64>) -> Self {
        // It draws nothing if the standard error is no terminal.
        let (bar, template) = match total {
            Some(total) => {
                let bar = ProgressBar::new(total);
                (bar, "{bar:30} {percent}%  {msg}, {eta} left")
            }
            None => (ProgressBar::no_length(), "{spinner} {msg}"),
        };
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.expect("the template is valid"));
        Self { bar, messages: 0 }
    }

    /// Counts `messages` more, which bring it to `position`.
    pub(crate) fn advance(&mut self, messages: u64, position: u64) {
        self.messages += messages;
        let seconds = self
            .bar
            .elapsed()
            .max(Duration::from_millis(1))
            .as_secs_f64();
        let rate = self.messages as f64 / seconds;
        self.bar
            .set_message(format!("{} messages, {rate:.0}/s", self.messages));
        self.bar.set_position(position);
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
