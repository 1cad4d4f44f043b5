//! The errors of a connect that failed.

use mongodb::{
    error::{Error as DriverError, ErrorKind as DriverKind},
    options::{AuthMechanism, ClientOptions, Tls},
};
use queue_api::{Error, ErrorKind};

use super::{
    operation::OPERATION,
    server_check::{self, Diagnosis, Mistake},
    uri,
};
use crate::store::{
    driver_error::{caused_by, explained_by, explanation, words},
    error::StoreError,
};

/// The error of a client that the driver does not make.
pub(crate) fn by_driver(options: &ClientOptions, error: DriverError) -> Error {
    let key_file = match &options.tls {
        Some(Tls::Enabled(tls)) => tls.cert_key_file_path.as_deref(),
        _ => None,
    };
    let message = match (&*error.kind, key_file) {
        // The CA file has been read.
        (DriverKind::InvalidTlsConfig { .. }, Some(path)) => format!(
            "the file {} of tlsCertificateKeyFile cannot be used",
            path.display()
        ),
        _ => "the settings cannot be used".to_owned(),
    };
    explained_by(error, ErrorKind::InvalidInput, OPERATION, &message)
}

/// The error of settings that do not fit the servers.
pub(crate) fn by_mistakes(mistakes: Vec<Mistake>) -> Error {
    let mistakes = mistakes.into_iter().map(|it| (it.text, it.cause));
    let (texts, causes): (Vec<_>, Vec<_>) = mistakes.unzip();
    let (kind, message) = (ErrorKind::InvalidInput, texts.join("; "));
    match causes.into_iter().flatten().next() {
        Some(cause) => caused_by(cause, kind, OPERATION, message),
        None => Error::new(kind, OPERATION, message),
    }
}

/// The error of a server that did not accept the client, or of none that answered.
pub(crate) fn by_server(
    uri: &str,
    options: &ClientOptions,
    error: StoreError,
    found: Diagnosis,
) -> Error {
    let kind = error.kind();
    if matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut) && !found.mistakes.is_empty() {
        // The servers without a mistake answered, so this is no outage.
        if !found.is_outage {
            return by_mistakes(found.mistakes);
        }
        let texts = found.mistakes.into_iter().map(|mistake| mistake.text);
        let message = texts.chain(found.states).collect::<Vec<_>>().join("; ");
        return match error {
            StoreError::Driver(error) => caused_by(error, kind, OPERATION, message),
            error => Error::new(kind, OPERATION, format!("{message}: {error}")),
        };
    }
    let hosts: Vec<_> = options.hosts.iter().map(ToString::to_string).collect();
    let hosts = hosts.join(", ");
    match error {
        StoreError::TimedOut(after) => {
            let states = match found.states.is_empty() {
                true => hosts,
                false => found.states.join("; "),
            };
            let message = format!("no answer within {after}: {states}");
            Error::new(kind, OPERATION, message)
        }
        StoreError::Driver(error) => {
            let (text, explanation) = (words(&error), explanation(kind, OPERATION));
            let mut all = options.hosts.iter();
            let message = if kind == ErrorKind::Denied {
                format!("{explanation}{}", auth_hint(uri, options))
            } else if options.load_balanced == Some(true)
                && matches!(&*error.kind, DriverKind::IncompatibleServer { .. })
            {
                format!(
                    "loadBalanced is true, but {hosts} is no load balancer; remove loadBalanced"
                )
            } else if all.any(|host| text.contains(&host.to_string())) {
                explanation
            } else {
                format!("{hosts}: {explanation}")
            };
            explained_by(error, kind, OPERATION, &message)
        }
        error => error.during(OPERATION),
    }
}

/// The same for the application's client, whose options are unknown.
pub(crate) fn own_client(error: StoreError) -> Error {
    match error {
        StoreError::TimedOut(after) => {
            let message = format!(
                "no answer within {after}; the client gives its reason only after its own \
                 serverSelectionTimeoutMS, which is 30 s by default; set it below the operation \
                 timeout"
            );
            Error::new(ErrorKind::TimedOut, OPERATION, message)
        }
        StoreError::Driver(error) if server_check::wants_api_version(&error) => {
            let message = server_check::API_VERSION.to_owned();
            caused_by(error, ErrorKind::InvalidInput, OPERATION, message)
        }
        error => error.during(OPERATION),
    }
}

/// Where the server has looked for the user.
fn auth_hint(uri: &str, options: &ClientOptions) -> String {
    use AuthMechanism::{ScramSha1, ScramSha256};
    let Some(credential) = &options.credential else {
        return String::new();
    };
    let (None | Some(ScramSha1 | ScramSha256)) = &credential.mechanism else {
        return String::new();
    };
    let default = options.default_database.as_deref().unwrap_or("admin");
    let source = credential.source.as_deref().unwrap_or(default);
    match uri::names(uri, "authSource") {
        true => format!(
            " (authSource is {source}; it must be the database in which the user was created)"
        ),
        false if source == "admin" => String::new(),
        false => format!(
            " (the URI has no authSource, so the user is looked for in the database {source}; most \
             users are in admin)"
        ),
    }
}
