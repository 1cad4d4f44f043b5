//! The four ways to a MongoDB, in their order.

use std::env;

use crate::error::{Failure, StartError};
use crate::options::{ServerOptions, plain_uri};
use crate::running::Running;
use crate::source::{Source, URI_VARIABLE};
use crate::{container, fetch, process, replica_set};

/// A server that is ready for use.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) source: Source,
    pub(crate) uri: String,
    pub(crate) admin_uri: String,
    pub(crate) running: Running,
}

/// Finds somebody else's server, or starts one.
pub(crate) async fn any() -> Result<Found, StartError> {
    let Some(uri) = env::var(URI_VARIABLE).ok().filter(|uri| !uri.is_empty()) else {
        return own(&ServerOptions::new(), "not set").await;
    };
    // Whoever sets the variable means that server; another one would only hide a mistake.
    replica_set::check(&uri)
        .await
        .map_err(|failure| StartError::external(&failure))?;
    Ok(Found {
        source: Source::External,
        admin_uri: uri.clone(),
        uri,
        running: Running::External,
    })
}

/// Starts a server that nobody else uses.
pub(crate) async fn dedicated(options: &ServerOptions) -> Result<Found, StartError> {
    own(options, "not for a dedicated server").await
}

async fn own(options: &ServerOptions, no_environment: &str) -> Result<Found, StartError> {
    let docker = match container::start(options).await {
        Ok(found) => return Ok(found),
        Err(failure) => failure,
    };
    let path = match on_path(options).await {
        Ok(found) => return Ok(found),
        Err(failure) => failure,
    };
    let fetched = match fetched(options).await {
        Ok(found) => return Ok(found),
        Err(failure) => failure,
    };
    Err(StartError::all(no_environment, &docker, &path, &fetched))
}

async fn on_path(options: &ServerOptions) -> Result<Found, Failure> {
    let program = process::on_path()?;
    process::start(Source::OnPath { program }, options).await
}

async fn fetched(options: &ServerOptions) -> Result<Found, Failure> {
    let program = fetch::mongod().await?;
    process::start(Source::Fetched { program }, options).await
}

impl Found {
    /// Makes what runs at `port` a replica set, or takes it down again.
    ///
    /// `own_port` is the port that the server itself listens on.
    pub(crate) async fn server(
        source: Source,
        port: u16,
        own_port: u16,
        options: &ServerOptions,
        running: Running,
    ) -> Result<Self, Failure> {
        let address = format!("127.0.0.1:{port}");
        let admin_uri = options.admin_uri(&address);
        let member = format!("127.0.0.1:{own_port}");
        let ready = async {
            replica_set::await_answer(&admin_uri, &running).await?;
            running.verify(&replica_set::data_path(&admin_uri).await?)?;
            replica_set::initiate(&admin_uri, &member).await
        };
        if let Err(failure) = ready.await {
            let text = format!("{source}: {failure}");
            // The failure is the news; what is left behind, if anything, is the leash's.
            let _ = running.shut_down().await;
            return Err(Failure::new(text));
        }
        Ok(Self {
            source,
            uri: plain_uri(&address),
            admin_uri,
            running,
        })
    }
}
