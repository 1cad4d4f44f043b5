//! TLS, and the dates of the certificates.
//!
//! The driver refuses a certificate without its dates, so this makes a handshake that accepts all,
//! sends nothing, and reads them.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use queue_docdb::mongodb::options::{ClientOptions, ServerAddress, Tls};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring},
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{check::Check, probe::wall_clock};
use crate::output::{count, timestamp};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Time enough to renew a certificate.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

pub(super) async fn check(options: &ClientOptions) -> Vec<Check> {
    let Some(Tls::Enabled(tls)) = &options.tls else {
        let is_local = |host: &ServerAddress| match host {
            ServerAddress::Tcp { host, .. } => {
                host == "localhost"
                    || host
                        .parse()
                        .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
            }
            _ => true,
        };
        return match options.hosts.iter().all(is_local) {
            true => vec![Check::ok("tls", "off, and the server is on this machine")],
            false => vec![
                Check::warning("tls", "off: the network can read and change all messages")
                    .advise("add tls=true to the URI if the server has TLS"),
            ],
        };
    };
    let mut checks = vec![Check::ok("tls", "on")];
    if tls.allow_invalid_certificates == Some(true) {
        let text = "on, but every certificate is accepted (tlsAllowInvalidCertificates)";
        let advice = "remove the option, and set --ca-file to the server's authority";
        checks = vec![Check::warning("tls", text).advise(advice)];
    }
    for host in &options.hosts {
        checks.push(of_server(host).await);
    }
    checks.extend(tls.ca_file_path.as_deref().map(of_file));
    checks
}

async fn of_server(host: &ServerAddress) -> Check {
    const NAME: &str = "certificate";
    match timeout(TIMEOUT, presented(host)).await {
        Ok(Ok(der)) => match end(&der) {
            Some(dates) => dated(NAME, &format!("the certificate of {host}"), dates),
            None => Check::warning(NAME, format!("the dates of {host}'s cannot be read")),
        },
        Ok(Err(why)) => Check::not_checked(NAME, format!("{host} shows none: {why}")),
        Err(_) => Check::not_checked(NAME, format!("{host} shows none within {TIMEOUT:?}")),
    }
}

/// The certificate authorities to trust, of which the first one to expire counts.
fn of_file(path: &Path) -> Check {
    const NAME: &str = "ca file";
    let path_shown = path.display();
    let Ok(certificates) = CertificateDer::pem_file_iter(path) else {
        return Check::not_checked(NAME, format!("{path_shown} cannot be read"));
    };
    let dates: Vec<_> = certificates.filter_map(|it| end(&it.ok()?)).collect();
    let authorities = count(dates.len() as u64, "authority").replace("authoritys", "authorities");
    // A bundle keeps old ones, so it is the last that counts.
    match dates.into_iter().max_by_key(|dates| dates.end) {
        None => Check::failed(NAME, format!("{path_shown} has no certificate")),
        Some(dates) => dated(
            NAME,
            &format!("the last of {authorities} in {path_shown}"),
            dates,
        ),
    }
}

#[derive(Clone, Copy)]
struct Dates {
    start: Timestamp,
    end: Timestamp,
}

fn end(der: &CertificateDer<'_>) -> Option<Dates> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    let (start, end) = (time(validity.not_before)?, time(validity.not_after)?);
    Some(Dates { start, end })
}

fn dated(name: &'static str, what: &str, Dates { start, end }: Dates) -> Check {
    let now = timestamp(wall_clock());
    let days = end.duration_since(now).as_hours() / 24;
    if end <= now {
        let check = Check::failed(name, format!("{what} expired at {end}"));
        return check.advise("renew it");
    }
    if now < start {
        let check = Check::failed(name, format!("{what} is not valid before {start}"));
        return check.advise("check this machine's clock, or replace the certificate");
    }
    let text = format!("{what} is valid until {end}, for {days} days");
    match end.duration_since(now) < SOON {
        true => Check::warning(name, text).advise("renew it"),
        false => Check::ok(name, text),
    }
}

async fn presented(host: &ServerAddress) -> Result<CertificateDer<'static>, String> {
    let ServerAddress::Tcp { host, port } = host else {
        return Err("it is a socket of this machine".to_owned());
    };
    let address = (host.as_str(), port.unwrap_or(27017));
    let connection = TcpStream::connect(address).await;
    let connection = connection.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let tls = connector.connect(name, connection).await;
    let tls = tls.map_err(|error| error.to_string())?;
    let chain = tls.get_ref().1.peer_certificates();
    let first = chain.and_then(|chain| chain.first());
    Ok(first.ok_or("it has none")?.clone().into_owned())
}

/// Accepts every certificate. Nothing is sent on such a connection.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
