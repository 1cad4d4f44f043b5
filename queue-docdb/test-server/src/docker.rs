//! The Docker daemon.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use testcontainers::bollard;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::query_parameters::RemoveContainerOptionsBuilder;
use testcontainers::core::client::docker_client_instance;
use uuid::Uuid;

use crate::error::{StepError, within};
use crate::reaper;

/// For one request; the daemon answers in milliseconds or has a problem.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

/// A daemon that answers, with a reaper for what it creates.
#[derive(Debug)]
pub(crate) struct Docker {
    pub(crate) client: bollard::Docker,
    /// For every container and network, or the reaper would not remove it.
    pub(crate) label: (&'static str, &'static str),
}

impl Docker {
    /// Connects to the daemon that testcontainers uses.
    pub(crate) async fn connect() -> Result<Self, StepError> {
        let host = host();
        // Another machine publishes a container's port on its own loopback.
        if !host.starts_with("unix://") {
            return Err(StepError::new(format!(
                "the daemon is at {host}; it must be a Unix socket of this machine"
            )));
        }
        let client = docker_client_instance()
            .await
            .map_err(|error| StepError::of(format!("connecting to {host}"), &error))?;
        within(ANSWER / 2, format!("pinging {host}"), client.ping()).await?;
        let label = reaper::docker_label(&host)?;
        let label = label.split_once('=').expect("is a key and a value");
        Ok(Self { client, label })
    }

    /// Whether the daemon has the image.
    pub(crate) async fn has_image(&self, name: &str) -> Result<bool, StepError> {
        let inspected = async { unless_missing(self.client.inspect_image(name).await) };
        let found = within(ANSWER, format!("inspecting image {name}"), inspected).await?;
        Ok(found.is_some())
    }

    /// Removes a container with its volumes, if there is one of this name.
    pub(crate) async fn remove_container(&self, name: &str) -> Result<(), StepError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
        let removed = self.client.remove_container(name, Some(options.build()));
        let removed = async { unless_missing(removed.await) };
        within(ANSWER, format!("removing container {name}"), removed).await?;
        Ok(())
    }
}

/// `None` for the daemon's answer that there is no such thing.
pub(crate) fn unless_missing<T>(result: Result<T, DockerError>) -> Result<Option<T>, DockerError> {
    match result {
        Err(DockerError::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(None),
        other => other.map(Some),
    }
}

/// A name for a container or a network.
pub(crate) fn fresh_name() -> String {
    format!("{}-{}", env!("CARGO_PKG_NAME"), Uuid::now_v7().simple())
}

/// The daemon's address. testcontainers looks in the same places and does not say what it found.
fn host() -> String {
    if let Ok(host) = env::var("DOCKER_HOST") {
        return host;
    }
    let below = |variable, path| env::var_os(variable).map(|dir| PathBuf::from(dir).join(path));
    let standard = "/var/run/docker.sock";
    let socket = [
        Some(standard.into()),
        below("XDG_RUNTIME_DIR", ".docker/run/docker.sock"),
        below("HOME", ".docker/run/docker.sock"),
        below("HOME", ".docker/desktop/docker.sock"),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.exists());
    format!("unix://{}", socket.unwrap_or(standard.into()).display())
}
