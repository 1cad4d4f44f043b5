//! The networks of members in containers.
//!
//! Each member has a network of its own, with the address that clients and other members know
//! it by. The other members are attached to it, too. Docker lets nothing pass between networks.
//! So detaching a member from some networks cuts it off from everything, or from the other
//! members alone.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest,
    NetworkCreateRequest, NetworkDisconnectRequest,
};
use uuid::Uuid;

use super::options::{CutFrom, MEMBERS};
use crate::docker::{ANSWER, Docker, fresh_name, unless_missing};
use crate::error::{StepError, within};

/// RFC 2544 reserves 198.18.0.0/15 for tests, so no other network of this machine is there.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// It has room for so many networks of 16 addresses.
const NETWORKS: u128 = 1 << (28 - 15);
const NETWORK_SIZE: u32 = 16;
/// How many of them are tried: other test processes use some.
const ATTEMPTS: usize = 20;

/// One network for each member.
#[derive(Debug)]
pub(crate) struct Networks {
    networks: Vec<Network>,
    /// The cuts: which member is detached from whose network.
    cuts: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Network {
    name: String,
    first: u32,
}

impl Networks {
    pub(crate) async fn create(docker: &Docker) -> Result<Self, StepError> {
        let mut networks = Vec::new();
        for _ in 0..MEMBERS {
            networks.push(Network::create(docker).await?);
        }
        Ok(Self {
            networks,
            cuts: Vec::new(),
        })
    }

    pub(crate) fn name(&self, of: usize) -> &str {
        &self.networks[of].name
    }

    /// The address by which clients and members know a member.
    pub(crate) fn address(&self, member: usize) -> Ipv4Addr {
        self.networks[member].address(member)
    }

    /// Attaches a member's container to the network `of` a member, always with the same address,
    /// or connections would not survive a cut.
    pub(crate) async fn attach(
        &self,
        docker: &Docker,
        container: &str,
        member: usize,
        of: usize,
    ) -> Result<(), StepError> {
        let network = &self.networks[of];
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: Some(EndpointSettings {
                ipam_config: Some(EndpointIpamConfig {
                    ipv4_address: Some(network.address(member).to_string()),
                    ..EndpointIpamConfig::default()
                }),
                ..EndpointSettings::default()
            }),
        };
        let attached = docker.client.connect_network(&network.name, request);
        within(ANSWER, format!("attaching container {container}"), attached).await
    }

    pub(crate) async fn detach(
        &self,
        docker: &Docker,
        container: &str,
        of: usize,
    ) -> Result<(), StepError> {
        let request = NetworkDisconnectRequest {
            container: container.to_owned(),
            force: Some(false),
        };
        let detached = docker.client.disconnect_network(self.name(of), request);
        within(ANSWER, format!("detaching container {container}"), detached).await
    }

    pub(crate) async fn cut(
        &mut self,
        docker: &Docker,
        containers: &[&str],
        member: usize,
        from: CutFrom,
    ) -> Result<(), StepError> {
        let others = (0..MEMBERS).filter(|other| *other != member);
        let cuts = others.flat_map(|other| match from {
            CutFrom::MembersAndClients => [(member, other), (member, member)],
            CutFrom::Members => [(member, other), (other, member)],
        });
        for cut in cuts {
            if !self.cuts.contains(&cut) {
                self.detach(docker, containers[cut.0], cut.1).await?;
                self.cuts.push(cut);
            }
        }
        Ok(())
    }

    pub(crate) async fn heal(
        &mut self,
        docker: &Docker,
        containers: &[&str],
        member: usize,
    ) -> Result<(), StepError> {
        let cuts = std::mem::take(&mut self.cuts);
        let is_of = |cut: &(usize, usize)| cut.0 == member || cut.1 == member;
        let (healed, left): (Vec<_>, Vec<_>) = cuts.into_iter().partition(is_of);
        self.cuts = left;
        for (one, of) in healed {
            self.attach(docker, containers[one], one, of).await?;
        }
        Ok(())
    }

    /// Removes the networks, once their containers are gone.
    pub(crate) async fn remove(self, docker: &Docker) -> Result<(), StepError> {
        for Network { name, .. } in self.networks {
            let removed = async { unless_missing(docker.client.remove_network(&name).await) };
            within(ANSWER, format!("removing network {name}"), removed).await?;
        }
        Ok(())
    }
}

impl Network {
    /// Creates a network that only its members and this machine reach.
    async fn create(docker: &Docker) -> Result<Self, StepError> {
        for _ in 0..ATTEMPTS {
            let index = Uuid::new_v4().as_u128() % NETWORKS;
            let index = u32::try_from(index).expect("is below 2^13");
            let network = Self {
                name: fresh_name(),
                first: FIRST_ADDRESS + index * NETWORK_SIZE,
            };
            let (key, value) = docker.label;
            let request = NetworkCreateRequest {
                name: network.name.clone(),
                internal: Some(true),
                labels: Some(HashMap::from([(key.to_owned(), value.to_owned())])),
                ipam: Some(Ipam {
                    config: Some(vec![network.addresses()]),
                    ..Ipam::default()
                }),
                ..NetworkCreateRequest::default()
            };
            let created = async {
                match docker.client.create_network(request).await {
                    Ok(_) => Ok(true),
                    // "Pool overlaps with other one on this address space"
                    Err(DockerError::DockerResponseServerError { message, .. })
                        if message.contains("overlap") =>
                    {
                        Ok(false)
                    }
                    Err(error) => Err(error),
                }
            };
            if within(ANSWER, "creating a network", created).await? {
                return Ok(network);
            }
        }
        Err(StepError::new(format!(
            "{ATTEMPTS} networks in 198.18.0.0/15 are in use"
        )))
    }

    fn addresses(&self) -> IpamConfig {
        IpamConfig {
            subnet: Some(format!("{}/28", self.nth(0))),
            gateway: Some(self.nth(1).to_string()),
            // Docker's own choice is not an address of a member that is down.
            ip_range: Some(format!("{}/29", self.nth(8))),
            ..IpamConfig::default()
        }
    }

    /// A member's address in this network. The first two are the network's and this machine's.
    fn address(&self, member: usize) -> Ipv4Addr {
        self.nth(2 + u32::try_from(member).expect("is below 3"))
    }

    fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.first + n)
    }
}
