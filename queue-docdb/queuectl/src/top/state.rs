//! What the screen shows, and where it is.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use queue_api::{QueueName, QueueStats};
use tokio::time::Instant;

use crate::depth::depth;

/// Depths that a sparkline has at most.
const HISTORY: usize = 60;

pub(super) struct App {
    /// The database and the prefix.
    pub(super) place: String,
    pub(super) queues: BTreeMap<QueueName, Line>,
    /// Whether the names have been listed.
    pub(super) is_listed: bool,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    pub(super) is_filtering: bool,
    /// Stays on its queue when rows move.
    pub(super) selected: Option<QueueName>,
    /// The first row on the screen.
    pub(super) offset: usize,
    /// Rows that fit on the screen.
    pub(super) height: usize,
    pub(super) open: Option<Open>,
    pub(super) question: Option<Action>,
    /// Why there is no connection.
    pub(super) lost: Option<String>,
    /// What the last action did.
    pub(super) notice: Option<String>,
    /// Commands in the last second, and how many there may be.
    pub(super) commands: (usize, usize),
}

/// A queue in the list.
#[derive(Default)]
pub(super) struct Line {
    pub(super) stats: Option<QueueStats>,
    samples: VecDeque<(Instant, u64)>,
    /// Why it could not be counted.
    pub(super) error: Option<String>,
}

/// The queue that is shown in detail.
pub(super) struct Open {
    pub(super) queue: QueueName,
    pub(super) details: Option<Details>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Details {
    pub(super) head: Vec<HeadRow>,
    /// Dead letters by reason, most first.
    pub(super) reasons: Vec<(String, usize)>,
    /// Whether these are all.
    pub(super) has_all_reasons: bool,
    /// Leases by age: since the claim, or since they were extended.
    pub(super) leases: Vec<(&'static str, usize)>,
    /// Whether there may be leases beyond the messages that were looked at.
    pub(super) has_all_leases: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct HeadRow {
    pub(super) id: String,
    pub(super) state: &'static str,
    pub(super) attempts: u32,
    /// Until it is ready, or since then.
    pub(super) due: String,
    pub(super) payload: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Depth,
    Dead,
    Oldest,
    Net,
    Name,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Depth => Self::Dead,
            Self::Dead => Self::Oldest,
            Self::Oldest => Self::Net,
            Self::Net => Self::Name,
            Self::Name => Self::Depth,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::Dead => "dead",
            Self::Oldest => "oldest",
            Self::Net => "net",
            Self::Name => "name",
        }
    }
}

/// What changes a queue. Each is asked for first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Redrive(QueueName),
    PurgeLive(QueueName),
    PurgeDead(QueueName),
    Delete(QueueName),
}

impl Action {
    pub(super) fn queue(&self) -> &QueueName {
        match self {
            Self::Redrive(queue)
            | Self::PurgeLive(queue)
            | Self::PurgeDead(queue)
            | Self::Delete(queue) => queue,
        }
    }
}

impl Line {
    pub(super) fn add(&mut self, at: Instant, stats: QueueStats) {
        self.samples.push_back((at, depth(&stats)));
        if self.samples.len() > HISTORY {
            self.samples.pop_front();
        }
        self.stats = Some(stats);
        self.error = None;
    }

    pub(super) fn depth(&self) -> u64 {
        self.stats.as_ref().map_or(0, depth)
    }

    pub(super) fn dead(&self) -> u64 {
        self.stats.as_ref().map_or(0, |stats| stats.dead)
    }

    pub(super) fn oldest(&self) -> Duration {
        let oldest = self.stats.as_ref().and_then(|stats| stats.oldest_ready);
        oldest.unwrap_or_default()
    }

    /// The change of depth a second between the last two looks.
    pub(super) fn net(&self) -> Option<f64> {
        let mut last = self.samples.iter().rev();
        let ((now, depth), (then, earlier)) = (last.next()?, last.next()?);
        let seconds = now.duration_since(*then).as_secs_f64();
        (seconds > 0.0).then(|| (*depth as f64 - *earlier as f64) / seconds)
    }

    /// The last depths, the newest at the end.
    pub(super) fn depths(&self, most: usize) -> Vec<u64> {
        let skipped = self.samples.len().saturating_sub(most);
        let samples = self.samples.iter().skip(skipped);
        samples.map(|(_, depth)| *depth).collect()
    }
}

impl App {
    pub(super) fn new(place: String, budget: usize) -> Self {
        Self {
            place,
            queues: BTreeMap::new(),
            is_listed: false,
            sort: Sort::Depth,
            is_reversed: false,
            filter: String::new(),
            is_filtering: false,
            selected: None,
            offset: 0,
            height: 1,
            open: None,
            question: None,
            lost: None,
            notice: None,
            commands: (0, budget),
        }
    }

    /// The queues that the filter leaves, in order. Names break ties, so rows do not jump.
    pub(super) fn rows(&self) -> Vec<(&QueueName, &Line)> {
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<_> = self.queues.iter().collect();
        rows.retain(|(name, _)| name.as_str().to_lowercase().contains(&wanted));
        match self.sort {
            Sort::Name => {}
            Sort::Depth => rows.sort_by_key(|(_, line)| std::cmp::Reverse(line.depth())),
            Sort::Dead => rows.sort_by_key(|(_, line)| std::cmp::Reverse(line.dead())),
            Sort::Oldest => rows.sort_by_key(|(_, line)| std::cmp::Reverse(line.oldest())),
            Sort::Net => {
                let net = |line: &Line| line.net().unwrap_or_default();
                rows.sort_by(|(_, a), (_, b)| net(b).total_cmp(&net(a)));
            }
        }
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }

    /// The place of the selection in the rows; the first one if its queue is gone.
    pub(super) fn position(&self, rows: &[(&QueueName, &Line)]) -> usize {
        let selected = self.selected.as_ref();
        let found = rows.iter().position(|(name, _)| Some(*name) == selected);
        found.unwrap_or(0)
    }

    /// What the poller looks at first.
    pub(super) fn wanted(&self) -> Wanted {
        let rows = self.rows();
        let visible = rows.iter().skip(self.offset).take(self.height);
        let open = self.open.as_ref().map(|open| open.queue.clone());
        let visible = match &open {
            Some(queue) => vec![queue.clone()],
            None => visible.map(|(name, _)| (*name).clone()).collect(),
        };
        Wanted { visible, open }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) visible: Vec<QueueName>,
    pub(super) open: Option<QueueName>,
}
