//! Starts a MongoDB for tests, prints its URI, and holds it until stdin ends.
//!
//! `cargo run -p mongodb-test-server` gives a database to try things out on; Ctrl-D
//! ends it, and so does anything else that ends the program. The argument says how to end
//! it (the crate's tests see what is left then):
//! - `stop` (the default) takes the server down properly;
//! - `leave` returns without doing anything about it;
//! - `panic` panics;
//! - `replica-set` holds a replica set of three instead, and takes it down properly.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use mongodb_test_server::{MongoReplicaSet, MongoServer, ReplicaSetOptions, Source};

fn main() -> ExitCode {
    let ending = env::args().nth(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a current-thread runtime needs a few file descriptors only");
    let result = match ending.as_deref() {
        None | Some("stop") => runtime.block_on(until_stopped()),
        Some("replica-set") => runtime.block_on(replica_set()),
        Some("leave") => runtime.block_on(left_alone()),
        Some("panic") => {
            let error = runtime.block_on(left_alone()).err();
            panic!("as asked; until then: {error:?}");
        }
        Some(other) => Err(format!("not one of stop, leave, panic, replica-set: {other}").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

async fn until_stopped() -> Result {
    let server = MongoServer::start().await?;
    hold(server.uri(), server.source())?;
    server.stop().await?;
    Ok(())
}

async fn replica_set() -> Result {
    let set = MongoReplicaSet::start(ReplicaSetOptions::new()).await?;
    hold(&set.uri(), set.source())?;
    set.take_down().await?;
    Ok(())
}

/// With the shared server, which is never dropped.
async fn left_alone() -> Result {
    let server = MongoServer::shared().await?;
    hold(server.uri(), server.source())?;
    Ok(())
}

fn hold(uri: &str, source: &Source) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{uri}")?;
    writeln!(stdout, "{source}")?;
    stdout.flush()?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}
