//! Draws one queue: its head, its dead letters and its leases.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Modifier,
    widgets::{Block, Borders, Cell, Paragraph, Row, Table},
};

use super::{
    draw::{compact, right},
    state::{App, Details, Open},
};

/// Leases have four lines, and reasons as many.
const LOWER: u16 = 6;

pub(super) fn draw(app: &App, open: &Open, frame: &mut Frame<'_>, area: Rect) {
    let [heading, upper, lower] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Fill(1),
        Constraint::Length(LOWER),
    ])
    .areas(area);
    let line = app.queues.get(&open.queue);
    let text = match line.map(|line| (&line.stats, &line.error)) {
        None => "the queue does not exist any more".to_owned(),
        Some((_, Some(error))) => error.clone(),
        Some((None, None)) => "…".to_owned(),
        Some((Some(stats), None)) => format!(
            "{} ready, {} delayed, {} leased, {} dead; oldest ready {}",
            stats.ready,
            stats.delayed,
            stats.leased,
            stats.dead,
            stats.oldest_ready.map_or("-".to_owned(), compact)
        ),
    };
    let heading_text = Paragraph::new(format!(" {}\n {text}", open.queue));
    frame.render_widget(heading_text, heading);
    let Some(details) = &open.details else {
        frame.render_widget(Paragraph::new(" …"), upper);
        return;
    };
    draw_head(details, frame, upper);
    let [left, right] = Layout::horizontal([Constraint::Fill(2), Constraint::Fill(1)]).areas(lower);
    draw_reasons(details, frame, left);
    draw_leases(details, frame, right);
}

fn block(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

fn draw_head(details: &Details, frame: &mut Frame<'_>, area: Rect) {
    let rows = details.head.iter().map(|row| {
        Row::new([
            Cell::from(row.id.as_str()),
            Cell::from(row.state),
            right(row.attempts.to_string()),
            right(row.due.clone()),
            Cell::from(row.payload.as_str()),
        ])
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(11),
        Constraint::Fill(3),
    ];
    let heads = ["ID", "STATE", "ATTEMPTS", "READY", "PAYLOAD"];
    let table = Table::new(rows, widths)
        .header(Row::new(heads).style(Modifier::BOLD))
        .block(block(" next messages ".to_owned()));
    frame.render_widget(table, area);
}

fn draw_reasons(details: &Details, frame: &mut Frame<'_>, area: Rect) {
    let looked_at: usize = details.reasons.iter().map(|(_, count)| count).sum();
    let title = match details.has_all_reasons {
        true => " dead letters by reason ".to_owned(),
        false => format!(" the first {looked_at} dead letters by reason "),
    };
    counts(frame, area, title, &details.reasons);
}

fn draw_leases(details: &Details, frame: &mut Frame<'_>, area: Rect) {
    let title = match details.has_all_leases {
        true => " leases by age ".to_owned(),
        false => format!(" leases by age in {} ", details.head.len()),
    };
    counts(frame, area, title, &details.leases);
}

fn counts<T: AsRef<str>>(frame: &mut Frame<'_>, area: Rect, title: String, rows: &[(T, usize)]) {
    let rows = rows.iter().map(|(name, count)| {
        Row::new([
            right(count.to_string()),
            Cell::from(name.as_ref().to_owned()),
        ])
    });
    let widths = [Constraint::Length(6), Constraint::Fill(1)];
    frame.render_widget(Table::new(rows, widths).block(block(title)), area);
}
