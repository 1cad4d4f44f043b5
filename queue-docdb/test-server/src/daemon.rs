//! The Docker daemon.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::query_parameters::RemoveContainerOptionsBuilder;
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
