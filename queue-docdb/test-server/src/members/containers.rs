//! Members in containers.

use super::networks::Networks;
use super::{CutFrom, MEMBERS, ReplicaSetOptions};
use crate::container::{self, Container, PORT, Reach};
use crate::daemon::Daemon;
use crate::error::Failure;
use crate::image::MongoImage;
use crate::options::{ServerOptions, plain_uri};
use crate::replica_set;
use crate::source::Source;

/// Three containers, each reached by its own address. The order of the fields is the one in
/// which they are dropped: a network goes when it is empty.
#[derive(Debug)]
pub(crate) struct Containers {
    containers: Vec<Container>,
    networks: Networks,
    daemon: Daemon,
    pub(crate) source: Source,
}

/// Starts three servers that do not know of each other yet.
pub(crate) async fn start(options: &ReplicaSetOptions) -> Result<Containers, Failure> {
    let daemon = Daemon::connect().await?;
    let image = MongoImage::provide(&daemon).await?;
    let networks = Networks::create(&daemon, MEMBERS).await?;
    let server = ServerOptions::member();
    let mut containers = Vec::new();
    for member in 0..MEMBERS {
        // A container is created on a network, where its address is Docker's choice; so it is
        // taken off again.
        let reach = Reach::Network(networks.name(member).to_owned());
        let container = container::launch(&daemon, &image, &server, reach).await?;
        daemon
            .detach(container.name(), networks.name(member))
            .await?;
        for of in 0..MEMBERS {
            let place = (member, of);
            networks.attach(&daemon, container.name(), place).await?;
        }
        containers.push(container);
    }
    let set = Containers {
        source: containers[0].source(&image),
        containers,
        networks,
        daemon,
    };
    set.await_answers().await?;
    super::initiate(options, &set.addresses()).await?;
    Ok(set)
}

impl Containers {
    pub(crate) fn addresses(&self) -> Vec<String> {
        (0..MEMBERS)
            .map(|member| format!("{}:{PORT}", self.networks.address(member)))
            .collect()
    }

    async fn await_answers(&self) -> Result<(), Failure> {
        for (address, container) in self.addresses().iter().zip(&self.containers) {
            replica_set::await_answer(&plain_uri(address), container).await?;
        }
        Ok(())
    }

    pub(crate) async fn kill(&self, member: usize) -> Result<(), Failure> {
        self.daemon.kill(self.containers[member].name()).await
    }

    pub(crate) async fn stop(&self, member: usize) -> Result<(), Failure> {
        self.containers[member].stop().await
    }

    pub(crate) async fn start_again(&self, member: usize) -> Result<(), Failure> {
        self.containers[member].start_again().await
    }

    pub(crate) async fn freeze(&self, member: usize) -> Result<(), Failure> {
        self.containers[member].pause().await
    }

    pub(crate) async fn thaw(&self, member: usize) -> Result<(), Failure> {
        self.containers[member].unpause().await
    }

    pub(crate) async fn cut(&mut self, member: usize, from: CutFrom) -> Result<(), Failure> {
        let names: Vec<&str> = self.containers.iter().map(Container::name).collect();
        self.networks.cut(&self.daemon, &names, member, from).await
    }

    pub(crate) async fn heal(&mut self, member: usize) -> Result<(), Failure> {
        let names: Vec<&str> = self.containers.iter().map(Container::name).collect();
        self.networks.heal(&self.daemon, &names, member).await
    }

    /// Removes everything, in spite of what could not be removed before it.
    pub(crate) async fn shut_down(self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        for container in self.containers {
            outcome = outcome.and(container.shut_down().await);
        }
        outcome.and(self.networks.remove(&self.daemon).await)
    }
}
