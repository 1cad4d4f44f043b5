//! What is wrong with a URI, without its password.
//!
//! The driver quotes what it does not understand, and takes a password with an unescaped `/`, `?`
//! or `@` for a host, an option or a database.

use mongodb::{
    error::{Error as DriverError, ErrorKind as DriverKind},
    options::ClientOptions,
};
use queue_api::{Error, ErrorKind};

use super::operation::{OPERATION, invalid};
use crate::store::{driver_error::explained_by, error::StoreError, retry::Deadline};

const ESCAPES: &str = "the user name or the password in the URI is not valid: write : / ? # [ ] @ % \
                       in them percent-encoded";

const HOSTS: &str = "the hosts in the URI are not valid: each must be a name or an address, with a \
                     port from 1 to 65535 if it has one";

/// Whether the URI has this option.
pub(crate) fn names(uri: &str, option: &str) -> bool {
    let (_, settings) = uri.split_once('?').unwrap_or_default();
    let mut names = settings.split('&').filter_map(|it| it.split_once('='));
    names.any(|(name, _)| name.eq_ignore_ascii_case(option))
}

/// Refuses what the driver would quote, or would take for hosts and options.
pub(crate) fn check(uri: &str) -> Result<(), Error> {
    let message = match Parts::of(uri) {
        None => "the URI's scheme is not valid; it must begin with mongodb:// or mongodb+srv://",
        Some(parts) if parts.options.contains('@') => {
            "the URI has an @ after a ?: in a password write %3F and %40, in an option %40"
        }
        Some(_) => return Ok(()),
    };
    Err(invalid(message))
}

/// The public error for a URI that the driver refused with `error`.
pub(crate) async fn explain(uri: &str, error: DriverError, deadline: Deadline) -> Error {
    let Some(parts) = Parts::of(uri) else {
        return invalid(ESCAPES);
    };
    if matches!(
        &*error.kind,
        DriverKind::DnsResolve { .. } | DriverKind::Io(_)
    ) {
        let message = format!("the host name {} was not resolved", parts.host());
        return explained_by(error, ErrorKind::Unavailable, OPERATION, &message);
    }
    if let Some(problem) = parts.problem().await {
        return invalid(problem);
    }
    // Parsed without the password, so that the driver cannot quote it.
    match deadline.run(ClientOptions::parse(parts.anonymous())).await {
        Err(StoreError::Driver(error)) => {
            let (kind, message) = (ErrorKind::InvalidInput, "the URI is not valid");
            explained_by(error, kind, OPERATION, message)
        }
        _ => invalid(ESCAPES),
    }
}

/// A URI as the driver divides it.
struct Parts<'a> {
    scheme: &'a str,
    /// User name and password, if there is an `@` before the options.
    user: Option<&'a str>,
    /// Hosts and database.
    hosts: &'a str,
    /// With the question mark.
    options: &'a str,
}

impl<'a> Parts<'a> {
    fn of(uri: &'a str) -> Option<Self> {
        let (scheme, rest) = uri.split_once("://")?;
        if !matches!(scheme, "mongodb" | "mongodb+srv") {
            return None;
        }
        let (before, options) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let (user, hosts) = match before.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, before),
        };
        Some(Self {
            scheme,
            user,
            hosts,
            options,
        })
    }

    /// Without the database.
    fn host(&self) -> &'a str {
        self.hosts
            .split_once('/')
            .map_or(self.hosts, |(hosts, _)| hosts)
    }

    /// What is certainly wrong with the credentials, their end or the hosts.
    async fn problem(&self) -> Option<String> {
        let Some(user) = self.user else {
            // If the host is missing, the user and the password look like one and its port.
            let hosts = ClientOptions::parse(format!("mongodb://{}", self.host())).await;
            return hosts.is_err().then(|| HOSTS.to_owned());
        };
        if let Some((hosts, _)) = user.split_once('/') {
            // The @ may be in the database's name, or the / in the password.
            let hosts = ClientOptions::parse(format!("mongodb://{hosts}")).await;
            return Some(match hosts {
                Ok(_) => format!(
                    "the URI has an @ after a /: if it is in the database's name, write %40; else \
                     {ESCAPES}"
                ),
                Err(_) => ESCAPES.to_owned(),
            });
        }
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let is_escaped = |text: &str| {
            let mut escapes = text.split('%').skip(1);
            let is_hexadecimal = |escape: &str| {
                let digits = escape.bytes().take(2).filter(u8::is_ascii_hexdigit);
                digits.count() == 2
            };
            !text.contains([':', '/', '?', '#', '[', ']', '@']) && escapes.all(is_hexadecimal)
        };
        let is_escaped = is_escaped(name) && is_escaped(password);
        (!is_escaped).then(|| ESCAPES.to_owned())
    }

    /// The URI with another user name and password where it has them.
    fn anonymous(&self) -> String {
        let Self {
            scheme,
            user,
            hosts,
            options,
        } = self;
        let user = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            None => "",
            Some(("", "")) => "@",
            Some((_, "")) => "name@",
            Some(("", _)) => ":password@",
            Some(_) => "name:password@",
        };
        format!("{scheme}://{user}{hosts}{options}")
    }
}
