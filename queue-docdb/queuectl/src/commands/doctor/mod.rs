//! `doctor`: what is wrong with a connection, a server or a queue. It changes nothing.

mod certificate;
mod check;
mod database;
mod probe;
mod queues;
mod rights;
mod servers;

use clap::Args;
use queue_api::QueueName;
use queue_docdb::mongodb::options::{ClientOptions, Tls};

use self::check::{Check, Outcome};
pub(crate) use self::probe::{error_text, wall_clock};
use crate::{
    cli::ConnectArgs,
    connect::{Connection, Settings},
    failure::{Exit, Failure, Result},
    output::Output,
};

/// What needs a connection that works.
const AFTER_CONNECT: [&str; 4] = ["pool", "rights", "change stream", "queues"];

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Also check this queue: that it exists, its schema and its indexes.
    pub(crate) queue: Option<QueueName>,
}

pub(super) async fn run(connect: ConnectArgs, output: &mut Output, args: DoctorArgs) -> Result<()> {
    let settings = Settings::of(connect)?;
    // The driver panics at a `%` before the middle of a character.
    let cuts_no_character = |escape: &str| escape.len() < 2 || escape.is_char_boundary(2);
    let options = match settings.uri.split('%').skip(1).all(cuts_no_character) {
        true => ClientOptions::parse(&settings.uri).await.ok(),
        false => None,
    };
    let checks = match options {
        Some(options) => all(&settings, options, args).await,
        // The builder says what is wrong with the URI.
        None => vec![connection(settings.builder().connect().await.map(drop))],
    };
    output.rows(&checks)?;
    match checks.iter().any(|check| check.result == Outcome::Failed) {
        true => Err(Failure::new(Exit::Failed, "")),
        false => Ok(()),
    }
}

async fn all(settings: &Settings, mut options: ClientOptions, args: DoctorArgs) -> Vec<Check> {
    if let Some(file) = &settings.ca_file {
        let mut tls = match options.tls.take() {
            Some(Tls::Enabled(tls)) => tls,
            _ => Default::default(),
        };
        tls.ca_file_path = Some(file.clone());
        options.tls = Some(Tls::Enabled(tls));
    }
    let (connected, members, certificates) = tokio::join!(
        settings.builder().connect(),
        probe::probe(&options),
        certificate::check(&options),
    );
    let mut checks = Vec::new();
    let servers = servers::checks(&options, &members);
    let is_away = probe::nothing_listens(&members);
    let backend = match connected {
        Ok(backend) => {
            checks.push(connection(Ok(())));
            Ok(backend)
        }
        Err(_) if is_away => {
            let hosts: Vec<_> = members.iter().map(|it| it.address.as_str()).collect();
            let text = format!("nothing listens at {}", hosts.join(", "));
            checks.push(Check::failed("connection", text).advise("check host and port"));
            Err(())
        }
        Err(error) => {
            checks.push(connection(Err(error)));
            Err(())
        }
    };
    match is_away {
        true => checks.push(Check::not_checked("tls", "nothing listens")),
        false => checks.extend(certificates),
    }
    checks.extend(servers);
    let Ok(backend) = backend else {
        let not_checked = |it: &&'static str| Check::not_checked(it, "there is no connection");
        checks.extend(AFTER_CONNECT.iter().map(not_checked));
        return checks;
    };
    let connection = Connection::new(backend, settings);
    let database = connection.database();
    let is_amazon = members
        .iter()
        .filter_map(|member| member.answer.as_ref().ok())
        .any(|answer| servers::is_amazon(&options, answer));
    checks.push(database::pool(&options, &database).await);
    checks.push(rights::check(&database).await);
    checks.push(database::change_stream(&database, is_amazon).await);
    checks.push(queues::all(&connection, &database).await);
    if let Some(queue) = &args.queue {
        checks.extend(queues::one(&connection, queue).await);
    }
    checks
}

fn connection(connected: queue_api::Result<()>) -> Check {
    const NAME: &str = "connection";
    match connected {
        Ok(()) => Check::ok(NAME, "the primary answers and accepts the user"),
        Err(error) => Check::failed(NAME, format!("{error:#}")),
    }
}
