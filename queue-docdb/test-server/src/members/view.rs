//! What the members say about the replica set.

use std::time::Duration;

use mongodb::bson::{Bson, Document};

use super::options::{MEMBERS, ReplicaSetOptions};
use crate::error::StepError;
use crate::options::plain_uri;
use crate::replica_set::{self, hello_and_status, pause};

/// From any state of the members to a primary that the others follow.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const NOT_SETTLED: &str = "not a primary and two secondaries";

/// The last answer of each member; `None` for a member that does not answer.
#[derive(Debug)]
pub(crate) struct View {
    members: Vec<Option<MemberView>>,
}

#[derive(Debug)]
struct MemberView {
    address: String,
    /// The address of the primary, as this member sees it.
    primary: Option<String>,
    is_primary: bool,
    is_secondary: bool,
    /// Whether it hears from every other member.
    hears_all: bool,
}

impl View {
    async fn look(addresses: &[String]) -> Self {
        // At the same time: a frozen member takes the whole timeout.
        let asked: Vec<_> = addresses
            .iter()
            .map(|address| {
                let uri = plain_uri(address);
                tokio::spawn(async move { hello_and_status(&uri).await })
            })
            .collect();
        let mut members = Vec::new();
        for (address, answer) in addresses.iter().zip(asked) {
            let answer = answer.await.ok().flatten();
            members.push(answer.map(|(hello, status)| MemberView::new(address, &hello, &status)));
        }
        Self { members }
    }

    /// The member that two members, itself included, name as the primary.
    pub(crate) fn primary(&self) -> Option<usize> {
        self.members.iter().position(|member| {
            member
                .as_ref()
                .is_some_and(|it| it.is_primary && self.followers(&it.address) >= 2)
        })
    }

    /// The primary, if both others follow it and each hears from each. After a cut they find
    /// each other one by one; a fault before that would be two faults at once.
    pub(crate) fn settled(&self) -> Option<usize> {
        let primary = self.primary()?;
        let all: Vec<&MemberView> = self.members.iter().flatten().collect();
        let is_settled = self.followers(&self.members[primary].as_ref()?.address) == MEMBERS
            && all.iter().filter(|it| it.is_secondary).count() == MEMBERS - 1
            && all.iter().all(|it| it.hears_all);
        is_settled.then_some(primary)
    }

    fn followers(&self, address: &str) -> usize {
        let members = self.members.iter().flatten();
        members
            .filter(|it| it.primary.as_deref() == Some(address))
            .count()
    }
}

impl MemberView {
    fn new(address: &str, hello: &Document, status: &Document) -> Self {
        let is = |state| hello.get_bool(state).unwrap_or(false);
        let healthy = status.get_array("members").map(|members| {
            let members = members.iter().filter_map(Bson::as_document);
            members
                .filter(|member| member.get_f64("health") == Ok(1.0))
                .count()
        });
        Self {
            address: address.to_owned(),
            primary: hello.get_str("primary").ok().map(str::to_owned),
            is_primary: is("isWritablePrimary"),
            is_secondary: is("secondary"),
            hears_all: healthy == Ok(MEMBERS),
        }
    }
}

/// Makes servers a replica set, and waits until it is complete.
pub(crate) async fn initiate(
    options: &ReplicaSetOptions,
    addresses: &[String],
) -> Result<(), StepError> {
    replica_set::initiate(&plain_uri(&addresses[0]), options.config(addresses)).await?;
    await_view(addresses, NOT_SETTLED, View::settled).await?;
    Ok(())
}

/// Looks again until `look` finds a member. `otherwise` is for the error.
pub(crate) async fn await_view(
    addresses: &[String],
    otherwise: &str,
    look: fn(&View) -> Option<usize>,
) -> Result<usize, StepError> {
    let seen = async {
        loop {
            if let Some(member) = look(&View::look(addresses).await) {
                return member;
            }
            // The members need the machine for their election.
            for _ in 0..5 {
                pause().await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen)
        .await
        .map_err(|_| StepError::new(format!("{otherwise} for {} s", PATIENCE.as_secs())))
}
