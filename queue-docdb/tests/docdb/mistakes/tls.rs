//! Certificates, their files, and servers with and without TLS.

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

/// A server whose certificate has expired since it started.
#[expect(
    clippy::disallowed_methods,
    reason = "certificates expire in real time"
)]
async fn start_expired(authority: &Authority) -> MongoServer {
    // A start takes seconds on a busy machine.
    for life in [10, 30, 60].map(Duration::from_secs) {
        let end = SystemTime::now() + life;
        let certificate = authority.expiring_server(["localhost", "127.0.0.1"], end);
        let started = MongoServer::start_dedicated(tls_options(certificate)).await;
        while SystemTime::now() <= end + Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if let Ok(server) = started {
            return server;
        }
    }
    panic!("no server starts within a minute");
}

async fn of_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let secured = tls_options(authority.server(["localhost"])).with_access_control();
    let (server, expired) = tokio::join!(start(secured), start_expired(&authority));
    admin(&server, doc! { "setParameter": 1, "tlsMode": "requireTLS" }).await;
    let at = address(&server).replace("127.0.0.1", "localhost");
    let uri = |settings: &str| builder(format!("mongodb://{at}/?{settings}"));
    let by_number = builder(server.uri());
    let expired = builder(expired.uri());
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
        row("no TLS", uri(""), &["tls=true", &at]),
        row("no TLS, directly", direct(), &["tls=true", &at]),
        row(
            "no TLS, in a set",
            uri("replicaSet=rs0"),
            &["tls=true", &at],
        ),
        row("no CA file", uri("tls=true"), &["ca_file", "unknown", &at]),
        row(
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
        row(
            "another host name",
            by_number.ca_file(&ca.0),
            &["127.0.0.1", "localhost", "not valid for"],
        ),
        row(
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
        row(
            "a client key file with another key",
            client_file(mismatch.path()),
            &["tlsCertificateKeyFile", mismatch.path()],
        ),
    ])
    .await;
    server.stop().await.unwrap();
}
