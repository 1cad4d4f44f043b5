//! Processes that compete for a queue.

use anyhow::{Context as _, Result};
use queue_api::Admin;
use serde::{Deserialize, Serialize};

use super::{
    Location, Scale,
    backlog::{Backlog, lease_and_ack},
};
use crate::{
    child::{self, Child, Orders, Role},
    window::{Window, Work, work},
};

pub(super) const MOST: usize = 16;

pub(super) struct Consumers(Vec<Child>);

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    queue: String,
    batch: usize,
    window: Window,
}

impl Consumers {
    pub(super) async fn start(location: &Location) -> Result<Self> {
        let mut children = Vec::new();
        for _ in 0..MOST {
            children.push(Child::start(&Role::Consumer(location.clone()))?);
        }
        for child in &mut children {
            child.answer::<()>().await?; // it is connected
        }
        Ok(Self(children))
    }

    /// Messages per second that some of the processes lease and ack.
    pub(super) async fn drain(
        &mut self,
        backlog: &Backlog,
        scale: &Scale,
        processes: usize,
        batch: usize,
    ) -> Result<f64> {
        let children = self.0.get_mut(..processes);
        let children = children.with_context(|| format!("{processes} processes of {MOST}"))?;
        let order = Order {
            queue: backlog.queue.name().to_string(),
            batch,
            window: Window::after_warm_up(scale.counted),
        };
        for child in &mut *children {
            child.order(&order).await?;
        }
        let mut works = Vec::new();
        for child in &mut *children {
            works.push(child.answer().await?);
        }
        let work: Work = works.into_iter().sum();
        backlog.refill(work.total).await?;
        Ok(work.rate)
    }
}

/// The program of a child: works through each window that the parent sends.
pub(crate) async fn consume(location: &Location, mut orders: Orders) -> Result<()> {
    let backend = location.backend().await?;
    child::tell(&())?;
    loop {
        let order: Order = orders.next().await?;
        let queue = Backlog::new(&backend, &order.queue, 0).await?.queue;
        // The first call checks the queue's version, which is not to be measured.
        Admin::new(backend.clone()).peek(&order.queue, 1).await?;
        let context = (queue, order.batch);
        child::tell(&work(order.window, 1, &context, lease_and_ack).await?)?;
    }
}
