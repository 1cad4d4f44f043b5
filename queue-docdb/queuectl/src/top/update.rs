//! How keys and answers change the state.

use std::collections::BTreeSet;

use queue_api::{QueueName, QueueStats};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::time::Instant;

use super::state::{Action, App, Details, Open};

pub(super) enum Event {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// These queues exist.
    Names(BTreeSet<QueueName>),
    /// All collections have been looked into.
    Listed,
    Stats(QueueName, Instant, QueueStats),
    Details(QueueName, Details),
    /// A look at one queue failed.
    Unreadable(QueueName, String),
    /// No answer, or one again.
    Lost(String),
    Found,
    /// An action ended, with what to say.
    Done(String),
}

/// What the state cannot do itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    Act(Action),
}

pub(super) fn update(app: &mut App, event: Event) -> Option<Effect> {
    let effect = match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => on_key(app, key),
        Event::Key(_) | Event::Resized => None,
        Event::Names(names) => {
            app.queues.retain(|name, _| names.contains(name));
            for name in names {
                app.queues.entry(name).or_default();
            }
            None
        }
        Event::Listed => {
            app.is_listed = true;
            None
        }
        Event::Stats(queue, at, stats) => {
            if let Some(line) = app.queues.get_mut(&queue) {
                line.add(at, stats);
            }
            None
        }
        Event::Details(queue, details) => {
            if let Some(open) = app.open.as_mut().filter(|open| open.queue == queue) {
                open.details = Some(details);
            }
            None
        }
        Event::Unreadable(queue, why) => {
            if let Some(line) = app.queues.get_mut(&queue) {
                line.error = Some(why);
            }
            None
        }
        Event::Lost(why) => {
            app.lost = Some(why);
            None
        }
        Event::Found => {
            app.lost = None;
            None
        }
        Event::Done(text) => {
            app.notice = Some(text);
            None
        }
    };
    scroll(app);
    effect
}

fn on_key(app: &mut App, key: KeyEvent) -> Option<Effect> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Effect::Quit);
    }
    if let Some(action) = app.question.take() {
        return match key.code {
            KeyCode::Char('y') => Some(Effect::Act(action)),
            _ => {
                app.notice = Some("nothing was changed".to_owned());
                None
            }
        };
    }
    if app.is_filtering {
        match key.code {
            KeyCode::Char(c) => app.filter.push(c),
            KeyCode::Backspace => drop(app.filter.pop()),
            KeyCode::Esc => {
                app.filter.clear();
                app.is_filtering = false;
            }
            KeyCode::Enter => app.is_filtering = false,
            _ => {}
        }
        return None;
    }
    app.notice = None;
    let queue = current(app);
    let ask = |action: fn(QueueName) -> Action| queue.clone().map(action);
    match key.code {
        KeyCode::Char('q') => return Some(Effect::Quit),
        KeyCode::Char('r') => app.question = ask(Action::Redrive),
        KeyCode::Char('p') => app.question = ask(Action::PurgeLive),
        KeyCode::Char('d') => app.question = ask(Action::PurgeDead),
        KeyCode::Char('x') => app.question = ask(Action::Delete),
        KeyCode::Esc | KeyCode::Backspace if app.open.is_some() => app.open = None,
        KeyCode::Esc => app.filter.clear(),
        _ if app.open.is_some() => {}
        KeyCode::Enter => {
            app.open = queue.map(|queue| Open {
                queue,
                details: None,
            });
        }
        KeyCode::Char('/') => app.is_filtering = true,
        KeyCode::Char('s') => app.sort = app.sort.next(),
        KeyCode::Char('S') => app.is_reversed = !app.is_reversed,
        KeyCode::Down | KeyCode::Char('j') => move_by(app, 1),
        KeyCode::Up | KeyCode::Char('k') => move_by(app, -1),
        KeyCode::PageDown | KeyCode::Char(' ') => move_by(app, page(app)),
        KeyCode::PageUp => move_by(app, -page(app)),
        KeyCode::Home => move_by(app, isize::MIN),
        KeyCode::End => move_by(app, isize::MAX),
        _ => {}
    }
    None
}

/// The queue that a key concerns.
fn current(app: &App) -> Option<QueueName> {
    if let Some(open) = &app.open {
        return Some(open.queue.clone());
    }
    let rows = app.rows();
    let (name, _) = rows.get(app.position(&rows))?;
    Some((*name).clone())
}

fn page(app: &App) -> isize {
    isize::try_from(app.height).unwrap_or(isize::MAX)
}

fn move_by(app: &mut App, rows_down: isize) {
    let rows = app.rows();
    let last = rows.len().saturating_sub(1);
    let at = app.position(&rows);
    let to = at.saturating_add_signed(rows_down).min(last);
    app.selected = rows.get(to).map(|(name, _)| (*name).clone());
}

/// Keeps the selection on the screen.
fn scroll(app: &mut App) {
    let rows = app.rows();
    let (at, count) = (app.position(&rows), rows.len());
    let first = (at + 1).saturating_sub(app.height);
    app.offset = app.offset.clamp(first, at).min(count.saturating_sub(1));
}
