//! What the members say of each other.

use std::time::Duration;

use mongodb::bson::{Bson, Document};

use super::{MEMBERS, SETTLED};
use crate::error::Failure;
use crate::options::plain_uri;
use crate::replica_set::{breathe, hello_and_status};

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
    /// Whether it hears from every other member.
    hears_all: bool,
}

impl View {
    async fn look(addresses: &[String]) -> Self {
        // All at once: one that is frozen takes as long as it is given.
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
            members.push(answer.map(|(hello, status)| Said::new(address, &hello, &status)));
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

    /// The primary, where the two others are its secondaries, and each hears from each: after
    /// a cut they find back to each other one by one, and until then a second fault is two.
    pub(crate) fn settled(&self) -> Option<usize> {
        let primary = self.primary()?;
        let address = &self.members[primary].as_ref()?.address;
        let count =
            |is: fn(&Said) -> bool| self.members.iter().flatten().filter(|it| is(it)).count();
        let all = self.members.len();
        let are_settled = self.followers(address) == all
            && count(|said| said.is_secondary) == all - 1
            && count(|said| said.hears_all) == all;
        are_settled.then_some(primary)
    }

    fn followers(&self, address: &String) -> usize {
        let members = self.members.iter().flatten();
        members
            .filter(|said| said.primary.as_ref() == Some(address))
            .count()
    }
}

impl Said {
    fn new(address: &str, hello: &Document, status: &Document) -> Self {
        let is = |what| hello.get_bool(what).unwrap_or(false);
        let heard = status.get_array("members").map(|members| {
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
            hears_all: heard == Ok(MEMBERS),
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
