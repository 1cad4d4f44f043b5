//! Judges one command: its fields, operators, stages and index options.

use std::fmt;

use mongodb::bson::{Bson, Document};

use super::{
    engine::Engines,
    table::{self, Section},
};

/// Something in a command that an engine refuses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Finding {
    /// The command's name.
    pub command: String,
    /// A command, field, operator, stage or option, as the table calls it.
    pub item: String,
    /// The engines that refuse it.
    pub refused_by: Engines,
    /// The source in the table.
    pub source: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            command,
            item,
            refused_by,
            source,
        } = self;
        write!(
            f,
            "{command}: `{item}` is refused by DocumentDB {refused_by} ({source})"
        )
    }
}

/// What engines refuse in a command as the driver sends it.
///
/// Does not look into inserted documents, nor into values that are compared or set: nothing in
/// them can be refused.
///
/// ```
/// use mongodb::bson::doc;
/// use mongodb_test_server::documentdb::judge;
///
/// let findings = judge(&doc! { "find": "orders", "filter": { "$where": "true" } });
/// assert_eq!(findings[0].item, "$where");
/// assert!(judge(&doc! { "find": "orders", "filter": { "state": "open" } }).is_empty());
/// ```
#[must_use]
pub fn judge(command: &Document) -> Vec<Finding> {
    let Some(name) = command.keys().next() else {
        return Vec::new();
    };
    let mut judge = Judge {
        command: name.clone(),
        found: Vec::new(),
    };
    judge.command(name, command);
    judge.found
}

/// Judges an item that is not in the command itself.
pub(crate) fn judge_item(section: Section, command: &str, item: &str) -> Vec<Finding> {
    let mut judge = Judge {
        command: command.to_owned(),
        found: Vec::new(),
    };
    judge.look_up(section, item);
    judge.found
}

struct Judge {
    command: String,
    found: Vec<Finding>,
}

impl Judge {
    fn look_up(&mut self, section: Section, item: &str) {
        let (refused_by, source) = match table::row(section, item) {
            Some(row) => (row.refused_by, row.source),
            None => (Engines::ALL, "not in the table"),
        };
        if !refused_by.is_empty() {
            self.found.push(Finding {
                command: self.command.clone(),
                item: item.to_owned(),
                refused_by,
                source,
            });
        }
    }

    fn command(&mut self, name: &str, command: &Document) {
        self.look_up(Section::Commands, name);
        if let ("explain", Ok(explained)) = (name, command.get_document(name))
            && let Some(inner) = explained.keys().next()
        {
            self.command(inner, explained);
        }
        for (field, value) in command.iter().skip(1) {
            if !self.common_field(field, value, command) {
                self.field(&format!("{name}.{field}"), value);
            }
        }
        if let ("aggregate", Ok(stages)) = (name, command.get_array("pipeline")) {
            stages.iter().for_each(|stage| self.stage(stage));
        }
    }

    /// Whether this field may be in every command.
    fn common_field(&mut self, field: &str, value: &Bson, command: &Document) -> bool {
        let item = match (field, value) {
            ("txnNumber", _) if command.contains_key("autocommit") => "txnNumber in a transaction",
            ("txnNumber", _) => "txnNumber of a retryable write",
            ("writeConcern", Bson::Document(concern)) if is_zero(concern.get("w")) => {
                "writeConcern: w 0"
            }
            ("readConcern", Bson::Document(concern)) => {
                if concern.get_str("level") == Ok("linearizable") {
                    "readConcern: linearizable"
                } else if concern.contains_key("afterClusterTime") {
                    "readConcern.afterClusterTime"
                } else {
                    "readConcern"
                }
            }
            _ => field,
        };
        let is_common = item != field || table::row(Section::CommonFields, field).is_some();
        if is_common {
            self.look_up(Section::CommonFields, item);
        }
        is_common
    }

