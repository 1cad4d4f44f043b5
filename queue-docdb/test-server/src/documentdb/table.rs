//! The table in `documentdb.md`.

use std::{collections::HashMap, sync::LazyLock};

use super::engine::Engines;

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Section {
    Commands,
    CommonFields,
    Fields,
    Query,
    Update,
    Stages,
    Expressions,
    Indexes,
    PartialFilters,
    Cursors,
}

impl Section {
    fn of_heading(heading: &str) -> Self {
        match heading {
            "Commands" => Self::Commands,
            "Fields of every command" => Self::CommonFields,
            "Fields of commands" => Self::Fields,
            "Query operators" => Self::Query,
            "Update operators" => Self::Update,
            "Stages" => Self::Stages,
            "Expressions" => Self::Expressions,
            "Indexes" => Self::Indexes,
            "Filters of partial indexes" => Self::PartialFilters,
            "Cursors" => Self::Cursors,
            other => panic!("documentdb.md has an unknown heading: {other}"),
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) refused_by: Engines,
    pub(crate) source: &'static str,
}

type Table = HashMap<Section, HashMap<&'static str, Row>>;

static TABLE: LazyLock<Table> = LazyLock::new(|| read(include_str!("../../documentdb.md")));

/// The table's row for an item.
pub(crate) fn row(section: Section, item: &str) -> Option<&'static Row> {
    TABLE.get(&section)?.get(item)
}

/// # Panics
/// If a line is invalid. The table is part of this crate.
fn read(text: &'static str) -> Table {
    let mut table = Table::new();
    let mut section = None;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = Some(Section::of_heading(heading));
        }
        let (Some(section), Some(cells)) = (section, line.strip_prefix("| ")) else {
            continue;
        };
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        let [item, engines @ .., source, ""] = cells.as_slice() else {
            panic!("documentdb.md: {line}");
        };
        let engines: [&str; 5] = engines
            .try_into()
            .unwrap_or_else(|_| panic!("documentdb.md: {line}"));
        if *source == "source" {
            continue;
        }
        let refused = engines.map(|cell| match cell {
            "yes" => false,
            "no" | "?" => true,
            _ => panic!("documentdb.md: {line}"),
        });
        let row = Row {
            refused_by: Engines::of_columns(refused),
            source,
        };
        let before = table.entry(section).or_default().insert(item, row);
        assert!(before.is_none(), "documentdb.md has an item twice: {line}");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documentdb::Engine;

    #[test]
    fn every_row_has_engines_and_a_source() {
        let rows: Vec<&Row> = TABLE.values().flat_map(HashMap::values).collect();
        assert!(rows.len() > 200, "{}", rows.len());
        assert!(rows.iter().all(|row| !row.source.is_empty()));
        let partial = row(Section::Indexes, "partialFilterExpression").expect("a row");
        assert!(partial.refused_by.contains(Engine::Elastic));
        assert!(!partial.refused_by.contains(Engine::V5_0));
    }
}
