//! The documents that no claim can deliver, by kind: each field and `_id` with values of every type.

use mongodb::bson::{
    Binary, Bson, DateTime, Document, RawDocumentBuf, Timestamp, Uuid, doc, oid::ObjectId,
    spec::BinarySubtype,
};

use super::parted;

/// Strings that are not UTF-8: a stray byte, an overlong slash, half a character, a surrogate,
/// a character that does not exist, and one beside each end of the order of strings.
pub(super) const INVALID: &[&[u8]] = &[
    b"\x80",
    b"\xff",
    b"m\xc0\xaf",
    b"m0\xf0\x9f\x98",
    b"\xed\xa0\x80",
    b"m\xf4\x90\x80\x80m",
    b"\xf4\x8f\xbf\xbf\xff",
    b"\xe2\x28\xa1",
];

/// A field's text that is replaced by bytes which are not UTF-8.
pub(super) fn placeholder(invalid: &[u8]) -> String {
    "@".repeat(invalid.len())
}

/// The document, with these bytes in place of their placeholder.
pub(super) fn with_bytes(mut document: Document, invalid: &[u8]) -> RawDocumentBuf {
    // Last, because the driver looks at the first field. The server moves it.
    let id = document.remove("_id");
    document.insert("_id", id);
    let raw = RawDocumentBuf::from_document(&document).expect("a document");
    let mut bytes = raw.into_bytes();
    if !invalid.is_empty() {
        let wanted = placeholder(invalid).into_bytes();
        let at = bytes.windows(wanted.len()).rposition(|it| it == wanted);
        let at = at.expect("the placeholder");
        bytes[at..at + wanted.len()].copy_from_slice(invalid);
    }
    RawDocumentBuf::from_bytes(bytes).expect("a length and an end")
}

/// How a document of a kind differs from a message; the number tells it from others of the kind.
pub(super) type Change = Box<dyn Fn(&mut Document, usize) + Send + Sync>;

/// A kind of document.
pub(super) struct Kind {
    pub(super) what: String,
    pub(super) change: Change,
    /// What replaces its placeholder.
    pub(super) invalid: &'static [u8],
}

impl Kind {
    pub(super) fn new(
        what: impl Into<String>,
        change: impl Fn(&mut Document, usize) + Send + Sync + 'static,
    ) -> Self {
        Self {
            what: what.into(),
            change: Box::new(change),
            invalid: b"",
        }
    }

    pub(super) fn with_id(
        what: impl Into<String>,
        id: impl Fn(usize) -> Bson + Send + Sync + 'static,
    ) -> Self {
        Self::new(what, move |document, number| {
            document.insert("_id", id(number));
        })
    }

    pub(super) fn invalid(mut self, invalid: &'static [u8]) -> Self {
        self.what += &format!(" {}", invalid.escape_ascii());
        self.invalid = invalid;
        self
    }

    /// A document of so many bytes.
    pub(super) fn of_size(
        &self,
        template: &Document,
        number: usize,
        size: usize,
    ) -> RawDocumentBuf {
        let mut document = self.changed(template, number);
        document.insert("rest", binary(BinarySubtype::Generic, &[]));
        let without = with_bytes(document.clone(), self.invalid).as_bytes().len();
        document.insert(
            "rest",
            binary(BinarySubtype::Generic, &vec![0; size - without]),
        );
        with_bytes(document, self.invalid)
    }

    pub(super) fn document(&self, template: &Document, number: usize) -> RawDocumentBuf {
        with_bytes(self.changed(template, number), self.invalid)
    }

    fn changed(&self, template: &Document, number: usize) -> Document {
        let mut document = template.clone();
        // Before those of messages.
        let mut id = Uuid::new().bytes();
        id[0] = 0;
        document.insert("_id", Uuid::from_bytes(id));
        let messages = document.get_array("messages").map_or(1, Vec::len);
        // They must differ in all documents of a queue.
        let ids = (0..messages).map(|index| format!("{}-{index}", fastrand::u64(..)));
        document.insert("ids", ids.collect::<Vec<_>>());
        (self.change)(&mut document, number);
        document
    }
}

