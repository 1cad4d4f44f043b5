//! What the members say of each other.

use std::time::Duration;

use mongodb::bson::Document;

use super::SETTLED;
use crate::error::Failure;
use crate::options::plain_uri;
use crate::replica_set::{breathe, hello};

/// What each member said when it was asked last; nothing of those who did not answer.
#[derive(Debug)]
pub(crate) struct View {
    members: Vec<Option<Said>>,
}

#[derive(Debug)]
struct Said {
    address: String,
    /// Who is the primary, in its eyes.
    primary: Option<String>,
    is_primary: bool,
    is_secondary: bool,
}

impl View {
    async fn look(addresses: &[String]) -> Self {
        // All at once: one that is frozen takes as long as it is given.
        let asked: Vec<_> = addresses
            .iter()
            .map(|address| {
                let uri = plain_uri(address);
                tokio::spawn(async move { hello(&uri).await })
            })
            .collect();
        let mut members = Vec::new();
        for (address, answer) in addresses.iter().zip(asked) {
            let answer = answer.await.ok().flatten();
            members.push(answer.map(|hello| Said::new(address, &hello)));
        }
        Self { members }
    }

    /// The primary in the eyes of two members, itself included.
    pub(crate) fn primary(&self) -> Option<usize> {
        self.members.iter().position(|member| {
            member
                .as_ref()
                .is_some_and(|said| said.is_primary && self.followers(&said.address) >= 2)
        })
    }

    /// The primary, where the two others are its secondaries.
    pub(crate) fn settled(&self) -> Option<usize> {
        let primary = self.primary()?;
        let address = &self.members[primary].as_ref()?.address;
        let others = self.members.iter().flatten();
        let secondaries = others.filter(|said| said.is_secondary).count();
        let all = self.members.len();
        (self.followers(address) == all && secondaries == all - 1).then_some(primary)
    }

    fn followers(&self, address: &String) -> usize {
        let members = self.members.iter().flatten();
        members
            .filter(|said| said.primary.as_ref() == Some(address))
            .count()
    }
}

impl Said {
    fn new(address: &str, hello: &Document) -> Self {
        let is = |what| hello.get_bool(what).unwrap_or(false);
        Self {
            address: address.to_owned(),
            primary: hello.get_str("primary").ok().map(str::to_owned),
            is_primary: is("isWritablePrimary"),
            is_secondary: is("secondary"),
        }
    }
}

/// Looks until there is what is looked for.
pub(crate) async fn await_view(
    addresses: &[String],
    what: &str,
    look: fn(&View) -> Option<usize>,
) -> Result<usize, Failure> {
    let seen = async {
        loop {
            let view = View::look(addresses).await;
            if let Some(member) = look(&view) {
                return member;
            }
            // Not busily: the members need the machine for their election.
            for _ in 0..5 {
                breathe().await;
            }
        }
    };
    tokio::time::timeout(SETTLED, seen).await.map_err(|_| {
        let seconds = Duration::as_secs(&SETTLED);
        Failure::new(format!("{what}: not seen for {seconds} s"))
    })
}
