//! The three ways to a server, in their order.

use std::env;
use std::future::Future;
use std::path::Path;

use mongodb::bson::doc;

use crate::container::{self, Container, Reach};
use crate::docker::Docker;
use crate::error::{StartError, StepError};
use crate::image::MongoImage;
use crate::options::{Deployment, ServerOptions, plain_uri};
use crate::process::{Process, retry_ports};
use crate::source::{Source, URI_VARIABLE};
use crate::{mongod, replica_set};

/// A server that is ready for use.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) source: Source,
    pub(crate) uri: String,
    pub(crate) admin_uri: String,
    pub(crate) running: Running,
}

/// What has to be removed.
#[derive(Debug)]
pub(crate) enum Running {
    External,
    Container(Box<Container>),
    Process(Process),
}

impl Running {
    /// Removes the server and all that belongs to it.
    pub(crate) async fn remove(self) -> Result<(), StepError> {
        match self {
            Self::External => Ok(()),
            Self::Container(container) => container.remove().await,
            Self::Process(process) => process.remove(),
        }
    }
}

/// Uses the named server, or starts one.
pub(crate) async fn any() -> Result<Ready, StartError> {
    let Some(uri) = env::var(URI_VARIABLE).ok().filter(|uri| !uri.is_empty()) else {
        return own("not set", &ServerOptions::new()).await;
    };
    // Starting another server would hide a mistake in the variable.
    let not_tried = || format!("not tried, because {URI_VARIABLE} is set");
    replica_set::check(&uri)
        .await
        .map_err(|failure| StartError {
            named: failure.to_string(),
            docker: not_tried(),
            process: not_tried(),
        })?;
    Ok(Ready {
        source: Source::External,
        admin_uri: uri.clone(),
        uri,
        running: Running::External,
    })
}

/// Starts a server for one test.
pub(crate) async fn dedicated(options: &ServerOptions) -> Result<Ready, StartError> {
    own("not used for a dedicated server", options).await
}

async fn own(named: &str, options: &ServerOptions) -> Result<Ready, StartError> {
    docker_or_process(named, in_container(options), as_process(options)).await
}

/// Tries Docker, then processes.
pub(crate) async fn docker_or_process<T>(
    named: &str,
    docker: impl Future<Output = Result<T, StepError>>,
    process: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StartError> {
    let docker = match docker.await {
        Ok(started) => return Ok(started),
        Err(failure) => failure,
    };
    process.await.map_err(|process| StartError {
        named: named.to_owned(),
        docker: docker.to_string(),
        process: process.to_string(),
    })
}

async fn in_container(options: &ServerOptions) -> Result<Ready, StepError> {
    let docker = Docker::connect().await?;
    let image = MongoImage::provide(&docker).await?;
    let container = Container::start(&docker, &image, options, Reach::Loopback).await?;
    let address = format!("127.0.0.1:{}", container.port().await?);
    let uri = options.admin_uri(&address);
    replica_set::await_answer(&uri, container::DATA, &container).await?;
    // Its address as the server itself sees it.
    initiate(options, &uri, format!("127.0.0.1:{}", container::PORT)).await?;
    Ok(Ready {
        source: container.source(),
        uri: plain_uri(&address),
        admin_uri: uri,
        running: Running::Container(Box::new(container)),
    })
}

async fn as_process(options: &ServerOptions) -> Result<Ready, StepError> {
    let program = mongod::find().await?;
    retry_ports(async || process(&program, options).await).await
}

async fn process(program: &Path, options: &ServerOptions) -> Result<Ready, StepError> {
    let process = Process::start(program, options)?;
    let address = process.address();
    let uri = options.admin_uri(&address);
    replica_set::await_answer(&uri, &process.data_path(), &process).await?;
    initiate(options, &uri, address.clone()).await?;
    Ok(Ready {
        source: Source::Process {
            program: program.to_owned(),
        },
        uri: plain_uri(&address),
        admin_uri: uri,
        running: Running::Process(process),
    })
}

async fn initiate(options: &ServerOptions, uri: &str, address: String) -> Result<(), StepError> {
    if options.deployment() != Deployment::ReplicaSet {
        return Ok(());
    }
    let config = doc! { "_id": replica_set::NAME, "members": [{ "_id": 0, "host": address }] };
    replica_set::initiate(uri, config).await
}
