//! Results on the standard output: tables, or a JSON object a line.
//!
//! There are no colours, so a file gets what a terminal gets.

use std::{
    fmt::Display,
    io::{self, BufWriter, Stdout, Write},
    time::SystemTime,
};

use comfy_table::{CellAlignment, ColumnConstraint, Table, Width, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::{cli::Format, failure::Result};

/// A line of a table, or an object.
pub(crate) trait Row: Serialize {
    /// The heads of the columns.
    const COLUMNS: &[Column];

    fn cells(&self) -> Vec<String>;
}

pub(crate) enum Column {
    Text(&'static str),
    /// Stands on the right.
    Number(&'static str),
}

pub(crate) struct Output {
    format: Format,
    /// Rows that come later continue the table.
    has_header: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let out = BufWriter::new(io::stdout());
        Self {
            format,
            has_header: false,
            out,
        }
    }

    /// Whether it is a table. What explains it goes to the standard error.
    pub(crate) fn is_for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// Rows that belong together.
    pub(crate) fn rows<R: Row>(&mut self, rows: &[R]) -> Result<()> {
        match self.format {
            Format::Json => {
                for row in rows {
                    self.json(row)?;
                }
            }
            Format::Table => {
                let table = table(rows, !self.has_header);
                self.has_header = true;
                writeln!(self.out, "{}", table.trim_fmt())?;
            }
        }
        Ok(self.out.flush()?)
    }

    /// What follows is a table of its own.
    pub(crate) fn new_table(&mut self) -> Result<()> {
        if self.format == Format::Table {
            writeln!(self.out)?;
        }
        self.has_header = false;
        Ok(())
    }

    /// The result of a command that does something: a sentence, or an object.
    pub(crate) fn summary(&mut self, summary: &(impl Serialize + Display)) -> Result<()> {
        match self.format {
            Format::Json => self.json(summary)?,
            Format::Table => writeln!(self.out, "{summary}")?,
        }
        Ok(self.out.flush()?)
    }

    fn json(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }
}

fn table<R: Row>(rows: &[R], with_header: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if with_header {
        table.set_header(R::COLUMNS.iter().map(Column::name));
    }
    table.add_rows(rows.iter().map(Row::cells));
    for (index, column) in R::COLUMNS.iter().enumerate() {
        let Some(cells) = table.column_mut(index) else {
            continue;
        };
        if let Column::Number(_) = column {
            cells.set_cell_alignment(CellAlignment::Right);
        }
        // As wide as under its header, with a space on each side.
        let width = u16::try_from(column.name().len() + 2).unwrap_or(u16::MAX);
        cells.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
    }
    table
}

impl Column {
    fn name(&self) -> &'static str {
        match self {
            Self::Text(name) | Self::Number(name) => name,
        }
    }
}

/// A time in RFC 3339. Times of messages have milliseconds.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}

/// Text of a message for a table: short, on one line, and without control characters.
pub(crate) fn preview(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).flat_map(escape).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

fn escape(c: char) -> Box<dyn Iterator<Item = char>> {
    match c.is_control() {
        true => Box::new(c.escape_default()),
        false => Box::new(std::iter::once(c)),
    }
}

/// `1 message`, `2 messages`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_harmless_and_short() {
        assert_eq!(preview("a\x1b[31m\n", 10), "a\\u{1b}[31m\\n");
        assert_eq!(preview("äöü", 2), "äö…");
        assert_eq!(preview("", 2), "");
    }
}
