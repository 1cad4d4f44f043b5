//! Cases side by side, while the primary of a replica set fails.

use std::sync::Arc;

use futures::future;
use queue_api::{Error, ErrorKind, Result};

use crate::{
    case::{Case, Report},
    failover::{Failover, Kind},
    server::Server,
};

/// How many cases meet one failover.
const AT_A_TIME: usize = 64;

/// How often a case is run that failed without a reason.
const TRIES: usize = 3;

/// Runs cases that meet a failover.
///
/// # Errors
/// The replica set does not do what it is told.
pub(crate) async fn run(cases: Vec<Case>) -> Result<Vec<(Case, Report)>> {
    let mut reports = Vec::new();
    let mut left = cases;
    for tries_left in (0..TRIES).rev() {
        let mut again = Vec::new();
        for kind in [Kind::StepDown, Kind::RollBack] {
            let is_of_kind = |case: &&Case| case.faults[0].failover() == Some(kind);
            let of_kind: Vec<Case> = left.iter().filter(is_of_kind).cloned().collect();
            for cases in of_kind.chunks(AT_A_TIME) {
                for (case, mut report) in cases.iter().cloned().zip(round(kind, cases).await?) {
                    if report.slow.is_empty() || tries_left == 0 {
                        report.wrong.append(&mut report.slow);
                        reports.push((case, report));
                    } else {
                        again.push(case);
                    }
                }
            }
        }
        left = again;
    }
    Ok(reports)
}

/// Runs one case.
pub(crate) async fn replay(case: &Case) -> Result<Report> {
    let kind = case.faults.iter().find_map(|fault| fault.failover());
    let kind = kind.unwrap_or(Kind::StepDown);
    let mut reports = round(kind, std::slice::from_ref(case)).await?;
    Ok(reports.pop().unwrap_or_default())
}

async fn round(kind: Kind, cases: &[Case]) -> Result<Vec<Report>> {
    let server = Server::replica_set().await;
    let set = server.set().expect("it is one");
    let failover: Arc<Failover> = Failover::new(kind);
    let running = cases
        .iter()
        .map(|case| case.run(server, Some(failover.seat())));
    let running = future::join_all(running);
    let (reports, done) = tokio::select! {
        both = future::join(running, set.fail_over(&failover, cases.len())) => both,
        never = set.follow_primary(&failover) => match never {},
    };
    done.map_err(|error| Error::new(ErrorKind::Unavailable, "failover", error.to_string()))?;
    Ok(reports)
}
