//! `top`: the queues, live. `update` changes the state, `draw` shows it, and `poll` asks the database.

mod details;
mod draw;
mod draw_queue;
mod meter;
mod poll;
mod state;
mod svg;
#[cfg(test)]
mod tests;
mod update;

use std::{
    fs,
    io::{IsTerminal, stdin, stdout},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueHint};
use queue_api::{Admin, Purge, QueueName, Redrive};
use ratatui::{Terminal, backend::TestBackend, crossterm};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval},
};

use self::{
    draw::{FRAME_LINES, draw},
    meter::{LARGEST_LOOK, Meter},
    poll::Poller,
    state::{Action, App, Wanted},
    update::{Effect, Event, update},
};
use crate::{
    cli::ConnectArgs,
    connect::{Connection, Settings},
    failure::{Exit, Failure, Result},
    output::count,
    stop::Stop,
};

/// The screen of a snapshot: what every terminal has.
const SNAPSHOT: (u16, u16) = (80, 24);

/// Looks at each queue of a snapshot, so that it has a change, and how long they may take.
const SNAPSHOT_LOOKS: usize = 12;
const SNAPSHOT_TIME: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct TopArgs {
    /// The most commands to send to the database in a second, whatever the number of queues.
    ///
    /// A look at a queue takes six. The queues on the screen come first.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    commands: u16,
    /// Write the screen into an SVG file, and end.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    snapshot: Option<PathBuf>,
}

pub(crate) async fn run(connect: ConnectArgs, args: TopArgs) -> Result<()> {
    let budget = usize::from(args.commands);
    if budget < LARGEST_LOOK {
        let text = format!("--commands is {budget}; it must be at least {LARGEST_LOOK}");
        return Err(Failure::usage(text));
    }
    if args.snapshot.is_none() && !(stdout().is_terminal() && stdin().is_terminal()) {
        let text = "top needs a terminal; for a file, use `queuectl stats --watch` or --snapshot";
        return Err(Failure::usage(text));
    }
    let settings = Settings::of(connect)?;
    let meter = Meter::new(budget);
    let builder = settings.builder().command_event_handler(meter.handler());
    let connection = Arc::new(Connection::new(builder.connect().await?, &settings));
    let top = Top::new(connection, meter);
    match args.snapshot {
        Some(file) => top.snapshot(file).await,
        None => top.live().await,
    }
}

struct Top {
    connection: Arc<Connection>,
    meter: Arc<Meter>,
    app: App,
    wanted: watch::Sender<Wanted>,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    /// Queues that an action has changed, for the poller.
    changed: mpsc::UnboundedSender<QueueName>,
}

impl Top {
    fn new(connection: Arc<Connection>, meter: Arc<Meter>) -> Self {
        let (wanted, to_poller) = watch::channel(Wanted::default());
        let (events, inbox) = mpsc::channel(64);
        let (changed, to_recheck) = mpsc::unbounded_channel();
        let poller = Poller::new(
            Arc::clone(&connection),
            Arc::clone(&meter),
            to_poller,
            events.clone(),
            to_recheck,
        );
        tokio::spawn(poller.run());
        Self {
            app: App::new(connection.place.clone(), meter.budget),
            connection,
            meter,
            wanted,
            events,
            inbox,
            changed,
        }
    }

