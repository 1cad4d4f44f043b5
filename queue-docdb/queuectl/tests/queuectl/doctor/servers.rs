//! Servers of their own kinds.

use std::time::Duration;

use mongodb_test_server::{Member, MongoReplicaSet, MongoServer, ReplicaSetOptions, ServerOptions};
use queue_docdb::mongodb::bson::doc;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::{Doctor, bare, client};

tests! {
    most_members_down,
    a_member_down,
    tls,
    a_standalone,
}

fn doctor(uri: &str, args: &[&str]) -> Doctor {
    let own = ["doctor", "--uri", uri, "--database", "shop"];
    Doctor::of(&mut bare(&[&own, args].concat()))
}

/// `host:port` of a server.
fn address(server: &MongoServer) -> &str {
    let rest = server.uri().trim_start_matches("mongodb://");
    rest.split('/').next().expect("an address")
}

async fn a_standalone() {
    let options = ServerOptions::new().as_standalone();
    let server = MongoServer::start_dedicated(options)
        .await
        .expect("a server");
    doctor(server.uri(), &[])
        .says("standalone", "members", "warning")
        .says("standalone", "change stream", "warning")
        .says("standalone", "rights", "warning");
}

async fn start_set() -> (MongoReplicaSet, Member) {
    let options = ReplicaSetOptions::new().with_election_timeout(Duration::from_secs(1));
    let set = MongoReplicaSet::start(options).await.expect("a set");
    let primary = set.settled().await.expect("a primary");
    (set, primary)
}

async fn a_member_down() {
    let (set, primary) = start_set().await;
    doctor(&set.uri(), &[]).is_well_but(&["tls", "rights", "queues"]);

    let mut others = set.members().into_iter().filter(|each| *each != primary);
    let down = others.next().expect("a secondary");
    doctor(&set.member_uri(down), &[])
        .says("secondary's endpoint", "connection", "failed")
        .says("secondary's endpoint", "majority", "not checked");

    set.kill(down).await.expect("killed");
    let found = doctor(&set.uri(), &[]);
    found.says("member down", "majority", "ok");
    let members = found.line("", "members", "warning");
    assert!(
        members.contains("db:27017 no answer (") && members.contains("start the member"),
        "{members}"
    );
    found.is_well_but(&["members", "tls", "rights", "queues"]);
    set.shut_down().await.expect("removed");
}

async fn most_members_down() {
    let (set, primary) = start_set().await;
    for down in set.members().into_iter().filter(|each| *each != primary) {
        set.kill(down).await.expect("killed");
    }
    // A primary steps down after the election timeout.
    let found = loop {
        let found = doctor(&set.uri(), &[]);
        found.says("two of three members down", "majority", "failed");
        if found.result("connection") == "failed" {
            break found;
        }
    };
    found.says("two of three members down", "pool", "not checked");
    set.shut_down().await.expect("removed");
}

async fn tls() {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let now = std::time::SystemTime::from(jiff::Timestamp::now());
    params.not_after = (now + std::time::Duration::from_secs(9 * 24 * 3600 + 60)).into();
    let server_key = key();
    let certificate = params.signed_by(&server_key, &authority).expect("signed");
    let pem = format!("{}{}", certificate.pem(), server_key.serialize_pem());
    let options = ServerOptions::new()
        .with_file("server.pem", pem, 0o400)
        .with_arguments(["--tlsMode", "preferTLS"])
        .with_arguments(["--tlsCertificateKeyFile", "{server.pem}"]);
    let server = MongoServer::start_dedicated(options)
        .await
        .expect("a server");
    let require = doc! { "setParameter": 1, "tlsMode": "requireTLS" };
    let admin = client(server.admin_uri()).await.database("admin");
    admin.run_command(require).await.expect("set");

    let at = address(&server).replace("127.0.0.1", "localhost");
    let uri = format!("mongodb://{at}/?directConnection=true");
    doctor(&uri, &[])
        .says("TLS forgotten", "connection", "failed")
        .says("TLS forgotten", "tls", "ok")
        .says("TLS forgotten", "majority", "not checked");

    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("a file");
    let ca = ca.to_str().expect("UTF-8");
    let found = doctor(&uri, &["--ca-file", ca]);
    let line = found.line("", "certificate", "warning");
    assert!(line.contains("for 9 days; renew it"), "{line}");
    found.line("", "ca file", "ok");
    found.is_well_but(&["certificate", "rights", "queues"]);

    let by_number = format!("mongodb://{}/?directConnection=true", address(&server));
    let found = doctor(&by_number, &["--ca-file", ca]);
    found.says("another host name", "connection", "failed");
}
