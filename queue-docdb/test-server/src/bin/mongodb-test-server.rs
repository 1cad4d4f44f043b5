//! Starts a MongoDB for tests, prints its URI and source, and keeps it until stdin ends.
//!
//! `cargo run -p mongodb-test-server` gives you a database to try things out. With the argument
//! `replica-set`, it is a replica set of three; another argument is one for `mongod`. The
//! crate's tests kill this program and check what it leaves behind.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use mongodb_test_server::{MongoReplicaSet, MongoServer, ReplicaSetOptions, ServerOptions, Source};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without a driver needs nothing");
    match runtime.block_on(run(env::args().nth(1))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(argument: Option<String>) -> Result<(), Box<dyn Error>> {
    match argument.as_deref() {
        None => {
            // A static, which is never dropped.
            let server = MongoServer::shared().await?;
            keep(server.uri(), server.source())?;
        }
        Some("replica-set") => {
            let set = MongoReplicaSet::start(ReplicaSetOptions::new()).await?;
            keep(&set.uri(), set.source())?;
            set.shut_down().await?;
        }
        Some(argument) => {
            let options = ServerOptions::new().with_arguments([argument]);
            let server = MongoServer::start_dedicated(options).await?;
            keep(server.uri(), server.source())?;
            server.stop().await?;
        }
    }
    Ok(())
}

fn keep(uri: &str, source: &Source) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{uri}\n{source}")?;
    stdout.flush()?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}