/// Values of every type, and at the ends of what a number or a time can be.
pub(super) fn values() -> Vec<(&'static str, Bson)> {
    vec![
        ("null", Bson::Null),
        ("a text", "text".into()),
        ("an empty text", "".into()),
        ("an array", vec![Bson::Null, "text".into()].into()),
        ("an empty array", Bson::Array(Vec::new())),
        ("a document", doc! { "a": 1 }.into()),
        ("true", true.into()),
        ("zero", 0_i64.into()),
        ("negative", (-1_i64).into()),
        ("the largest long", i64::MAX.into()),
        ("the smallest long", i64::MIN.into()),
        ("the largest count", i64::from(u32::MAX).into()),
        ("NaN", f64::NAN.into()),
        ("infinite", f64::INFINITY.into()),
        ("half", 0.5.into()),
        ("a UUID", Uuid::new().into()),
        ("an old binary", binary(BinarySubtype::BinaryOld, &[1])),
        ("binary", binary(BinarySubtype::Generic, &[1; 16])),
        ("an object id", ObjectId::new().into()),
        ("1970", DateTime::from_millis(0).into()),
        ("before 1970", DateTime::from_millis(-1).into()),
        ("the first time", DateTime::MIN.into()),
        ("the last time", DateTime::MAX.into()),
        (
            "a past time in an array",
            vec![DateTime::from_millis(1)].into(),
        ),
        ("a future time in an array", vec![DateTime::MAX].into()),
        (
            "a past and a future time",
            vec![DateTime::MAX, DateTime::from_millis(1)].into(),
        ),
        (
            "a timestamp",
            Timestamp {
                time: 1,
                increment: 1,
            }
            .into(),
        ),
        (
            "a decimal",
            Bson::Decimal128("1".parse().expect("a number")),
        ),
        ("code", Bson::JavaScriptCode("1".into())),
        ("a symbol", Bson::Symbol("s".into())),
        ("undefined", Bson::Undefined),
        ("the smallest key", Bson::MinKey),
        ("the largest key", Bson::MaxKey),
    ]
}

pub(super) fn binary(subtype: BinarySubtype, bytes: &[u8]) -> Bson {
    let bytes = bytes.to_vec();
    Binary { subtype, bytes }.into()
}

/// A field missing and with each value.
pub(super) fn field_kinds(field: &str) -> Vec<Kind> {
    let missing = field.to_owned();
    let missing = Kind::new(format!("{field} missing"), move |document, _| {
        document.remove(&missing);
    });
    let others = values().into_iter().map(|(what, value)| {
        let field = field.to_owned();
        Kind::new(format!("{field} {what}"), move |document, _| {
            document.insert(&field, &value);
        })
    });
    std::iter::once(missing).chain(others).collect()
}

/// An `_id` of each type, also where a text in it is not UTF-8.
pub(super) fn id_kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for invalid in INVALID {
        let text = placeholder(invalid);
        kinds.push(
            Kind::with_id("id", move |number| format!("{text}{number}").into()).invalid(invalid),
        );
    }
    let text = placeholder(INVALID[0]);
    let invalid_inside: [fn(&str, usize) -> Bson; 4] = [
        |text, number| doc! { "number": number as i64, "text": text }.into(),
        |text, number| doc! { text: number as i64 }.into(),
        |text, number| Bson::JavaScriptCode(format!("{text}{number}")),
        |text, number| Bson::Symbol(format!("s{text}{number}")),
    ];
    for id in invalid_inside {
        let text = text.clone();
        kinds.push(Kind::with_id("id", move |number| id(&text, number)).invalid(INVALID[0]));
    }
    let valid: [fn(i64) -> Bson; 14] = [
        |number| "x".repeat(300 + number as usize).into(),
        |number| format!("\u{1}{number}").into(),
        |number| number.into(),
        |number| (number as f64 + 0.5).into(),
        |number| Bson::Decimal128(format!("{number}.25").parse().expect("a number")),
        |number| DateTime::from_millis(number).into(),
        |number| {
            let increment = number as u32;
            Timestamp { time: 7, increment }.into()
        },
        |number| binary(BinarySubtype::Generic, &number.to_le_bytes()),
        |number| binary(BinarySubtype::BinaryOld, &number.to_le_bytes()),
        |_| ObjectId::new().into(),
        |number| doc! { "b": number, "a": [number, { "b": "c" }] }.into(),
        |number| doc! { "$ref": "a", "$id": number }.into(),
        |number| Bson::JavaScriptCode(number.to_string()),
        |number| Bson::Symbol(number.to_string()),
    ];
    for (index, id) in valid.into_iter().enumerate() {
        let what = format!("id {:?} {index}", id(1).element_type());
        kinds.push(Kind::with_id(what, move |number| id(number as i64)));
    }
    kinds
}

/// An `_id` that only one document of a queue can have.
pub(super) fn single_id_kinds() -> Vec<Kind> {
    let ids: [Bson; 8] = [
        Bson::Null,
        true.into(),
        f64::NAN.into(),
        (-0.0).into(),
        Bson::MinKey,
        Bson::MaxKey,
        doc! {}.into(),
        "".into(),
    ];
    let kinds = ids.into_iter();
    kinds
        .map(|id| Kind::with_id(format!("id {id}"), move |_| id.clone()))
        .collect()
}

