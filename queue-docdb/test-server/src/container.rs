//! A server in a container.

use std::collections::HashMap;
use std::time::Duration;

use testcontainers::bollard::models::{HostConfig, Mount, MountType, PortBinding};
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, CopyTargetOptions, GenericImage, ImageExt};
use uuid::Uuid;

use crate::daemon::{self, Daemon};
use crate::error::{Failure, within};
use crate::image::MongoImage;
use crate::leash::Leash;
use crate::options::{DataFolder, ServerOptions};
use crate::running::{LastWords, Running, last_lines};
use crate::search::Found;
use crate::source::Source;

/// MongoDB's port, inside the container.
pub(crate) const PORT: u16 = 27017;
const DATA: &str = "/data/db";
const FILES: &str = "/server-files";

/// Creating and starting; the image is there already.
const START: Duration = Duration::from_secs(60);
/// A clean end, in which a server writes out what it has in memory.
const STOP: Duration = Duration::from_secs(30);

/// A container whose end is certain.
#[derive(Debug)]
pub(crate) struct Container {
    name: String,
    container: ContainerAsync<GenericImage>,
    leash: Leash,
}

/// How a server in a container is reached.
#[derive(Debug, Clone)]
pub(crate) enum Reach {
    /// Through a port of this machine's loopback.
    Loopback,
    /// By its address in this network, which is nobody else's.
    Network(String),
}

/// Starts a container and makes the server in it a replica set.
pub(crate) async fn start(options: &ServerOptions) -> Result<Found, Failure> {
    let daemon = Daemon::connect().await?;
    let image = MongoImage::provide(&daemon).await?;
    let container = launch(&daemon, &image, options, Reach::Loopback).await?;
    let source = container.source(&image);
    let port = container.container.get_host_port_ipv4(PORT.tcp()).await;
    let running = Running::Container(Box::new(container));
    let port = match port {
        Ok(port) => port,
        Err(error) => {
            let last_words = running.last_words().await.unwrap_or_default();
            running.shut_down().await?;
            let text = format!("asking for the container's port failed: {error}\n{last_words}");
            return Err(Failure::new(text));
        }
    };
    Found::server(source, port, PORT, options, running).await
}

/// Starts a container; the server in it may not listen yet.
pub(crate) async fn launch(
    daemon: &Daemon,
    image: &MongoImage,
    options: &ServerOptions,
    reach: Reach,
) -> Result<Container, Failure> {
    let name = fresh_name();
    let leash = Leash::container(&name, &daemon::host())?;
    let request = request(image, &name, options, reach);
    match within(START, "starting a container", request.start()).await {
        Ok(container) => Ok(Container {
            name,
            container,
            leash,
        }),
        Err(failure) => {
            // It may have been created all the same. Where the removal fails, dropping
            // the leash tries again.
            if daemon.remove(&name).await.is_ok() {
                leash.release();
            }
            Err(failure)
        }
    }
}

/// A name for a container or a network that shows whose it is.
pub(crate) fn fresh_name() -> String {
    format!("mongodb-test-server-{}", Uuid::now_v7().simple())
}

fn request(
    image: &MongoImage,
    name: &str,
    options: &ServerOptions,
    reach: Reach,
) -> ContainerRequest<GenericImage> {
    let data = options.data();
    let mut request = image
        .to_image()
        .with_exposed_port(PORT.tcp())
        .with_container_name(name)
        // By number, because the built image has no list of users. The official image
        // would start as root as well and then change to a user of its own, who could
        // not read a private key.
        .with_user("0:0")
        .with_cmd(options.command_line("0.0.0.0", PORT, DATA, FILES));
    if let Reach::Network(network) = &reach {
        request = request.with_network(network);
    }
    request = request.with_host_config_modifier(move |config| confine(config, data, &reach));
    for file in options.files() {
        let target = CopyTargetOptions::new(format!("{FILES}/{}", file.name)).with_mode(file.mode);
        request = request.with_copy_to(target, file.bytes.clone());
    }
    request
}

/// Publishes the port on loopback only (testcontainers would publish it on every
/// interface) or nowhere, and keeps the data where they are to be.
fn confine(config: &mut HostConfig, data: DataFolder, reach: &Reach) {
    config.publish_all_ports = Some(false);
    if let Reach::Loopback = reach {
        let binding = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            // Docker chooses a free one.
            host_port: Some(String::new()),
        };
        config.port_bindings = Some(HashMap::from([(
            format!("{PORT}/tcp"),
            Some(vec![binding]),
        )]));
    }
    // The official image declares a volume at each of these; the second stays empty.
    let in_memory = match data {
        DataFolder::Memory => &[DATA, "/data/configdb"],
        DataFolder::Disk => {
            // Without a name, so that it goes with the container. The built image declares
            // no volume, and a layered file system is slow to write through.
            config.mounts = Some(vec![Mount {
                target: Some(DATA.to_owned()),
                typ: Some(MountType::VOLUME),
                ..Mount::default()
            }]);
            &["/data/configdb"][..]
        }
    };
    config.tmpfs = Some(
        in_memory
            .iter()
            .map(|path| ((*path).to_owned(), "rw".to_owned()))
            .collect(),
    );
}

impl Container {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where a server in this container comes from.
    pub(crate) fn source(&self, image: &MongoImage) -> Source {
        Source::Container {
            image: image.full_name(),
            name: self.name.clone(),
        }
    }

    /// Starts it again after its server ended.
    pub(crate) async fn start_again(&self) -> Result<(), Failure> {
        let doing = format!("starting container {}", self.name);
        within(START, &doing, self.container.start()).await
    }

    /// Ends the server cleanly; one that does not end by itself is killed, which is a failure.
    pub(crate) async fn stop(&self) -> Result<(), Failure> {
        let doing = format!("stopping container {}", self.name);
        let patience = i32::try_from(STOP.as_secs()).unwrap_or(i32::MAX);
        let stopped = self.container.stop_with_timeout(Some(patience));
        within(STOP * 2, &doing, stopped).await?;
        match self.container.exit_code().await {
            Ok(Some(0)) => Ok(()),
            code => Err(Failure::new(format!(
                "{doing}: it did not end cleanly: {code:?}"
            ))),
        }
    }

    /// Lets no process of it run any more.
    pub(crate) async fn pause(&self) -> Result<(), Failure> {
        let doing = format!("pausing container {}", self.name);
        within(STOP, &doing, self.container.pause()).await
    }

    pub(crate) async fn unpause(&self) -> Result<(), Failure> {
        let doing = format!("going on with container {}", self.name);
        within(STOP, &doing, self.container.unpause()).await
    }

    /// Removes the container and its volumes.
    pub(crate) async fn shut_down(self) -> Result<(), Failure> {
        match self.container.rm().await {
            Ok(()) => {
                self.leash.release();
                Ok(())
            }
            // Dropping the leash tries another way.
            Err(error) => Err(Failure::of(
                format!("removing container {}", self.name),
                &error,
            )),
        }
    }
}

impl LastWords for Container {
    async fn last_words(&self) -> Option<String> {
        if self.container.is_running().await.unwrap_or(true) {
            return None;
        }
        let stdout = self.container.stdout_to_vec().await.unwrap_or_default();
        let stderr = self.container.stderr_to_vec().await.unwrap_or_default();
        Some(last_lines(&[stdout, stderr].concat()))
    }
}
