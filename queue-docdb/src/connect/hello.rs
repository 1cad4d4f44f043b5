//! Mistakes that a server's answer to `hello` shows.

use mongodb::{bson::Document, options::ClientOptions};

/// Whether a server may take writes, by its answer to `hello` or `isMaster`.
pub(crate) fn is_writable(reply: &Document) -> bool {
    ["isWritablePrimary", "ismaster"]
        .iter()
        .any(|field| reply.get_bool(field) == Ok(true))
}

/// Whether a server waits for the configuration of its replica set.
pub(crate) fn is_uninitiated(reply: &Document) -> bool {
    reply.get_bool("isreplicaset") == Ok(true)
}

/// What a server's answer means.
pub(crate) enum Verdict {
    Writable,
    /// It may be one soon.
    NotThePrimary,
    /// A mistake of a direct connection, unless the primary that the server names has died.
    Secondary(String),
    /// A mistake, unless it lasts for a short time only.
    Uninitiated(String),
    Mistake(String),
}

/// Judges an answer to `hello` or `isMaster`. `options`: unknown, if the client is the application's.
pub(crate) fn judge(reply: &Document, address: &str, options: Option<&ClientOptions>) -> Verdict {
    if is_uninitiated(reply) {
        return Verdict::Uninitiated(format!(
            "the replica set of {address} is not initiated, or {address} was removed from it; run \
             rs.initiate() if the set is new, else name its members"
        ));
    }
    // Only a direct connection selects a server that takes no writes.
    let is_direct = options.is_none_or(|options| options.direct_connection == Some(true));
    match options.and_then(|options| mistake(reply, address, options)) {
        Some(mistake) => Verdict::Mistake(mistake),
        None if is_writable(reply) => Verdict::Writable,
        None if is_direct => {
            not_the_primary(reply, address).map_or(Verdict::NotThePrimary, Verdict::Secondary)
        }
        None => Verdict::NotThePrimary,
    }
}

/// The mistake that a server's answer shows, if any.
fn mistake(reply: &Document, address: &str, options: &ClientOptions) -> Option<String> {
    let set = reply.get_str("setName").ok();
    let is_router = reply.get_str("msg") == Ok("isdbgrid");
    let what = if is_router {
        "a mongos"
    } else {
        "a standalone server"
    };
    let hosts = options.hosts.len();
    Some(match (options.repl_set_name.as_deref(), set) {
        (Some(wanted), Some(set)) if wanted != set => {
            format!("replicaSet is {wanted}, but the set of {address} is {set}")
        }
        (Some(wanted), None) => {
            format!("replicaSet is {wanted}, but {address} is {what}; remove replicaSet")
        }
        (None, None) if !is_router && hosts > 1 => {
            format!("the URI names {hosts} hosts, but {address} is {what}; name one host")
        }
        _ => return None,
    })
}

/// Says which member a direct connection has reached, if that can never take writes. `None` for a
/// secondary while there is no primary.
///
/// The primary that it names may have died a few seconds ago.
fn not_the_primary(reply: &Document, address: &str) -> Option<String> {
    let member = match reply.get_bool("arbiterOnly") {
        Ok(true) => "an arbiter",
        _ => "a secondary",
    };
    let itself = reply.get_str("me").unwrap_or(address);
    let primary = reply.get_str("primary").ok().filter(|it| *it != itself)?;
    Some(format!(
        "directConnection is true, but {address} is {member}, and only the primary {primary} takes \
         writes; name it, or remove directConnection"
    ))
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn a_secondary_is_a_mistake_only_if_another_server_is_the_primary() {
        let of = |reply| not_the_primary(&reply, "a:1");
        let away = doc! { "secondary": true, "ismaster": false, "me": "a:1" };
        assert_eq!(of(away.clone()), None, "an election");
        let mut reply = away.clone();
        reply.insert("primary", "a:1");
        assert_eq!(of(reply), None, "it is about to be the primary");
        let mut reply = away;
        reply.insert("primary", "b:1");
        assert!(of(reply.clone()).is_some_and(|mistake| mistake.contains("primary b:1")));
        reply.insert("arbiterOnly", true);
        assert!(of(reply).is_some_and(|mistake| mistake.contains("an arbiter")));
    }
}