    async fn live(mut self) -> Result<()> {
        let mut stop = Stop::listen()?;
        let mut terminal = ratatui::try_init().map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot use the terminal: {error}"))
        })?;
        read_keys(self.events.clone());
        // Of the meter and of ages.
        let mut ticks = interval(Duration::from_secs(1));
        let ended = loop {
            let drawn = terminal.draw(|frame| {
                self.prepare(frame.area().height);
                draw(&self.app, frame);
            });
            if let Err(error) = drawn {
                break Err(error.into());
            }
            let event = tokio::select! {
                event = self.inbox.recv() => event,
                _ = ticks.tick() => None,
                exit = stop.wait() => break Err(Failure::new(exit, "")),
            };
            // All that came at the same time is one picture.
            let mut next = event;
            let mut is_over = false;
            while let Some(event) = next {
                is_over |= self.handle(event);
                next = self.inbox.try_recv().ok();
            }
            if is_over {
                break Ok(());
            }
        };
        ratatui::restore();
        ended
    }

    /// What the state needs to know before it is drawn.
    fn prepare(&mut self, height: u16) {
        self.app.height = usize::from(height.saturating_sub(FRAME_LINES)).max(1);
        self.app.commands.0 = self.meter.in_last_second(Instant::now());
        update(&mut self.app, Event::Resized);
        let wanted = self.app.wanted();
        self.wanted.send_if_modified(|old| {
            let is_new = *old != wanted;
            *old = wanted;
            is_new
        });
    }

    /// Whether it was the last one.
    fn handle(&mut self, event: Event) -> bool {
        match update(&mut self.app, event) {
            Some(Effect::Quit) => return true,
            Some(Effect::Act(action)) => {
                self.app.notice = Some("…".to_owned());
                let (admin, events) = (self.connection.admin.clone(), self.events.clone());
                let changed = self.changed.clone();
                tokio::spawn(async move {
                    let said = act(&admin, &action).await;
                    let said = said.unwrap_or_else(|error| format!("failed: {error:#}"));
                    // Both may be closed, at the end.
                    let _ = changed.send(action.queue().clone());
                    let _ = events.send(Event::Done(said)).await;
                });
            }
            None => {}
        }
        false
    }

    async fn snapshot(mut self, file: PathBuf) -> Result<()> {
        let (width, height) = SNAPSHOT;
        let began = Instant::now();
        loop {
            self.prepare(height);
            let is_complete = self.app.is_listed
                && self.app.wanted().visible.iter().all(|queue| {
                    let line = self.app.queues.get(queue);
                    line.is_some_and(|line| line.depths(SNAPSHOT_LOOKS).len() == SNAPSHOT_LOOKS)
                });
            if is_complete || began.elapsed() > SNAPSHOT_TIME {
                break;
            }
            if let Some(event) = self.inbox.recv().await {
                self.handle(event);
            }
            if let Some(why) = self.app.lost {
                return Err(Failure::new(Exit::Unreachable, why));
            }
        }
        let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
        let Ok(_) = terminal.draw(|frame| draw(&self.app, frame));
        let picture = svg::svg(terminal.backend().buffer());
        fs::write(&file, picture).map_err(|error| {
            let text = format!("cannot write {}: {error}", file.display());
            Failure::new(Exit::Failed, text)
        })
    }
}

/// A thread, because reading blocks. It ends with the program.
fn read_keys(events: mpsc::Sender<Event>) {
    std::thread::spawn(move || {
        while let Ok(event) = crossterm::event::read() {
            let event = match event {
                crossterm::event::Event::Key(key) => Event::Key(key),
                crossterm::event::Event::Resize(..) => Event::Resized,
                _ => continue,
            };
            if events.blocking_send(event).is_err() {
                return;
            }
        }
    });
}

/// Does it, and says what it did.
async fn act(admin: &Admin, action: &Action) -> queue_api::Result<String> {
    let queue = action.queue();
    Ok(match action {
        Action::Redrive(_) => {
            let redriven = admin.redrive(queue, &Redrive::All).await?;
            format!(
                "redrove {} of queue {queue}",
                count(redriven, "dead letter")
            )
        }
        Action::PurgeLive(_) => {
            let removed = admin.purge(queue, Purge::Live).await?;
            format!(
                "removed {} of queue {queue}",
                count(removed, "live message")
            )
        }
        Action::PurgeDead(_) => {
            let removed = admin.purge(queue, Purge::Dead).await?;
            format!("removed {} of queue {queue}", count(removed, "dead letter"))
        }
        Action::Delete(_) => {
            admin.delete_queue(queue).await?;
            format!("deleted queue {queue}")
        }
    })
}
