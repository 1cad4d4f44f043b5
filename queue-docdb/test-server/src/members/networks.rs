//! The networks that members in containers are reached by.
//!
//! Each member has a network of its own, in which it has the address that clients and the other
//! members know it by; the others are attached to it too. So a member can be cut off from
//! everybody, or from the other members alone, while clients on this machine still reach it.
//! Docker lets nothing pass between networks.

use std::net::Ipv4Addr;

use testcontainers::bollard::models::IpamConfig;
use uuid::Uuid;

use super::CutFrom;
use crate::container::fresh_name;
use crate::daemon::{self, Daemon};
use crate::error::Failure;
use crate::leash::Leash;

/// 198.18.0.0/15 is set aside for the test of networks (RFC 2544), so no network that this
/// machine talks to is there.
const ADDRESSES: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// How many networks of 16 addresses it has room for.
const NETWORKS: u128 = 1 << (28 - 15);
const NETWORK_ADDRESSES: u32 = 16;
/// How many of them are tried: other test runs may have theirs.
const ATTEMPTS: usize = 20;

/// One network for each member; dropping it removes what is empty of them.
#[derive(Debug)]
pub(crate) struct Networks {
    networks: Vec<Network>,
    leash: Leash,
    /// Which member was taken off which network.
    detached: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Network {
    name: String,
    first: u32,
}

impl Networks {
    /// Makes so many networks.
    pub(crate) async fn create(daemon: &Daemon, count: usize) -> Result<Self, Failure> {
        let names: Vec<String> = (0..count).map(|_| fresh_name()).collect();
        let things: Vec<String> = names.iter().map(|it| format!("networks/{it}")).collect();
        let mut networks = Self {
            leash: Leash::in_docker(&things, &daemon::host())?,
            networks: Vec::new(),
            detached: Vec::new(),
        };
        for name in names {
            let network = Network::create(daemon, name).await?;
            networks.networks.push(network);
        }
        Ok(networks)
    }

    pub(crate) fn name(&self, of: usize) -> &str {
        &self.networks[of].name
    }

    /// The address by which everybody knows a member, whatever happens to it.
    pub(crate) fn address(&self, member: usize) -> Ipv4Addr {
        self.address_in(member, member)
    }

    /// Always the same one in the networks of others, too, or their connections would not
    /// outlive a cut.
    fn address_in(&self, of: usize, member: usize) -> Ipv4Addr {
        // The first is the network's own, the second this machine's.
        let host = u32::try_from(2 + member).expect("is one of three");
        self.networks[of].nth(host)
    }

    /// Puts a member's container on the network of a member.
    pub(crate) async fn attach(
        &self,
        daemon: &Daemon,
        container: &str,
        (member, of): (usize, usize),
    ) -> Result<(), Failure> {
        let address = self.address_in(of, member).to_string();
        daemon.attach(container, self.name(of), address).await
    }

    /// Takes away whatever a member and others reach each other by.
    pub(crate) async fn cut(
        &mut self,
        daemon: &Daemon,
        containers: &[&str],
        member: usize,
        from: CutFrom,
    ) -> Result<(), Failure> {
        let others = || (0..containers.len()).filter(|other| *other != member);
        let theirs = others().map(|other| (member, other));
        let cuts: Vec<(usize, usize)> = match from {
            CutFrom::Everybody => theirs.chain([(member, member)]).collect(),
            CutFrom::Members => others()
                .map(|other| (other, member))
                .chain(theirs)
                .collect(),
        };
        for (member, of) in cuts {
            if !self.detached.contains(&(member, of)) {
                daemon.detach(containers[member], self.name(of)).await?;
                self.detached.push((member, of));
            }
        }
        Ok(())
    }

    /// Puts back whatever [`cut`](Self::cut) took away from a member.
    pub(crate) async fn heal(
        &mut self,
        daemon: &Daemon,
        containers: &[&str],
        member: usize,
    ) -> Result<(), Failure> {
        let (healed, other): (Vec<_>, Vec<_>) = self
            .detached
            .drain(..)
            .partition(|(one, of)| *one == member || *of == member);
        self.detached = other;
        for (one, of) in healed {
            self.attach(daemon, containers[one], (one, of)).await?;
        }
        Ok(())
    }

    /// Removes the networks, on which nobody is any more.
    pub(crate) async fn remove(self, daemon: &Daemon) -> Result<(), Failure> {
        for network in &self.networks {
            daemon.remove_network(&network.name).await?;
        }
        self.leash.release();
        Ok(())
    }
}

impl Network {
    async fn create(daemon: &Daemon, name: String) -> Result<Self, Failure> {
        for _ in 0..ATTEMPTS {
            let index = Uuid::new_v4().as_u128() % NETWORKS;
            let index = u32::try_from(index).expect("is below the number of networks");
            let network = Self {
                name: name.clone(),
                first: ADDRESSES + index * NETWORK_ADDRESSES,
            };
            let addresses = IpamConfig {
                subnet: Some(format!("{}/28", network.nth(0))),
                gateway: Some(network.nth(1).to_string()),
                // Where Docker finds addresses by itself: not the members', which are free
                // while their containers are off.
                ip_range: Some(format!("{}/29", network.nth(8))),
                ..IpamConfig::default()
            };
            if let Some(()) = daemon.create_network(&name, addresses).await? {
                return Ok(network);
            }
        }
        Err(Failure::new(format!(
            "none of {ATTEMPTS} networks in 198.18.0.0/15 is free"
        )))
    }

    fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.first + n)
    }
}
