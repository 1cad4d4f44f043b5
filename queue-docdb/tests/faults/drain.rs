//! The end of a case: a queue is emptied.

use std::time::Duration;

use queue_api::{Error, Purge, QueueAdmin, Result};
use tokio::time::Instant;

use crate::{calls::Call, log::Party, look::Look, proxy::pause};

/// A transaction that was left open holds its messages for seconds. A message that comes in late, with
/// an earlier ready time than the last, may be passed over for 200 ms.
const LONGEST_DRAIN: Duration = Duration::from_secs(30);

/// Acks everything that can be leased, and returns what is left. Dead letters are removed.
pub(crate) async fn drain(call: Call, other: &Party, wrong: &mut Vec<String>) -> Result<Look> {
    let mut error: Option<Error> = None;
    let began = Instant::now();
    while began.elapsed() < LONGEST_DRAIN {
        other.world.clock.advance(Duration::from_secs(3600));
        match other.lease(100).await {
            Ok(leased) if !leased.is_empty() => {
                error = other.ack(leased).await.err();
            }
            Ok(_) => {
                let look = other.look(call).await?;
                if look.live.is_empty() {
                    other.backend.purge(&other.world.queue, Purge::Dead).await?;
                    return Ok(look);
                }
                pause(Duration::from_millis(50)).await;
            }
            Err(failed) => error = Some(failed),
        }
    }
    let look = other.look(call).await?;
    let why = format!("E1: {:?} cannot be leased: {error:?}", look.live);
    wrong.push(why);
    Ok(look)
}
