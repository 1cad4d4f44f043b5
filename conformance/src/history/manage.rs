//! Plays the commands on whole queues.

use queue_api::{MessageId, Redrive};

use super::{
    command::Command,
    player::{Player, equal, letter, unexpected},
};

impl Player {
    /// Plays a command of `QueueAdmin`.
    pub(super) async fn manage(&mut self, command: &Command) -> Result<(), String> {
        match command {
            Command::List => self.list().await,
            Command::DeadLetters { queue, max } => {
                let mut dead = self.queue(*queue).dead_letters_in_pages(*max).await;
                dead.sort_by(|one, other| one.id.cmp(&other.id));
                equal("D1: dead letters", dead, self.models[*queue].dead_letters())
            }
            Command::Messages { queue, max } => {
                let mut live = self.queue(*queue).messages_in_pages(*max).await;
                live.sort_by(|one, other| one.id.cmp(&other.id));
                let expected = self.models[*queue].messages(self.fixture.now());
                equal("M1: messages", live, expected)
            }
            Command::Peek { queue, max } => {
                let on = self.queue(*queue);
                let seen = on.admin().peek(&on.name, *max).await.map_err(unexpected)?;
                self.models[*queue].peek(*max, self.fixture.now(), &seen)
            }
            Command::Purge { queue, what } => {
                let on = self.queue(*queue);
                let purged = on
                    .admin()
                    .purge(&on.name, *what)
                    .await
                    .map_err(unexpected)?;
                self.note(format!("queue {queue}: purge {what:?}"), purged);
                self.tally.add("messages purged", purged);
                equal("M1: purged", purged, self.models[*queue].purge(*what))
            }
            Command::Redrive { queue, ids } => self.redrive(*queue, ids).await,
            Command::Delete { queue } => {
                let on = self.queue(*queue);
                on.admin()
                    .delete_queue(&on.name)
                    .await
                    .map_err(unexpected)?;
                self.note(format!("queue {queue}: delete"), "");
                self.tally.add("queues deleted", 1);
                self.models[*queue].delete();
                Ok(())
            }
            other => unreachable!("{other:?} is not a command of QueueAdmin"),
        }
    }

    async fn redrive(&mut self, queue: usize, ids: &[usize]) -> Result<(), String> {
        let ids: Vec<MessageId> = ids.iter().map(|id| letter(*id)).collect();
        let (which, named) = match &ids[..] {
            [] => (Redrive::All, None),
            ids => (Redrive::Ids(ids.to_vec()), Some(ids)),
        };
        let on = self.queue(queue);
        let redriven = on
            .admin()
            .redrive(&on.name, &which)
            .await
            .map_err(unexpected)?;
        self.note(format!("queue {queue}: redrive {which:?}"), redriven);
        self.tally.add("dead letters redriven", redriven);
        equal(
            "D1: redriven",
            redriven,
            self.models[queue].redrive(named, self.fixture.now()),
        )
    }

    async fn list(&mut self) -> Result<(), String> {
        let listed = self
            .fixture
            .admin()
            .list_queues()
            .await
            .map_err(unexpected)?;
        self.note("list queues", format!("{listed:?}"));
        if !listed.is_sorted() {
            return Err(format!("M1: the list is not in order: {listed:?}"));
        }
        for (queue, model) in self.models.iter().enumerate() {
            let name = self.queue(queue).name;
            if model.has_messages() && !listed.contains(&name) {
                return Err(format!("M1: {name} has messages, but is not in {listed:?}"));
            }
        }
        Ok(())
    }
}
