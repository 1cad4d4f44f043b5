//! A server in a container.

use std::collections::HashMap;
use std::time::Duration;

use testcontainers::bollard::models::{HostConfig, PortBinding};
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, CopyTargetOptions, GenericImage, ImageExt};
use uuid::Uuid;

use crate::daemon::{self, Daemon};
use crate::error::{Failure, within};
use crate::image::MongoImage;
use crate::leash::Leash;
use crate::options::{DataFolder, ServerOptions};
use crate::running::{Running, last_lines};
use crate::search::Found;
use crate::source::Source;

/// MongoDB's port, inside the container.
const PORT: u16 = 27017;
const DATA: &str = "/data/db";
const FILES: &str = "/server-files";

/// Creating and starting; the image is there already.
const START: Duration = Duration::from_secs(60);

/// A container whose end is certain.
#[derive(Debug)]
pub(crate) struct Container {
    name: String,
    container: ContainerAsync<GenericImage>,
    leash: Leash,
}

/// Starts a container and makes the server in it a replica set.
pub(crate) async fn start(options: &ServerOptions) -> Result<Found, Failure> {
    let daemon = Daemon::connect().await?;
    let image = MongoImage::provide(&daemon).await?;
    let name = format!("mongodb-test-server-{}", Uuid::now_v7().simple());
    let host = daemon::host();
    let leash = Leash::container(&name, &host, daemon::socket(&host))?;

    let request = request(&image, &name, options);
    let started = within(START, "starting a container", request.start()).await;
    let container = match started {
        Ok(container) => container,
        Err(failure) => {
            // It may have been created all the same. Where the removal fails, dropping
            // the leash tries again.
            if daemon.remove(&name).await.is_ok() {
                leash.release();
            }
            return Err(failure);
        }
    };
    let source = Source::Container {
        image: image.full_name(),
        name: name.clone(),
    };
    let port = container.get_host_port_ipv4(PORT.tcp()).await;
    let running = Running::Container(Box::new(Container {
        name,
        container,
        leash,
    }));
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

fn request(
    image: &MongoImage,
    name: &str,
    options: &ServerOptions,
) -> ContainerRequest<GenericImage> {
    let on_disk = options.data() == DataFolder::Disk;
    let mut request = image
        .to_image()
        .with_exposed_port(PORT.tcp())
        .with_container_name(name)
        // By number, because the built image has no list of users. The official image
        // would start as root as well and then change to a user of its own, who could
        // not read a private key.
        .with_user("0:0")
        .with_cmd(options.command_line("0.0.0.0", PORT, DATA, FILES))
        .with_host_config_modifier(move |config| confine(config, on_disk));
    for file in options.files() {
        let target = CopyTargetOptions::new(format!("{FILES}/{}", file.name)).with_mode(file.mode);
        request = request.with_copy_to(target, file.bytes.clone());
    }
    request
}

/// Publishes the port on loopback only (testcontainers would publish it on every
/// interface), and keeps the data in memory.
fn confine(config: &mut HostConfig, on_disk: bool) {
    let binding = PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        // Docker chooses a free one.
        host_port: Some(String::new()),
    };
    config.publish_all_ports = Some(false);
    config.port_bindings = Some(HashMap::from([(
        format!("{PORT}/tcp"),
        Some(vec![binding]),
    )]));
    // The official image declares a volume at each of these; the second stays empty.
    let in_memory = if on_disk {
        &["/data/configdb"][..]
    } else {
        &[DATA, "/data/configdb"]
    };
    config.tmpfs = Some(
        in_memory
            .iter()
            .map(|path| ((*path).to_owned(), "rw".to_owned()))
            .collect(),
    );
}

impl Container {
    /// What the server said last, if it has ended.
    pub(crate) async fn last_words(&self) -> Option<String> {
        if self.container.is_running().await.unwrap_or(true) {
            return None;
        }
        let stdout = self.container.stdout_to_vec().await.unwrap_or_default();
        let stderr = self.container.stderr_to_vec().await.unwrap_or_default();
        Some(last_lines(&[stdout, stderr].concat()))
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
