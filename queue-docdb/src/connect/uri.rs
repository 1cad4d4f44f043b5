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

const ESCAPES: &str = "the user name, the password or the database in the URI is not valid: write \
                       : / ? # [ ] @ % in them percent-encoded";

const HOSTS: &str = "the hosts in the URI are not valid: each must be a name or an address, with a \
                     port from 1 to 65535 if it has one";

/// Whether the URI has this option.
pub(crate) fn names(uri: &str, option: &str) -> bool {
    let (_, settings) = uri.split_once('?').unwrap_or_default();
    let mut names = settings.split('&').filter_map(|it| it.split_once('='));
    names.any(|(name, _)| name.eq_ignore_ascii_case(option))
}

/// Refuses what the driver would quote, or would take for hosts and options.
pub(crate) fn check(uri: &str) -> Result<Parts<'_>, Error> {
    let message = match Parts::of(uri) {
        None => "the URI's scheme is not valid; it must begin with mongodb:// or mongodb+srv://",
        Some(parts) if parts.options.contains('@') => {
            "the URI has an @ after a ?: in a password write %3F and %40, in an option %40"
        }
        Some(parts) if parts.has_bare_percent() => ESCAPES,
        Some(parts) => return Ok(parts),
    };
    Err(invalid(message))
}

/// A URI as the driver divides it.
pub(crate) struct Parts<'a> {
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

    /// The driver panics at a `%` before a character of several bytes.
    fn has_bare_percent(&self) -> bool {
        let escapes = self.user.unwrap_or_default().split('%').skip(1);
        let mut digits = escapes.map(|escape| escape.bytes().take(2).filter(u8::is_ascii_hexdigit));
        digits.any(|digits| digits.count() < 2)
    }

    /// The public error for a URI that the driver refused with `error`.
    pub(crate) async fn explain(&self, error: DriverError, deadline: Deadline) -> Error {
        if let DriverKind::DnsResolve { .. } | DriverKind::Io(_) = &*error.kind {
            let message = format!("the host name {} was not resolved", self.host());
            return explained_by(error, ErrorKind::Unavailable, OPERATION, &message);
        }
        // If the host is missing, the user and the password look like one and its port.
        let hosts = format!("mongodb://{}", self.host());
        if self.user.is_none() && ClientOptions::parse(hosts).await.is_err() {
            return invalid(HOSTS);
        }
        // Parsed without the password, so that the driver cannot quote it.
        match deadline.run(ClientOptions::parse(self.anonymous())).await {
            Err(StoreError::Driver(error)) => {
                let (kind, message) = (ErrorKind::InvalidInput, "the URI is not valid");
                explained_by(error, kind, OPERATION, message)
            }
            _ => invalid(ESCAPES),
        }
    }

    /// Without the database.
    fn host(&self) -> &'a str {
        self.hosts.split('/').next().unwrap_or_default()
    }

    /// The URI with an `x` for each character of the user name and the password.
    fn anonymous(&self) -> String {
        let hidden = |text: &str| "x".repeat(text.chars().count());
        let user = self.user.map(|user| match user.split_once(':') {
            Some((name, password)) => format!("{}:{}@", hidden(name), hidden(password)),
            None => hidden(user) + "@",
        });
        let (scheme, user) = (self.scheme, user.unwrap_or_default());
        format!("{scheme}://{user}{}{}", self.hosts, self.options)
    }
}
