//! What the user may do, as the server tells it.

use queue_docdb::mongodb::{
    Database,
    bson::{Bson, Document, doc},
};

use super::{check::Check, probe::error_text};

const NAME: &str = "rights";

/// What calls need, as README.md of queue-docdb has it.
const NEEDED: [(&str, &str); 8] = [
    ("find", "every call"),
    ("insert", "enqueue"),
    ("update", "lease and ack"),
    ("remove", "ack"),
    ("createCollection", "an enqueue to a new queue"),
    ("createIndex", "an enqueue to a new queue"),
    ("listIndexes", "the check of indexes"),
    ("listCollections", "the list of queues"),
];

/// Without these, hardly any call works.
const BASIC: [&str; 4] = ["find", "insert", "update", "remove"];

/// `collections` begin with the prefix; a right on one of them alone is not one on all.
pub(super) async fn check(database: &Database) -> Check {
    let command = doc! { "connectionStatus": 1, "showPrivileges": true };
    let reply = match database.run_command(command).await {
        Ok(reply) => reply,
        Err(error) => {
            let why = format!("the server does not tell: {}", error_text(&error));
            return Check::not_checked(NAME, why);
        }
    };
    let Ok(auth) = reply.get_document("authInfo") else {
        return Check::not_checked(NAME, "the server does not tell");
    };
    let documents = |field| {
        let list = auth.get_array(field).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(Bson::as_document)
    };
    let users: Vec<_> = documents("authenticatedUsers")
        .filter_map(|user| user.get_str("user").ok())
        .collect();
    if users.is_empty() {
        return match may_read_users(database).await {
            true => Check::warning(
                NAME,
                "no user: access control is off: every client has all rights",
            )
            .advise("turn access control on, unless only this machine reaches the server"),
            false => Check::failed(NAME, "no user, and the server wants one")
                .advise("name a user in the URI: mongodb://USER@HOST"),
        };
    }
    if auth.get_array("authenticatedUserPrivileges").is_err() {
        return Check::not_checked(NAME, "the server does not tell the user's rights");
    }
    let name = database.name();
    let granted: Vec<_> = documents("authenticatedUserPrivileges")
        .filter(|privilege| applies(privilege, name))
        .flat_map(|it| it.get_array("actions").map_or(&[][..], Vec::as_slice))
        .filter_map(Bson::as_str)
        .collect();
    let has = |action: &str| granted.iter().any(|it| *it == action || *it == "anyAction");
    let missing: Vec<_> = NEEDED.iter().filter(|(action, _)| !has(action)).collect();
    let user = users.join(", ");
    if missing.is_empty() {
        let text = format!("user {user} may do all that queues need in database {name}");
        return Check::ok(NAME, text);
    }
    let list = missing
        .iter()
        .map(|(action, call)| format!("{action} ({call})"));
    let list = list.collect::<Vec<_>>().join(", ");
    let text = format!("user {user} lacks rights on database {name}: {list}");
    let advice = format!("grant the role readWrite on {name}");
    let is_basic = missing.iter().any(|(action, _)| BASIC.contains(action));
    match is_basic {
        true => Check::failed(NAME, text),
        false => Check::warning(NAME, text),
    }
    .advise(advice)
}

/// Whether a privilege is for all collections of the database.
fn applies(privilege: &Document, database: &str) -> bool {
    let Ok(resource) = privilege.get_document("resource") else {
        return false;
    };
    let is_any = resource.get_bool("anyResource").unwrap_or(false);
    let of_database = resource
        .get_str("db")
        .is_ok_and(|it| it.is_empty() || it == database);
    let of_all = resource.get_str("collection").is_ok_and(str::is_empty);
    is_any || of_database && of_all
}

async fn may_read_users(database: &Database) -> bool {
    let find = doc! { "find": "doctor", "filter": { "_id": 0 }, "limit": 1 };
    database.run_command(find).await.is_ok()
}
