//! The rows of the memory backend, on one thread.

mod backlog;
mod peer;
mod size;
mod throughput;

use queue_api::NewMessage;

pub(crate) use size::bytes_for_each;

use crate::{findings::Findings, progress::Progress};

pub(crate) const SECTIONS: [&str; 3] = ["size", "throughput", "backlog"];

const PAYLOAD: [u8; 256] = [7; 256];

/// How much of everything.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// How many messages go through in a round.
    pub(crate) messages: usize,
    /// How many are stored while that is measured; the first is what the others are compared with.
    pub(crate) stored: Vec<usize>,
    /// How many are stored to see what they take.
    pub(crate) weighed: usize,
}

impl Scale {
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 5,
            messages: 200_000,
            stored: vec![10_000, 100_000, 1_000_000],
            weighed: 300_000,
        }
    }

    pub(crate) fn full() -> Self {
        Self {
            rounds: 9,
            messages: 500_000,
            stored: vec![10_000, 100_000, 1_000_000, 10_000_000],
            weighed: 1_000_000,
        }
    }
}

/// Measures these sections.
pub(crate) async fn measure(
    sections: &[&'static str],
    scale: &Scale,
    progress: &mut Progress,
) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    for section in sections {
        progress.section(section);
        match *section {
            "size" => size::measure(scale, progress, &mut findings)?,
            "throughput" => throughput::measure(scale, progress, &mut findings).await?,
            "backlog" => backlog::measure(scale, progress, &mut findings).await?,
            other => anyhow::bail!("{other} is none of the sections of memory"),
        }
    }
    Ok(findings)
}

/// A message with a payload of its own, as a sender would make it.
fn message(payload: &[u8]) -> NewMessage {
    NewMessage::new(payload.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_row_has_a_figure_for_each_round() {
        let scale = Scale {
            rounds: 2,
            messages: 2000,
            stored: vec![1000, 2000],
            weighed: 1000,
        };
        // The size is measured in processes of this program, and a test is another one.
        let mut progress = Progress::of(2);
        let sections = ["throughput", "backlog"];
        let findings = measure(&sections, &scale, &mut progress).await.unwrap();
        let targets = findings.rows.iter().filter(|row| row.target.is_some());
        assert_eq!(targets.count(), 5);
        for row in &findings.rows {
            assert_eq!(row.measured.len(), 2, "{row:?}");
            assert!(row.measured.spread().0 > 0.0, "{row:?}");
            if let Some(ratio) = row.ratio() {
                assert!(ratio.median().is_finite(), "{row:?}");
            }
        }
        assert_eq!(findings.charts.len(), 2);
        assert!(bytes_for_each(1000).await.unwrap().is_finite());
    }
}
