//! Mistakes in the TLS settings.

use std::{io, time::Duration};

use mongodb::{
    Client,
    error::{Error as DriverError, ErrorKind as DriverKind},
    event::{EventHandler, sdam::SdamEvent},
    options::{ClientOptions, ServerAddress, Tls, TlsOptions},
};
use tokio::sync::mpsc;

use crate::store::driver_error::words;

/// How long a server may take to answer on another kind of connection.
pub(crate) const PROBE: Duration = Duration::from_secs(2);

/// The same, if this much time is left.
pub(crate) fn probe_time(left: Duration) -> Duration {
    PROBE.min(left / 2)
}

/// What the TLS library says when a server ends the connection after the handshake.
const ENDED_AFTER_HANDSHAKE: &str = "close_notify";

/// The mistake that explains why a check of the server failed, if one does. It may ask the server on
/// another kind of connection, which takes up to `within`.
pub(crate) async fn find(
    error: &DriverError,
    address: &str,
    options: &ClientOptions,
    within: Duration,
) -> Option<String> {
    let text = words(error);
    let tls = match &options.tls {
        Some(Tls::Enabled(tls)) => Some(tls),
        Some(Tls::Disabled) | None => None,
    };
    if let Some(tls) = tls
        && let Some(mistake) = in_handshake(&text, address, tls)
    {
        return Some(mistake);
    }
    let DriverKind::Io(cause) = &*error.kind else {
        return None;
    };
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof,
    };
    let is_broken_off = matches!(
        cause.kind(),
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | InvalidData
    );
    if !is_broken_off {
        return None;
    }
    match tls {
        Some(tls) if text.contains(ENDED_AFTER_HANDSHAKE) => {
            // A server that is shutting down does so once.
            let again = probe(address, options, options.tls.clone(), within).await;
            let is_same = words(&again.err()?).contains(ENDED_AFTER_HANDSHAKE);
            is_same.then(|| wants_client_certificate(address, tls))
        }
        Some(tls) => {
            // Rustls says so when something else than TLS comes back.
            let is_plain = text.contains("InvalidContentType")
                || answers(&probe(address, options, None, within).await);
            let and_file = match &tls.ca_file_path {
                Some(_) => "remove ca_file (or tlsCAFile) and ",
                None => "",
            };
            is_plain.then(|| {
                format!(
                    "TLS is on, but {address} has no TLS; {and_file}add tls=false to the URI, or \
                     turn TLS on in the server"
                )
            })
        }
        None => {
            let mut any = TlsOptions::default();
            any.allow_invalid_certificates = Some(true);
            let answer = probe(address, options, Some(Tls::Enabled(any)), within).await;
            let has_tls = answers(&answer)
                || answer.is_err_and(|error| {
                    let text = words(&error);
                    ["alert", "certificate", ENDED_AFTER_HANDSHAKE]
                        .iter()
                        .any(|word| text.contains(word))
                });
            has_tls.then(|| {
                format!(
                    "{address} wants TLS, and the URI has none: add tls=true, and set ca_file to \
                     the file with its certificate authority"
                )
            })
        }
    }
}

/// What the TLS library says about certificates, if it does. The driver often passes on its error
/// as text only.
fn in_handshake(text: &str, address: &str, tls: &TlsOptions) -> Option<String> {
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if !has(&["certificate", "alert", "unknownissuer"]) {
        return None;
    }
    Some(if has(&["expired"]) {
        format!("the certificate of {address} has expired: {text}")
    } else if has(&["certificaterequired", "certificate required"]) {
        wants_client_certificate(address, tls)
    } else if has(&["alert"]) {
        format!(
            "{address} refuses the TLS handshake; check tlsCertificateKeyFile and the server's \
             TLS versions: {text}"
        )
    } else if has(&["not valid for", "hostname mismatch"]) {
        let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
        format!(
            "the certificate of {address} is not valid for the host {host}; use a host name that \
             it names: {text}"
        )
    } else if has(&["issuer", "self-signed", "self signed", "badsignature"]) {
        let hint = match &tls.ca_file_path {
            Some(path) => format!("none in the CA file {} has signed it", path.display()),
            None => "set ca_file to the file with its certificate authority".to_owned(),
        };
        format!("the certificate of {address} is signed by an unknown authority; {hint}: {text}")
    } else {
        format!("the certificate of {address} was refused: {text}")
    })
}

fn wants_client_certificate(address: &str, tls: &TlsOptions) -> String {
    match &tls.cert_key_file_path {
        None => format!(
            "{address} ends the connection after the TLS handshake, as servers do that want a \
             client certificate; set tlsCertificateKeyFile"
        ),
        Some(path) => format!(
            "{address} ends the connection after the TLS handshake; it may not accept the client \
             certificate in {} (tlsCertificateKeyFile)",
            path.display()
        ),
    }
}

/// Whether a server answers on a connection with the TLS options of the settings.
pub(crate) async fn is_there(address: &str, options: &ClientOptions, within: Duration) -> bool {
    answers(&probe(address, options, options.tls.clone(), within).await)
}

fn answers(answer: &Result<(), DriverError>) -> bool {
    match answer {
        Ok(()) => true,
        Err(error) => matches!(&*error.kind, DriverKind::Command(_)),
    }
}

/// Asks the server on a connection with these TLS options. No credentials are sent.
async fn probe(
    address: &str,
    options: &ClientOptions,
    tls: Option<Tls>,
    within: Duration,
) -> Result<(), DriverError> {
    let mut options = options.clone();
    options.hosts = vec![ServerAddress::parse(address)?];
    options.direct_connection = Some(true);
    options.repl_set_name = None;
    options.load_balanced = None;
    options.credential = None;
    options.tls = tls;
    options.min_pool_size = None;
    options.connect_timeout = Some(within);
    options.command_event_handler = None;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    options.sdam_event_handler = Some(EventHandler::callback(move |event| {
        // The receiver is dropped after the first check.
        let _ = match event {
            SdamEvent::ServerHeartbeatSucceeded(_) => sender.send(Ok(())),
            SdamEvent::ServerHeartbeatFailed(failed) => sender.send(Err(failed.failure)),
            _ => Ok(()),
        };
    }));
    let _client = Client::with_options(options)?;
    match tokio::time::timeout(within, receiver.recv()).await {
        Ok(Some(checked)) => checked,
        Ok(None) | Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}
