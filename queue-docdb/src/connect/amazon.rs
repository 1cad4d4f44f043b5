//! Amazon DocumentDB: its host names, and what its users need to log in.

use mongodb::{
    bson::Document,
    options::{AuthMechanism, ClientOptions, ServerAddress, Tls, TlsOptions},
};
use queue_api::Error;

use super::{operation::invalid, uri};

/// The engine of a server, as far as its host names and its wire version tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    MongoDb,
    /// DocumentDB 5.0 and newer, and elastic clusters.
    DocumentDb,
    /// DocumentDB 4.0 and 3.6.
    DocumentDb4,
}

/// The wire version of DocumentDB 4.0.
const OLD_WIRE_VERSION: i32 = 7;

impl Engine {
    /// Through a tunnel, only the server's own list of hosts has Amazon's names.
    pub(crate) fn of(uri_hosts: &[ServerAddress], hello: &Document) -> Self {
        let listed = hello.get_array("hosts").into_iter().flatten();
        let listed = listed.filter_map(|host| ServerAddress::parse(host.as_str()?).ok());
        let listed: Vec<_> = listed.collect();
        let wire_version = hello.get_i32("maxWireVersion");
        match is_amazon(uri_hosts) || is_amazon(&listed) {
            true if wire_version.is_ok_and(|it| it <= OLD_WIRE_VERSION) => Self::DocumentDb4,
            true => Self::DocumentDb,
            false => Self::MongoDb,
        }
    }
}

/// Whether one of the hosts is an endpoint of Amazon DocumentDB.
pub(crate) fn is_amazon(hosts: &[ServerAddress]) -> bool {
    is_elastic(hosts) || hosts.iter().any(|host| is_of(host, ".docdb"))
}

/// Whether one of the hosts is an endpoint of an elastic cluster, which has no change streams.
pub(crate) fn is_elastic(hosts: &[ServerAddress]) -> bool {
    hosts.iter().any(|host| is_of(host, ".docdb-elastic"))
}

/// Whether this is a host of this Amazon service.
fn is_of(host: &ServerAddress, service: &str) -> bool {
    let ServerAddress::Tcp { host, .. } = host else {
        return false;
    };
    let name = host.to_ascii_lowercase();
    let name = name.strip_suffix(".cn").unwrap_or(&name);
    let name = name.strip_suffix(".amazonaws.com");
    name.is_some_and(|name| name.ends_with(service))
}

