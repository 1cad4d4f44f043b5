//! Draws the list of queues, and what is the same on each screen.

use std::time::Duration;

use queue_api::QueueName;
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line as Text,
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{
    draw_queue,
    state::{Action, App, Line},
};
use crate::output::count;

const SPARKLINE: usize = 12;

/// Lines above and below the rows: the title, the heads, the notice, the keys.
pub(super) const FRAME_LINES: u16 = 4;

const KEYS: &str =
    " ↑↓ ⏎ open  / filter  sS sort  r redrive  p d purge live, dead  x delete  q quit";

const KEYS_OF_QUEUE: &str = " esc back  r redrive  p purge live  d purge dead  x delete  q quit";

pub(super) fn draw(app: &App, frame: &mut Frame<'_>) {
    let [title, body, notice, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(app, frame, title);
    match &app.open {
        Some(open) => draw_queue::draw(app, open, frame, body),
        None => draw_list(app, frame, body),
    }
    draw_notice(app, frame, notice);
    let text = if app.open.is_some() {
        KEYS_OF_QUEUE
    } else {
        KEYS
    };
    frame.render_widget(Paragraph::new(text).style(Modifier::DIM), keys);
}

fn draw_title(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let (sent, budget) = app.commands;
    let right = format!(" {sent} of {budget} commands/s ");
    let width = u16::try_from(right.len()).unwrap_or(u16::MAX);
    let [left_area, right_area] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(width)]).areas(area);
    let style = Style::from(Modifier::REVERSED);
    let shown = app.rows().len();
    let direction = if app.is_reversed { "↑" } else { "↓" };
    let mut left = format!(
        " {} by {} {direction}",
        count(app.queues.len() as u64, "queue"),
        app.sort.name()
    );
    if app.is_filtering || !app.filter.is_empty() {
        let cursor = if app.is_filtering { "_" } else { "" };
        left += &format!(", {shown} with /{}{cursor}", app.filter);
    }
    left += &format!(" · {}", app.place);
    frame.render_widget(Paragraph::new(left).style(style), left_area);
    let right = Paragraph::new(right).alignment(Alignment::Right);
    frame.render_widget(right.style(style), right_area);
}

fn draw_list(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let rows = app.rows();
    if rows.is_empty() {
        let text = match (app.is_listed, app.queues.is_empty()) {
            (false, _) => "looking for queues …",
            (true, true) => "there are no queues",
            (true, false) => "no queue has this in its name; esc shows all",
        };
        frame.render_widget(Paragraph::new(text).alignment(Alignment::Center), area);
        return;
    }
    let selected = app.position(&rows);
    let visible = rows.iter().enumerate().skip(app.offset).take(app.height);
    let lines = visible.map(|(at, (name, line))| {
        let row = row(name, line);
        match at == selected {
            true => row.style(Modifier::REVERSED),
            false => row,
        }
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(SPARKLINE as u16),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
    ];
    let heads = ["QUEUE", "DEPTH", "", "NET/S", "OLDEST", "LEASED", "DEAD"];
    let heads = heads.into_iter().enumerate().map(|(at, head)| match at {
        0 => Cell::from(head),
        _ => right(head.to_owned()),
    });
    let table = Table::new(lines, widths).header(Row::new(heads).style(Modifier::BOLD));
    frame.render_widget(table, area);
}

fn row<'a>(name: &'a QueueName, line: &'a Line) -> Row<'a> {
    let name = Cell::from(name.as_str());
    let stats = match (&line.stats, &line.error) {
        (Some(stats), None) => stats,
        (_, Some(_)) => return Row::new([name, right("no counts".to_owned())]),
        (None, None) => return Row::new([name, right("…".to_owned())]),
    };
    let net = match line.net() {
        None => String::new(),
        Some(net) if net.abs() < 0.05 => "0".to_owned(),
        Some(net) => format!("{net:+.1}"),
    };
    let oldest = stats.oldest_ready.map(compact).unwrap_or_default();
    let dead = right(stats.dead.to_string());
    Row::new([
        name,
        right(line.depth().to_string()),
        Cell::from(sparkline(&line.depths(SPARKLINE))).style(Color::Cyan),
        right(net),
        right(oldest),
        right(stats.leased.to_string()),
        if stats.dead > 0 {
            dead.style(Color::Red)
        } else {
            dead
        },
    ])
}

pub(super) fn right(text: String) -> Cell<'static> {
    Cell::from(Text::from(text).alignment(Alignment::Right))
}

/// The question comes first, because the next key answers it.
fn draw_notice(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let (text, style) = match (&app.question, &app.lost, &app.notice) {
        (Some(action), ..) => (question(app, action), Style::from(Modifier::BOLD)),
        (None, Some(why), _) => (
            format!(" connection lost, trying again: {why}"),
            Style::from(Color::Red).add_modifier(Modifier::BOLD),
        ),
        (None, None, Some(notice)) => (format!(" {notice}"), Style::default()),
        (None, None, None) => return,
    };
    frame.render_widget(Paragraph::new(text).style(style), area);
}

fn question(app: &App, action: &Action) -> String {
    let queue = action.queue();
    let line = app.queues.get(queue);
    let dead = count(line.map_or(0, Line::dead), "dead letter");
    let live = count(line.map_or(0, Line::depth), "live message");
    let what = match action {
        Action::Redrive(_) => format!("redrive {dead} of"),
        Action::PurgeLive(_) => format!("remove {live} of"),
        Action::PurgeDead(_) => format!("remove {dead} of"),
        Action::Delete(_) => format!("delete, with {live} and {dead},"),
    };
    format!(" {what} queue {queue}? y or n")
}

/// Bars, of which the largest depth has the full height.
fn sparkline(depths: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = depths.iter().copied().max().unwrap_or_default().max(1);
    let bar = |depth: &u64| BARS[((*depth as f64 / most as f64) * 7.0).round() as usize];
    let bars: String = depths.iter().map(bar).collect();
    format!("{bars:>SPARKLINE$}")
}

/// A duration in the two largest units.
pub(super) fn compact(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fit_into_their_column() {
        let of = |seconds| compact(Duration::from_secs(seconds));
        let durations = [0, 59, 60, 3_599, 86_399, 999 * 86_400].map(of);
        let expected = ["0s", "59s", "1m 0s", "59m 59s", "23h 59m", "999d 0h"];
        assert_eq!(durations, expected);
    }

    #[test]
    fn bars_are_relative_to_the_largest() {
        assert_eq!(sparkline(&[0, 5, 10]), "         ▁▅█");
        assert_eq!(sparkline(&[0, 0]).trim(), "▁▁");
        assert_eq!(sparkline(&[]).trim(), "");
    }
}
