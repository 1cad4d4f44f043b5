//! Asks each server of the URI by itself, without logging in. So this also works while there is no
//! primary, or while the password is wrong.

use std::time::{Duration, SystemTime};

use futures::future::join_all;
use queue_docdb::mongodb::{
    Client,
    bson::{Bson, Document, doc},
    error::{Error as DriverError, ErrorKind as DriverKind},
    options::{ClientOptions, ServerAddress},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

const TIMEOUT: Duration = Duration::from_secs(3);

/// The shortest one shows the clock's offset best.
const ROUND_TRIPS: usize = 5;

pub(super) struct Member {
    pub(super) address: String,
    pub(super) answer: Result<Answer, String>,
}

const NOTHING_LISTENS: &str = "nothing listens there";

/// Where no server takes connections.
pub(super) fn nothing_listens(members: &[Member]) -> bool {
    let refuses = |it: &Member| it.answer.as_ref().is_err_and(|why| why == NOTHING_LISTENS);
    !members.is_empty() && members.iter().all(refuses)
}

pub(super) struct Answer {
    pub(super) hello: Document,
    /// Absent if the server tells it to nobody without a login.
    pub(super) version: Option<String>,
    /// Of a command on an open connection, in order of size.
    pub(super) round_trips: Vec<Duration>,
    /// The server's clock minus this machine's, in seconds, and how wrong that may be.
    pub(super) offset: Option<(f64, f64)>,
}

impl Answer {
    pub(super) fn is(&self, state: &str) -> bool {
        self.hello.get_bool(state).unwrap_or(false)
    }

    /// The members that vote, unless some do not, which is rare.
    pub(super) fn members(&self) -> Vec<String> {
        let lists = ["hosts", "passives", "arbiters"];
        let lists = lists.iter().filter_map(|it| self.hello.get_array(it).ok());
        let names = lists.flatten().filter_map(Bson::as_str);
        names.map(str::to_owned).collect()
    }
}

/// The servers of the URI, and those that they name.
pub(super) async fn probe(options: &ClientOptions) -> Vec<Member> {
    let mut members = ask_all(options, options.hosts.clone()).await;
    if options.direct_connection == Some(true) || options.load_balanced == Some(true) {
        return members;
    }
    let answers = members.iter().filter_map(|it| it.answer.as_ref().ok());
    let mut named: Vec<String> = answers.flat_map(Answer::members).collect();
    named.sort();
    named.dedup();
    named.retain(|name| members.iter().all(|it| it.address != *name));
    let named = named
        .iter()
        .filter_map(|name| ServerAddress::parse(name).ok());
    members.extend(ask_all(options, named.collect()).await);
    members
}

async fn ask_all(options: &ClientOptions, hosts: Vec<ServerAddress>) -> Vec<Member> {
    join_all(hosts.into_iter().map(async |host| {
        let address = host.to_string();
        let answer = match ask(options, host.clone()).await {
            Ok(answer) => Ok(answer),
            Err(_) if refuses(&host).await => Err(NOTHING_LISTENS.to_owned()),
            Err(error) => Err(error_text(&error)),
        };
        Member { address, answer }
    }))
    .await
}

/// Whether nothing listens. The driver's text of that depends on the moment.
async fn refuses(host: &ServerAddress) -> bool {
    let ServerAddress::Tcp { host, port } = host else {
        return false;
    };
    let address = (host.as_str(), port.unwrap_or(27017));
    let connected = timeout(TIMEOUT, TcpStream::connect(address)).await;
    let refused = std::io::ErrorKind::ConnectionRefused;
    connected.is_ok_and(|it| it.is_err_and(|error| error.kind() == refused))
}

async fn ask(options: &ClientOptions, host: ServerAddress) -> Result<Answer, DriverError> {
    let mut options = options.clone();
    options.hosts = vec![host];
    options.direct_connection = Some(true);
    options.load_balanced = None;
    options.repl_set_name = None;
    options.credential = None;
    options.server_selection_timeout = Some(TIMEOUT);
    options.connect_timeout = Some(TIMEOUT);
    let admin = Client::with_options(options)?.database("admin");
    // Opens the connection.
    let build = admin.run_command(doc! { "buildInfo": 1 }).await;
    let mut answer = Answer {
        hello: Document::new(),
        version: None,
        round_trips: Vec::new(),
        offset: None,
    };
    if let Ok(build) = build {
        answer.version = build.get_str("version").ok().map(str::to_owned);
    }
    for _ in 0..ROUND_TRIPS {
        let (sent, began) = (wall_clock(), Instant::now());
        answer.hello = admin.run_command(doc! { "hello": 1 }).await?;
        let took = began.elapsed();
        let is_shortest = answer.round_trips.iter().all(|other| took < *other);
        if let (true, Ok(server)) = (is_shortest, answer.hello.get_datetime("localTime")) {
            let seconds = |time: SystemTime| {
                let since = time.duration_since(SystemTime::UNIX_EPOCH);
                since.unwrap_or_default().as_secs_f64()
            };
            let half = took.as_secs_f64() / 2.0;
            let offset = seconds(server.to_system_time()) - seconds(sent) - half;
            // The server's time has milliseconds.
            answer.offset = Some((offset, half + 0.001));
        }
        answer.round_trips.push(took);
    }
    answer.round_trips.sort();
    Ok(answer)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this machine's clock is what is checked and reported"
)]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// What the server said, or why there was no answer.
pub(crate) fn error_text(error: &DriverError) -> String {
    match &*error.kind {
        DriverKind::Command(command) => command.message.clone(),
        DriverKind::ServerSelection { message, .. } => match message.split_once("Error: ") {
            // The state of each server follows; there is one.
            Some((_, reason)) => {
                let (reason, _) = reason.split_once(", labels: {").unwrap_or((reason, ""));
                let reason = reason
                    .trim_start_matches("Kind: ")
                    .trim_start_matches("I/O error: ");
                reason.trim_end_matches([' ', '}', ']', ',']).to_owned()
            }
            None => message.clone(),
        },
        kind => kind.to_string(),
    }
}
