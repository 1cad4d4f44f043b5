//! A queue that must exist. The backend takes every name for an empty queue.

use queue_api::QueueName;

use crate::{
    connect::Connection,
    failure::{Exit, Failure, Result},
};

const MOST_SUGGESTIONS: usize = 3;

/// Names that are less alike have nothing to do with each other.
const ALIKE: f64 = 0.8;

/// Fails if there is no such queue, with the names that are nearest.
pub(crate) async fn must_exist(connection: &Connection, queue: &QueueName) -> Result<()> {
    if connection.backend.queue_exists(queue).await? {
        return Ok(());
    }
    // For the suggestions. It looks into each queue.
    let queues = connection.admin.list_queues().await?;
    let place = &connection.place;
    let hint = match nearest(queue, &queues) {
        names if !names.is_empty() => format!("did you mean {}?", names.join(" or ")),
        _ if queues.is_empty() => "there are no queues".to_owned(),
        _ => format!("`queuectl queues` lists the {} that exist", queues.len()),
    };
    let text = format!("there is no queue {queue} in {place}; {hint}");
    Err(Failure::new(Exit::NotFound, text))
}

fn nearest<'a>(queue: &QueueName, queues: &'a [QueueName]) -> Vec<&'a str> {
    let wanted = queue.as_str().to_lowercase();
    let alike = |name: &QueueName| {
        // Swapped letters count little, and a common beginning counts much.
        strsim::jaro_winkler(&wanted, &name.as_str().to_lowercase())
    };
    let mut names: Vec<_> = queues
        .iter()
        .map(|name| (alike(name), name.as_str()))
        .collect();
    names.retain(|(alike, _)| *alike >= ALIKE);
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    names.truncate(MOST_SUGGESTIONS);
    names.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest_of(name: &str) -> String {
        let queues = ["mail.incoming", "mail", "invoices", "reports"];
        let queues = queues.map(|name| QueueName::new(name).expect("a name"));
        nearest(&QueueName::new(name).expect("a name"), &queues).join(" ")
    }

    #[test]
    fn typing_mistakes_are_near() {
        assert_eq!(nearest_of("mial"), "mail");
        assert_eq!(nearest_of("Invoice"), "invoices");
        assert_eq!(nearest_of("report"), "reports");
        assert_eq!(nearest_of("zzz"), "");
    }
}
