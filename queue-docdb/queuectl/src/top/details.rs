//! A queue in detail: its head, its leases and its dead letters.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use queue_api::{DeadLetterPage, MessageState, PeekedMessage};
use queue_docdb::mongodb::bson::DateTime;

use super::{
    draw::compact,
    state::{Details, HeadRow},
};
use crate::output::preview;

/// Messages that are looked at. Their payloads are read too, so they are not many.
pub(super) const HEAD: usize = 200;

pub(super) const DEAD: usize = 200;

/// Ages of leases, up to these.
const LEASES: [(&str, Duration); 4] = [
    ("up to 10 s", Duration::from_secs(10)),
    ("up to 1 min", Duration::from_secs(60)),
    ("up to 10 min", Duration::from_secs(600)),
    ("longer", Duration::MAX),
];

pub(super) fn of(now: DateTime, head: &[PeekedMessage], dead: &DeadLetterPage) -> Details {
    let now = now.to_system_time();
    let mut reasons: HashMap<String, usize> = HashMap::new();
    for letter in &dead.letters {
        *reasons.entry(letter.reason.to_string()).or_default() += 1;
    }
    let mut reasons: Vec<_> = reasons
        .into_iter()
        .map(|(reason, count)| (preview(&reason, 60), count))
        .collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut leases = LEASES.map(|(name, _)| (name, 0));
    for message in head.iter().filter(|it| it.state == MessageState::Leased) {
        // A lease is as long as the visibility timeout, unless it was extended by another time.
        let began = message.ready_at.checked_sub(message.visibility_timeout);
        let age = began.and_then(|began| now.duration_since(began).ok());
        let age = age.unwrap_or_default();
        let place = LEASES.iter().position(|(_, most)| age <= *most);
        leases[place.unwrap_or(LEASES.len() - 1)].1 += 1;
    }
    Details {
        head: head.iter().map(|message| row(now, message)).collect(),
        reasons,
        has_all_reasons: dead.next.is_none(),
        leases: leases.into(),
        has_all_leases: head.len() < HEAD,
    }
}

fn row(now: SystemTime, message: &PeekedMessage) -> HeadRow {
    let state = match message.state {
        MessageState::Delayed => "delayed",
        MessageState::Leased => "leased",
        _ => "ready",
    };
    let due = match message.ready_at.duration_since(now) {
        Ok(left) => format!("in {}", compact(left)),
        Err(since) => format!("for {}", compact(since.duration())),
    };
    // The beginning is enough for the screen.
    let bytes = &message.payload[..message.payload.len().min(400)];
    HeadRow {
        id: message.id.to_string(),
        state,
        attempts: message.attempts,
        due,
        payload: preview(&String::from_utf8_lossy(bytes), 60),
    }
}
