//! Certificates, their files, and servers with and without TLS.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring},
};

use super::*;

tests! {
    on_threads:
        of_tls
}

pub(super) fn tls_options(certificate: String) -> ServerOptions {
    ServerOptions::new()
        .with_file("server.pem", certificate, 0o400)
        .with_arguments(["--tlsMode", "preferTLS"])
        .with_arguments(["--tlsCertificateKeyFile", "{server.pem}"])
}

/// Accepts TLS with a certificate that has expired: its address. A client ends the handshake.
async fn start_expired(authority: &Authority) -> (String, tokio::task::JoinHandle<()>) {
    let pem = authority.expired_server(["localhost"]);
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let _ = acceptor.accept(connection).await;
        }
    });
    (format!("localhost:{port}"), accepting)
}

async fn of_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let secured = tls_options(authority.server(["localhost"])).with_access_control();
    let (server, expired) = tokio::join!(start(secured), start_expired(&authority));
    admin(&server, doc! { "setParameter": 1, "tlsMode": "requireTLS" }).await;
    let at = address(&server).replace("127.0.0.1", "localhost");
    let uri = |settings: &str| builder(format!("mongodb://{at}/?{settings}"));
    let by_number = builder(server.uri());
    let (at_expired, accepting) = expired;
    let expired = builder(format!("mongodb://{at_expired}"));
    let ca = PemFile::new("ca", &authority.certificate);
    let wrong = PemFile::new("wrong", &other.certificate);
    let cut = &authority.certificate[..authority.certificate.len() / 2];
    let truncated = PemFile::new("truncated", &format!("{}{cut}", other.certificate));
    let garbled = PemFile::new(
        "garbled",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let full = authority.server(["client"]);
    let (certificate, key) = full.split_at(full.find("-----BEGIN PRIVATE").unwrap());
    let without_key = PemFile::new("without-key", certificate);
    let without_certificate = PemFile::new("without-certificate", key);
    let other_key = other.server(["client"]);
    let other_key = &other_key[other_key.find("-----BEGIN PRIVATE").unwrap()..];
    let mismatch = PemFile::new("mismatch", &format!("{certificate}{other_key}"));
    let client_file = |path: &str| {
        uri(&format!(
            "tls=true&tlsCertificateKeyFile={path}&directConnection=true"
        ))
        .ca_file(&ca.0)
    };
    let direct = || uri("directConnection=true");
    check(vec![
        caused("no TLS", uri(""), &["tls=true", &at]),
        caused("no TLS, directly", direct(), &["tls=true", &at]),
        caused(
            "no TLS, in a set",
            uri("replicaSet=rs0"),
            &["tls=true", &at],
        ),
        caused("no CA file", uri("tls=true"), &["ca_file", "unknown", &at]),
        caused(
            "another CA file",
            direct().ca_file(&wrong.0),
            &["unknown", wrong.path()],
        ),
        row(
            "a truncated CA file",
            direct().ca_file(&truncated.0),
            &[truncated.path()],
        ),
        row(
            "a damaged CA file",
            direct().ca_file(&garbled.0),
            &[garbled.path()],
        ),
        row(
            "a CA file that is a folder",
            direct().ca_file("/tmp"),
            &["/tmp"],
        ),
        caused(
            "another host name",
            by_number.ca_file(&ca.0),
            &["127.0.0.1", "localhost", "not valid for"],
        ),
        caused(
            "an expired certificate",
            expired.ca_file(&ca.0),
            &["expired"],
        ),
        row(
            "a missing client key file",
            client_file("/no/such.pem"),
            &["tlsCertificateKeyFile", "/no/such.pem"],
        ),
        row(
            "a client key file without a key",
            client_file(without_key.path()),
            &["tlsCertificateKeyFile", without_key.path(), "key"],
        ),
        row(
            "a client key file without a certificate",
            client_file(without_certificate.path()),
            &[
                "tlsCertificateKeyFile",
                without_certificate.path(),
                "certificate",
            ],
        ),
        caused(
            "a client key file with another key",
            client_file(mismatch.path()),
            &["tlsCertificateKeyFile", mismatch.path()],
        ),
    ])
    .await;
    accepting.abort();
    server.stop().await.unwrap();
}