    /// A field by its path: those of statements in a batch are `update.updates.q`.
    fn field(&mut self, path: &str, value: &Bson) {
        let item = match (path, value) {
            (path, Bson::String(_)) if path.ends_with(".hint") => format!("{path} by name"),
            (path, Bson::Document(_)) if path.ends_with(".hint") && !has_one_hint_row(path) => {
                format!("{path} by keys")
            }
            ("update.updates.u" | "findAndModify.update", Bson::Array(_)) => {
                "update by pipeline".to_owned()
            }
            _ => path.to_owned(),
        };
        self.look_up(Section::Fields, &item);
        match (path, value) {
            (
                "find.filter"
                | "count.query"
                | "distinct.query"
                | "findAndModify.query"
                | "update.updates.q"
                | "delete.deletes.q",
                Bson::Document(filter),
            ) => self.query(filter),
            ("update.updates.u" | "findAndModify.update", Bson::Document(update)) => {
                self.update(update);
            }
            ("update.updates.u" | "findAndModify.update", Bson::Array(stages)) => {
                stages.iter().for_each(|stage| self.stage(stage));
            }
            ("update.updates" | "delete.deletes", Bson::Array(statements)) => {
                for statement in documents(statements) {
                    for (field, value) in statement {
                        self.field(&format!("{path}.{field}"), value);
                    }
                }
            }
            ("createIndexes.indexes", Bson::Array(indexes)) => {
                documents(indexes).for_each(|index| self.index(index));
            }
            ("find.projection" | "findAndModify.fields", Bson::Document(fields)) => {
                fields.values().for_each(|value| self.expression(value));
            }
            _ => {}
        }
    }

    fn query(&mut self, filter: &Document) {
        self.filter(Section::Query, filter);
    }

    fn filter(&mut self, section: Section, filter: &Document) {
        for (key, value) in filter {
            if !key.starts_with('$') {
                // A document without operators is a value to compare with.
                if let Bson::Document(inner) = value {
                    if starts_with_operator(inner) {
                        self.filter(section, inner);
                    }
                } else if let Bson::RegularExpression(_) = value {
                    self.look_up(section, "$regex");
                }
                continue;
            }
            self.look_up(section, key);
            match (key.as_str(), value) {
                ("$expr", expression) => self.expression(expression),
                ("$and" | "$or" | "$nor", Bson::Array(all)) => {
                    documents(all).for_each(|each| self.filter(section, each));
                }
                ("$not" | "$elemMatch", Bson::Document(inner)) => self.filter(section, inner),
                _ => {}
            }
        }
    }

    fn update(&mut self, update: &Document) {
        if !starts_with_operator(update) {
            return; // a replacement
        }
        for (operator, fields) in update {
            self.look_up(Section::Update, operator);
            let ("$push" | "$addToSet", Bson::Document(fields)) = (operator.as_str(), fields)
            else {
                continue;
            };
            for value in fields.values().filter_map(Bson::as_document) {
                if starts_with_operator(value) {
                    value
                        .keys()
                        .for_each(|key| self.look_up(Section::Update, key));
                }
            }
        }
    }

    fn stage(&mut self, stage: &Bson) {
        let Bson::Document(stage) = stage else {
            return;
        };
        for (operator, value) in stage {
            self.look_up(Section::Stages, operator);
            match (operator.as_str(), value) {
                ("$match", Bson::Document(filter)) => self.query(filter),
                ("$sort" | "$count" | "$changeStream", _) => {}
                _ => self.expression(value),
            }
        }
    }

    fn expression(&mut self, value: &Bson) {
        match value {
            Bson::String(text) if text.starts_with("$$") => {
                let variable = text.split('.').next().unwrap_or(text);
                self.look_up(Section::Expressions, variable);
            }
            Bson::Document(document) => {
                for (key, value) in document {
                    if key == "$literal" {
                        continue;
                    }
                    if key.starts_with('$') {
                        self.look_up(Section::Expressions, key);
                    }
                    self.expression(value);
                }
            }
            Bson::Array(values) => values.iter().for_each(|value| self.expression(value)),
            _ => {}
        }
    }

    fn index(&mut self, index: &Document) {
        for option in index.keys() {
            self.look_up(Section::Indexes, option);
        }
        if !index.get_bool("background").unwrap_or(false) {
            self.look_up(Section::Indexes, "build that locks the collection");
        }
        for (field, kind) in index.get_document("key").into_iter().flatten() {
            match kind {
                Bson::String(kind) => self.look_up(Section::Indexes, kind),
                _ if field.contains("$**") => self.look_up(Section::Indexes, "wildcard"),
                _ => self.look_up(Section::Indexes, "ascending or descending"),
            }
        }
        if let Ok(filter) = index.get_document("partialFilterExpression") {
            self.filter(Section::PartialFilters, filter);
        }
    }
}

/// Whether the table has one row for both kinds of hint.
fn has_one_hint_row(path: &str) -> bool {
    table::row(Section::Fields, path).is_some()
}

fn documents(values: &[Bson]) -> impl Iterator<Item = &Document> {
    values.iter().filter_map(Bson::as_document)
}

fn starts_with_operator(document: &Document) -> bool {
    document
        .keys()
        .next()
        .is_some_and(|key| key.starts_with('$'))
}

fn is_zero(value: Option<&Bson>) -> bool {
    matches!(value, Some(Bson::Int32(0) | Bson::Int64(0)))
}