/// Turns TLS on, sets how DocumentDB's users log in, and refuses what it does not support.
pub(crate) fn prepare(uri: &str, options: &mut ClientOptions) -> Result<(), Error> {
    let set = options.repl_set_name.as_deref();
    if let Some(name) = set.filter(|name| *name != "rs0") {
        let message = format!("replicaSet is {name}; on DocumentDB it must be rs0");
        return Err(invalid(message));
    }
    if options.direct_connection == Some(true)
        && let Some(reader) = options.hosts.iter().find(|host| is_reader_endpoint(host))
    {
        return Err(invalid(format!(
            "directConnection is true, but {reader} is the reader endpoint (cluster-ro); name the \
             cluster endpoint, or remove directConnection"
        )));
    }
    // TLS is on by default on clusters.
    // https://docs.aws.amazon.com/documentdb/latest/developerguide/security.encryption.ssl.html
    options
        .tls
        .get_or_insert_with(|| Tls::Enabled(TlsOptions::default()));
    let Some(credential) = &mut options.credential else {
        return Ok(());
    };
    // Without a mechanism the driver tries SCRAM-SHA-256 first. DocumentDB refuses that with
    // code -301.
    match credential.mechanism.get_or_insert(AuthMechanism::ScramSha1) {
        AuthMechanism::ScramSha256 => Err(invalid(
            "authMechanism is SCRAM-SHA-256; on DocumentDB it must be SCRAM-SHA-1, or \
             MONGODB-AWS for an IAM role",
        )),
        AuthMechanism::ScramSha1 if !uri::names(uri, "authSource") => {
            // The driver looks for users in the database of the URI's path. DocumentDB has all
            // of them in `admin`.
            credential.source = Some("admin".to_owned());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The reader endpoint leads to any replica instance.
fn is_reader_endpoint(host: &ServerAddress) -> bool {
    matches!(host, ServerAddress::Tcp { host, .. } if host.to_ascii_lowercase().contains(".cluster-ro-"))
}

/// The cluster endpoint leads to the writer, but for a while after a failover still to the instance
/// that was it.
/// <https://docs.aws.amazon.com/documentdb/latest/developerguide/failover.html>
pub(crate) fn is_cluster_endpoint(address: &str) -> bool {
    ServerAddress::parse(address).is_ok_and(|host| {
        let name = host.to_string().to_ascii_lowercase();
        name.contains(".cluster-") && !is_reader_endpoint(&host) && is_amazon(&[host])
    })
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    const CLUSTER: &str = "mongodb://ada:pw@shop.cluster-x.eu-west-1.docdb.amazonaws.com:27017/";

    async fn prepared(uri: &str) -> Result<ClientOptions, Error> {
        let mut options = ClientOptions::parse(uri).await.expect("a valid URI");
        assert!(is_amazon(&options.hosts), "{uri}");
        prepare(uri, &mut options)?;
        Ok(options)
    }

    #[tokio::test]
    async fn amazon_hosts_are_recognised() {
        for host in [
            "shop.cluster-x.eu-west-1.docdb.amazonaws.com",
            "SHOP.cluster-x.eu-west-1.DocDB.amazonaws.com",
            "shop-1.eu-west-1.docdb-elastic.amazonaws.com",
            "shop.cluster-x.cn-north-1.docdb.amazonaws.com.cn",
        ] {
            let options = prepared(&format!("mongodb://{host}/")).await.expect(host);
            let is_elastic = is_elastic(&options.hosts);
            assert_eq!(is_elastic, host.contains("elastic"), "{host}");
        }
        for host in [
            "localhost",
            "docdb.example.com",
            "docdb.amazonaws.com.example.com",
        ] {
            let options = ClientOptions::parse(format!("mongodb://{host}/"));
            let hosts = options.await.expect("valid").hosts;
            assert!(!is_amazon(&hosts) && !is_elastic(&hosts), "{host}");
        }
    }

    #[test]
    fn the_engine_shows_in_the_uri_or_in_the_servers_hosts() {
        let host = |name: &str| ServerAddress::parse(name).expect("a host");
        let hello = |name: &str| doc! { "hosts": [name], "maxWireVersion": 13 };
        let old = |wire: i32| doc! { "maxWireVersion": wire };
        let amazon = "shop-1.x.eu-west-1.docdb.amazonaws.com:27017";
        let (local, elastic) = ("localhost:27017", "x.eu-west-1.docdb-elastic.amazonaws.com");
        for (uri, hello, engine) in [
            (local, hello(amazon), Engine::DocumentDb),
            (amazon, doc! {}, Engine::DocumentDb),
            (elastic, doc! { "msg": "isdbgrid" }, Engine::DocumentDb),
            (amazon, old(6), Engine::DocumentDb4),
            (amazon, old(7), Engine::DocumentDb4),
            (amazon, old(13), Engine::DocumentDb),
            (local, old(7), Engine::MongoDb),
            (local, hello("db-1:27017"), Engine::MongoDb),
            (local, doc! {}, Engine::MongoDb),
        ] {
            assert_eq!(Engine::of(&[host(uri)], &hello), engine, "{uri} {hello}");
        }
    }

    #[tokio::test]
    async fn users_log_in_by_scram_sha_1_and_are_in_admin_unless_the_uri_says_otherwise() {
        for (rest, source) in [
            (
                "?tls=true&tlsCAFile=global-bundle.pem&replicaSet=rs0\
                 &readPreference=secondaryPreferred&retryWrites=false",
                "admin",
            ),
            ("shop", "admin"),
            ("shop?authMechanism=SCRAM-SHA-1", "admin"),
            ("shop?authSource=x", "x"),
            ("shop?authMechanism=SCRAM-SHA-1&AUTHSOURCE=x", "x"),
            ("shop?appName=authSource=", "admin"),
        ] {
            let options = prepared(&format!("{CLUSTER}{rest}")).await.expect(rest);
            let credential = options.credential.expect("a user");
            assert_eq!(credential.mechanism, Some(AuthMechanism::ScramSha1));
            assert_eq!(credential.source.as_deref(), Some(source), "{rest}");
        }
    }

    /// No test reaches such a host, so this looks at the options.
    #[tokio::test]
    async fn tls_is_on_unless_the_uri_says_otherwise() {
        for (rest, is_on) in [("", true), ("?replicaSet=rs0", true), ("?tls=false", false)] {
            let options = prepared(&format!("{CLUSTER}{rest}")).await.expect(rest);
            assert_eq!(
                matches!(options.tls, Some(Tls::Enabled(_))),
                is_on,
                "{rest}"
            );
        }
    }

    #[test]
    fn the_cluster_endpoint_is_told_from_others() {
        let of = |name: &str| format!("{name}.eu-west-1.docdb.amazonaws.com:27017");
        assert!(is_cluster_endpoint(&of("shop.cluster-x")));
        for other in [of("shop.cluster-ro-x"), of("shop-1.x")] {
            assert!(!is_cluster_endpoint(&other), "{other}");
        }
        assert!(!is_cluster_endpoint("shop.cluster-x.example.com:27017"));
    }
}
