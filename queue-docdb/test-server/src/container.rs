//! A server in a container.

use std::collections::HashMap;
use std::time::Duration;

use testcontainers::bollard::models::{HostConfig, PortBinding};
use testcontainers::core::{IntoContainerPort, Mount};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, CopyTargetOptions, GenericImage, ImageExt};

use crate::docker::{self, Docker};
use crate::error::{StepError, within};
use crate::image::MongoImage;
use crate::options::{ServerOptions, Storage};
use crate::replica_set::{Server, last_lines};
use crate::source::Source;

/// MongoDB's port in the container.
pub(crate) const PORT: u16 = 27017;
pub(crate) const DATA: &str = "/data/db";
const FILES: &str = "/server-files";

/// Creating and starting; the image is there already.
const START: Duration = Duration::from_secs(60);

/// A container that runs, or that ran. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) handle: ContainerAsync<GenericImage>,
    image: String,
}

/// How clients reach a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach<'a> {
    /// By a port of this machine's loopback.
    Loopback,
    /// By its address in this network.
    Network(&'a str),
}

impl Container {
    /// Starts a container. The server in it may not listen yet.
    pub(crate) async fn start(
        docker: &Docker,
        image: &MongoImage,
        options: &ServerOptions,
        reach: Reach<'_>,
    ) -> Result<Self, StepError> {
        let name = docker::fresh_name();
        let request = request(image, &name, options, reach).with_labels([docker.label]);
        match within(START, "starting a container", request.start()).await {
            Ok(handle) => Ok(Self {
                name,
                handle,
                image: image.full_name(),
            }),
            Err(failure) => {
                // It may exist all the same. The reaper tries again what fails here.
                let _ = docker.remove_container(&name).await;
                Err(failure)
            }
        }
    }

    /// The port of this machine's loopback.
    pub(crate) async fn port(&self) -> Result<u16, StepError> {
        let port = self.handle.get_host_port_ipv4(PORT.tcp()).await;
        port.map_err(|error| StepError::of("asking for the container's port", &error))
    }

    pub(crate) fn source(&self) -> Source {
        Source::Container {
            image: self.image.clone(),
            name: self.name.clone(),
        }
    }

    /// Removes the container and its volumes.
    pub(crate) async fn remove(self) -> Result<(), StepError> {
        let step = format!("removing container {}", self.name);
        within(docker::ANSWER, step, self.handle.rm()).await
    }
}

impl Server for Container {
    async fn output_if_ended(&self) -> Option<String> {
        if self.handle.is_running().await.unwrap_or(true) {
            return None;
        }
        let stdout = self.handle.stdout_to_vec().await.unwrap_or_default();
        let stderr = self.handle.stderr_to_vec().await.unwrap_or_default();
        Some(last_lines(&[stdout, stderr].concat()))
    }
}

fn request(
    image: &MongoImage,
    name: &str,
    options: &ServerOptions,
    reach: Reach<'_>,
) -> ContainerRequest<GenericImage> {
    let publish = reach == Reach::Loopback;
    let mut request = image
        .to_image()
        .with_exposed_port(PORT.tcp())
        .with_container_name(name)
        // The official image changes to another user, who could not read a private key. By
        // number, because the built image has no list of users.
        .with_user("0:0")
        .with_cmd(options.command_line("0.0.0.0", PORT, DATA, FILES))
        .with_host_config_modifier(move |config| set_ports(config, publish));
    if let Reach::Network(network) = reach {
        request = request.with_network(network);
    }
    if options.storage() == Storage::Memory {
        request = request.with_mount(Mount::tmpfs_mount(DATA));
    }
    for file in options.files() {
        let target = CopyTargetOptions::new(format!("{FILES}/{}", file.name)).with_mode(file.mode);
        request = request.with_copy_to(target, file.bytes.clone());
    }
    request
}

/// testcontainers would publish the port on every network interface.
fn set_ports(config: &mut HostConfig, publish: bool) {
    config.publish_all_ports = Some(false);
    if publish {
        let binding = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            // Docker chooses a free one.
            host_port: Some(String::new()),
        };
        let bindings = HashMap::from([(format!("{PORT}/tcp"), Some(vec![binding]))]);
        config.port_bindings = Some(bindings);
    }
}
