//! The Docker daemon.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest,
    NetworkCreateRequest, NetworkDisconnectRequest,
};
use testcontainers::bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;

use crate::error::{Failure, within};

/// For what the daemon does by itself: it answers in milliseconds or is in trouble.
const ANSWER: Duration = Duration::from_secs(20);
/// For the first answer, without which the daemon is passed over.
const PING: Duration = Duration::from_secs(10);

/// A daemon that answered.
#[derive(Debug)]
pub(crate) struct Daemon {
    docker: Docker,
}

impl Daemon {
    /// Connects to the daemon that testcontainers uses.
    pub(crate) async fn connect() -> Result<Self, Failure> {
        let host = host();
        // A container's port is published on the loopback of the daemon's machine.
        if !is_local(&host) {
            return Err(Failure::new(format!(
                "{host} may be another machine, whose loopback cannot be reached"
            )));
        }
        let docker = docker_client_instance()
            .await
            .map_err(|error| Failure::of("setting up the client", &error))?;
        within(PING, &format!("asking {host}"), docker.ping()).await?;
        Ok(Self { docker })
    }

    /// Whether the daemon has the image, so that nothing needs to be pulled.
    pub(crate) async fn has_image(&self, name: &str) -> Result<bool, Failure> {
        let inspected = async {
            match self.docker.inspect_image(name).await {
                Ok(_) => Ok(true),
                Err(DockerError::DockerResponseServerError {
                    status_code: 404, ..
                }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        within(ANSWER, &format!("looking for image {name}"), inspected).await
    }

    /// Removes a container with its volumes; one that does not exist is removed.
    pub(crate) async fn remove(&self, container: &str) -> Result<(), Failure> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removed = async {
            match self.docker.remove_container(container, Some(options)).await {
                Err(DockerError::DockerResponseServerError {
                    status_code: 404, ..
                }) => Ok(()),
                other => other,
            }
        };
        within(ANSWER, &format!("removing container {container}"), removed).await
    }

    /// Kills what runs in a container, which stays.
    pub(crate) async fn kill(&self, container: &str) -> Result<(), Failure> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        let killed = self.docker.kill_container(container, Some(options));
        within(ANSWER, &format!("killing container {container}"), killed).await
    }

    /// Makes a network of these addresses whose members reach nobody outside of it, and whom
    /// only this machine reaches. `None` where others have some of the addresses.
    pub(crate) async fn create_network(
        &self,
        name: &str,
        addresses: IpamConfig,
    ) -> Result<Option<()>, Failure> {
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            internal: Some(true),
            ipam: Some(Ipam {
                config: Some(vec![addresses]),
                ..Ipam::default()
            }),
            ..NetworkCreateRequest::default()
        };
        let created = async {
            match self.docker.create_network(request).await {
                Ok(_) => Ok(Some(())),
                // "Pool overlaps with other one on this address space".
                Err(DockerError::DockerResponseServerError { message, .. })
                    if message.contains("overlap") =>
                {
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        within(ANSWER, &format!("creating network {name}"), created).await
    }

    /// Removes a network; one that does not exist is removed.
    pub(crate) async fn remove_network(&self, name: &str) -> Result<(), Failure> {
        let removed = async {
            match self.docker.remove_network(name).await {
                Err(DockerError::DockerResponseServerError {
                    status_code: 404, ..
                }) => Ok(()),
                other => other,
            }
        };
        within(ANSWER, &format!("removing network {name}"), removed).await
    }

    /// Attaches a container to a network, at this address.
    pub(crate) async fn attach(
        &self,
        container: &str,
        network: &str,
        address: String,
    ) -> Result<(), Failure> {
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: Some(EndpointSettings {
                ipam_config: Some(EndpointIpamConfig {
                    ipv4_address: Some(address),
                    ..EndpointIpamConfig::default()
                }),
                ..EndpointSettings::default()
            }),
        };
        let attached = self.docker.connect_network(network, request);
        let doing = format!("attaching container {container} to network {network}");
        within(ANSWER, &doing, attached).await
    }

    /// Detaches a container from a network.
    pub(crate) async fn detach(&self, container: &str, network: &str) -> Result<(), Failure> {
        let request = NetworkDisconnectRequest {
            container: container.to_owned(),
            force: Some(false),
        };
        let detached = self.docker.disconnect_network(network, request);
        let doing = format!("detaching container {container} from network {network}");
        within(ANSWER, &doing, detached).await
    }
}

/// The daemon's address as testcontainers finds it (which does not tell): `DOCKER_HOST`,
/// or the first socket that exists.
pub(crate) fn host() -> String {
    if let Ok(host) = env::var("DOCKER_HOST") {
        return host;
    }
    let below = |variable, path| env::var_os(variable).map(|dir| PathBuf::from(dir).join(path));
    let standard = PathBuf::from("/var/run/docker.sock");
    [
        Some(standard.clone()),
        below("XDG_RUNTIME_DIR", ".docker/run/docker.sock"),
        below("HOME", ".docker/run/docker.sock"),
        below("HOME", ".docker/desktop/docker.sock"),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.exists())
    .map_or_else(|| unix(&standard), |path| unix(&path))
}

/// The path of the daemon's socket, or nothing where it has none.
pub(crate) fn socket(host: &str) -> &str {
    host.strip_prefix("unix://").unwrap_or_default()
}

fn unix(path: &Path) -> String {
    format!("unix://{}", path.display())
}

fn is_local(host: &str) -> bool {
    let authority = ["tcp://", "http://", "https://"]
        .iter()
        .find_map(|scheme| host.strip_prefix(scheme));
    authority.is_none_or(|authority| {
        ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|loopback| authority.starts_with(loopback))
    })
}