/// Documents of others, and what else may be there.
fn foreign_kinds() -> Vec<Kind> {
    const BYTES: &[u8] = b"\xff\xfe\xff\xfe";
    let fields = ["messages", "visible_at", "lease", "anything"];
    let mut kinds = Vec::from(fields.map(|field| {
        Kind::new(field, move |document, _| {
            document.insert(field, placeholder(BYTES));
        })
        .invalid(BYTES)
    }));
    let names = Kind::new("the name of a field", |document, _| {
        document.insert(placeholder(BYTES), 1);
    });
    let only = |time: fn(&Document) -> Option<Bson>| {
        move |document: &mut Document, number| {
            let time = time(document);
            let id = format!("other{}-{number}", fastrand::u64(..));
            *document = doc! { "_id": &id, "ids": [&id] };
            document.extend(time.map(|time| ("visible_at".to_owned(), time)));
        }
    };
    kinds.extend([
        names.invalid(BYTES),
        Kind::new("only a time", only(|it| it.get("visible_at").cloned())),
        Kind::new("nothing", only(|_| None)),
        Kind::new("no attempts left", |document, _| {
            document.insert("attempts", 5);
            document.insert("max_attempts", 5);
        }),
    ]);
    kinds
}

/// Ids of messages that are not those of the entry. The index refuses most of them twice.
fn ids_kinds() -> Vec<Kind> {
    let text = |number: usize| format!("id{number}");
    let mut kinds = field_kinds("ids");
    kinds.extend([
        Kind::new("more ids than messages", move |document, number| {
            document.insert("ids", [text(number), text(number + 1000)].to_vec());
        }),
        Kind::new("an id that is too long", |document, number| {
            document.insert("ids", ["x".repeat(300 + number)].to_vec());
        }),
        Kind::new("an id that is no text", |document, number| {
            document.insert("ids", [number as i64].to_vec());
        }),
    ]);
    kinds.extend(INVALID.iter().map(|invalid| {
        Kind::new("ids", |document, number| {
            let id = format!("{}{number}", placeholder(invalid));
            document.insert("ids", [id].to_vec());
        })
        .invalid(invalid)
    }));
    kinds
}

/// All of these before the messages of a queue.
pub(super) struct Case {
    pub(super) what: String,
    pub(super) documents: Vec<RawDocumentBuf>,
    pub(super) batch: usize,
}

pub(super) fn cases(template: &Document) -> Vec<Case> {
    let parted = parted::template(template);
    let mut cases = Vec::new();
    let mut add = |what: &str, documents: Vec<RawDocumentBuf>, batches: &[usize]| {
        cases.extend(batches.iter().map(|&batch| Case {
            what: format!("{} × {what}, leases of {batch}", documents.len()),
            documents: documents.clone(),
            batch,
        }));
    };
    let mut all = Vec::new();
    let several = id_kinds().into_iter().chain(foreign_kinds());
    let several = several.map(|kind| (kind, template));
    let contradictions = parted::contradictions().into_iter();
    let several = several.chain(contradictions.map(|kind| (kind, &parted)));
    for (index, (kind, template)) in several.enumerate() {
        add(&kind.what, vec![kind.document(template, 0)], &[1]);
        let three = (0..3).map(|number| kind.document(template, number));
        add(&kind.what, three.collect(), &[[1, 3, 1000][index % 3]]);
        all.push(kind.document(template, 100));
    }
    for (index, kind) in ids_kinds().iter().enumerate() {
        let document = kind.document(template, 0);
        add(&kind.what, vec![document], &[[1, 3, 1000][index % 3]]);
    }
    let each = |kinds: &[Kind], template: &Document| -> Vec<_> {
        let numbered = kinds.iter().enumerate();
        numbered
            .map(|(number, kind)| kind.document(template, number))
            .collect()
    };
    let mut groups = vec![("ids of documents".to_owned(), single_id_kinds(), template)];
    let not_there = ["lease", "parted", "parts", "dead_key"];
    let fields = template.keys().map(String::as_str).chain(not_there);
    let fields = fields.filter(|field| !matches!(*field, "_id" | "ids"));
    groups.extend(fields.map(|field| (field.to_owned(), field_kinds(field), template)));
    let inner = parted::field_kinds().into_iter();
    groups.extend(inner.map(|(field, kinds)| (field, kinds, &parted)));
    for (what, kinds, template) in groups {
        let documents = each(&kinds, template);
        let several = documents.len();
        add(&what, documents, &[1, several, 1000]);
        if what != "ids of documents" {
            all.extend(each(&kinds, template));
        }
    }
    let several = all.len();
    add("everything", all, &[1, several]);
    cases
}
