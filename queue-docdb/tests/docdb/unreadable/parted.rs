//! Parted entries whose parts are damaged, or contradict each other.

use mongodb::bson::{Bson, DateTime, Document, doc};

use super::documents::{Kind, values};

/// An entry of two messages: the first one is ready, the second one is dead.
pub(super) fn template(whole: &Document) -> Document {
    let mut document = whole.clone();
    for field in ["attempts", "count"] {
        document.remove(field);
    }
    let at = *document.get_datetime("visible_at").expect("a time");
    let message = document.get_array("messages").expect("an array")[0].clone();
    let death = doc! { "at": at, "reason": "no" };
    let parts = [
        doc! { "m": [0], "n": 1, "attempts": 0, "at": at },
        doc! { "m": [1], "n": 1, "attempts": 1, "dead": death },
    ];
    document.insert("parted", true);
    document.insert("parts", parts.to_vec());
    document.insert("dead_key", "0000000000000001-x");
    document.insert("messages", vec![message; 2]);
    document
}

/// The ready part, or the dead one.
fn part(document: &mut Document, index: usize) -> &mut Document {
    let parts = document.get_array_mut("parts").expect("an array");
    parts[index].as_document_mut().expect("a part")
}

/// A field of a part missing and with each value, for each field.
pub(super) fn field_kinds() -> Vec<(String, Vec<Kind>)> {
    let mut groups = Vec::new();
    let fields = ["m", "n", "attempts", "at", "lease", "dead"];
    let mut paths: Vec<(usize, Vec<&str>)> = Vec::new();
    for index in [0, 1] {
        paths.extend(fields.map(|field| (index, vec![field])));
    }
    paths.extend(["at", "reason"].map(|field| (1, vec!["dead", field])));
    for (index, path) in paths {
        let what = format!("part {index} {}", path.join("."));
        let mut kinds = vec![kind(&what, index, &path, None)];
        kinds.extend(
            values()
                .into_iter()
                .map(|(name, value)| kind(&format!("{what} {name}"), index, &path, Some(value))),
        );
        groups.push((what, kinds));
    }
    groups
}

fn kind(what: &str, index: usize, path: &[&'static str], value: Option<Bson>) -> Kind {
    let path = path.to_vec();
    Kind::new(what, move |document, _| {
        let mut holder = part(document, index);
        let (field, outer) = path.split_last().expect("a field");
        for name in outer {
            holder = holder.get_document_mut(name).expect("a document");
        }
        match &value {
            Some(value) => drop(holder.insert(*field, value)),
            None => drop(holder.remove(field)),
        }
    })
}

fn all_dead(document: &mut Document) {
    let dead = part(document, 1).clone();
    let mut other = dead.clone();
    other.extend(doc! { "m": [0], "n": 1 });
    document.insert("parts", [other, dead].to_vec());
}

pub(super) fn contradictions() -> Vec<Kind> {
    let time = DateTime::from_millis;
    vec![
        Kind::new("no part", |document, _| {
            document.insert("parts", Bson::Array(Vec::new()));
        }),
        Kind::new("a part that is no document", |document, _| {
            document.get_array_mut("parts").unwrap().push(1.into());
        }),
        Kind::new("a part of nothing", |document, _| {
            part(document, 0).extend(doc! { "m": [], "n": 0 });
        }),
        Kind::new("a message twice in a part", |document, _| {
            part(document, 0).extend(doc! { "m": [0, 0], "n": 2 });
        }),
        Kind::new("a message in two parts", |document, _| {
            part(document, 0).extend(doc! { "m": [0, 1], "n": 2 });
        }),
        Kind::new("a part with another count", |document, _| {
            part(document, 0).insert("n", 2);
        }),
        Kind::new("a message that is not there", |document, _| {
            part(document, 0).insert("m", [7].to_vec());
        }),
        Kind::new("a negative number", |document, _| {
            part(document, 0).insert("m", [-1].to_vec());
        }),
        Kind::new("a number that is too large", |document, _| {
            part(document, 0).insert("m", [i64::MAX].to_vec());
        }),
        Kind::new("ready before its parts", move |document, _| {
            part(document, 0).insert("at", time(2));
        }),
        Kind::new("ready after its parts", move |document, _| {
            part(document, 0).insert("at", time(0));
        }),
        Kind::new("ready, but dead", move |document, _| all_dead(document)),
        Kind::new("ready at several times, but dead", move |document, _| {
            all_dead(document);
            document.insert("visible_at", [time(1), time(2)].to_vec());
        }),
        Kind::new("dead and not in the list", |document, _| {
            document.remove("dead_key");
        }),
        Kind::new("in the list and not dead", move |document, _| {
            let at = *document.get_datetime("visible_at").unwrap();
            let alive = doc! { "m": [0, 1], "n": 2, "attempts": 0, "at": at };
            document.insert("parts", [alive].to_vec());
        }),
        Kind::new("fewer ids than messages", |document, _| {
            document.get_array_mut("ids").unwrap().pop();
        }),
        Kind::new("the same id twice", |document, _| {
            let ids = document.get_array_mut("ids").unwrap();
            ids[1] = ids[0].clone();
        }),
        Kind::new("fewer messages than numbers", |document, _| {
            document.get_array_mut("messages").unwrap().pop();
        }),
        Kind::new("a whole entry's fields", |document, _| {
            document
                .extend(doc! { "attempts": 1, "count": 2, "lease": mongodb::bson::Uuid::new() });
        }),
    ]
}
