//! Members in containers.

use std::time::Duration;

use testcontainers::bollard::query_parameters::KillContainerOptionsBuilder;

use super::networks::Networks;
use super::options::{Action, MEMBERS, ReplicaSetOptions};
use super::view;
use crate::container::{self, Container, PORT, Reach};
use crate::docker::Docker;
use crate::error::{StepError, within};
use crate::image::MongoImage;
use crate::options::{ServerOptions, plain_uri};
use crate::replica_set;
use crate::source::Source;

/// A clean end, with a step-down.
const STOP: Duration = Duration::from_secs(30);

/// How often a freeze is tried.
const FREEZE_TRIES: u32 = 10;

/// Three containers, each with its own address. Fields are dropped in this order: the containers
/// before their networks.
#[derive(Debug)]
pub(crate) struct Containers {
    containers: Vec<Container>,
    networks: Networks,
    docker: Docker,
}

pub(crate) async fn start(options: &ReplicaSetOptions) -> Result<Containers, StepError> {
    let docker = Docker::connect().await?;
    let image = MongoImage::provide(&docker).await?;
    let mut set = Containers {
        containers: Vec::new(),
        networks: Networks::create(&docker).await?,
        docker,
    };
    let started = set.start_members(&image, options).await;
    match started {
        Ok(()) => Ok(set),
        Err(failure) => {
            // The reaper tries again what fails here.
            let _ = set.remove().await;
            Err(failure)
        }
    }
}

impl Containers {
    async fn start_members(
        &mut self,
        image: &MongoImage,
        options: &ReplicaSetOptions,
    ) -> Result<(), StepError> {
        let Self {
            containers,
            networks,
            docker,
        } = self;
        let server = ServerOptions::member();
        for member in 0..MEMBERS {
            let network = networks.name(member);
            let reach = Reach::Network(network);
            let container = Container::start(docker, image, &server, reach).await?;
            let name = container.name.clone();
            containers.push(container);
            // Docker has chosen an address; attach it again with the right one.
            networks.detach(docker, &name, member).await?;
            for network in 0..MEMBERS {
                networks.attach(docker, &name, member, network).await?;
            }
        }
        let addresses = self.addresses();
        for (address, container) in addresses.iter().zip(&self.containers) {
            let uri = plain_uri(address);
            replica_set::await_answer(&uri, container::DATA, container).await?;
        }
        view::initiate(options, &addresses).await
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        (0..MEMBERS)
            .map(|member| format!("{}:{PORT}", self.networks.address(member)))
            .collect()
    }

    pub(crate) fn source(&self) -> Source {
        self.containers[0].source()
    }

    pub(crate) async fn apply(&mut self, action: Action, member: usize) -> Result<(), StepError> {
        let Container { name, handle, .. } = &self.containers[member];
        let step = format!("{action:?} of container {name}");
        match action {
            Action::Kill => {
                let options = KillContainerOptionsBuilder::new().signal("SIGKILL");
                let killed = self
                    .docker
                    .client
                    .kill_container(name, Some(options.build()));
                within(STOP, step, killed).await
            }
            Action::Stop => {
                let seconds = i32::try_from(STOP.as_secs()).unwrap_or(i32::MAX);
                within(STOP * 2, &step, handle.stop_with_timeout(Some(seconds))).await?;
                match handle.exit_code().await {
                    Ok(Some(0)) => Ok(()),
                    code => Err(StepError::new(format!(
                        "{step}: the exit code is {code:?}; it must be 0"
                    ))),
                }
            }
            Action::Start => within(STOP, step, handle.start()).await,
            Action::Freeze => {
                // runc gives up when processes of the container keep starting threads
                // ("unable to freeze"), and nothing is frozen then.
                let frozen = async {
                    let mut tries = 1;
                    loop {
                        match handle.pause().await {
                            Err(_) if tries < FREEZE_TRIES => tries += 1,
                            outcome => return outcome,
                        }
                    }
                };
                within(STOP, step, frozen).await
            }
            Action::Thaw => within(STOP, step, handle.unpause()).await,
            Action::Cut(from) => {
                let names: Vec<&str> = self.containers.iter().map(|it| &*it.name).collect();
                self.networks.cut(&self.docker, &names, member, from).await
            }
            Action::Heal => {
                let names: Vec<&str> = self.containers.iter().map(|it| &*it.name).collect();
                self.networks.heal(&self.docker, &names, member).await
            }
        }
    }

    /// Removes everything. Continues after an error, and returns the first one.
    pub(crate) async fn remove(self) -> Result<(), StepError> {
        let mut outcome = Ok(());
        for container in self.containers {
            outcome = outcome.and(container.remove().await);
        }
        outcome.and(self.networks.remove(&self.docker).await)
    }
}
