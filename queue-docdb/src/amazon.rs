//! Amazon's hosts: what they need, and which settings of a URI they cannot honour.

use mongodb::options::{AuthMechanism, ClientOptions, ServerAddress};
use queue_api::Error;

const DOMAINS: [&str; 4] = [
    ".docdb.amazonaws.com",
    ".docdb-elastic.amazonaws.com",
    ".docdb.amazonaws.com.cn",
    ".docdb-elastic.amazonaws.com.cn",
];

/// Whether these are endpoints of Amazon DocumentDB.
pub(crate) fn is_amazon(hosts: &[ServerAddress]) -> bool {
    hosts.iter().any(|host| domain(host).is_some())
}

/// Whether these are endpoints of elastic clusters, which have no change streams.
pub(crate) fn is_elastic(hosts: &[ServerAddress]) -> bool {
    let elastic = |domain: &str| domain.starts_with(".docdb-elastic.");
    hosts.iter().any(|host| domain(host).is_some_and(elastic))
}

fn domain(host: &ServerAddress) -> Option<&'static str> {
    let ServerAddress::Tcp { host, .. } = host else {
        return None;
    };
    let name = host.to_ascii_lowercase();
    DOMAINS.into_iter().find(|domain| name.ends_with(domain))
}

/// Refuses what DocumentDB cannot honour, and sets what it needs.
pub(crate) fn prepare(uri: &str, options: &mut ClientOptions) -> Result<(), Error> {
    for (name, value) in settings(uri) {
        if let Some(advice) = advice(&name, &value) {
            let message = format!("DocumentDB cannot honour {name}={value}: {advice}");
            return Err(Error::invalid("connect", message));
        }
    }
    let Some(credential) = &mut options.credential else {
        return Ok(());
    };
    // Without a mechanism the driver offers SCRAM-SHA-256 first, which DocumentDB up to 5.0
    // refuses with code -301.
    let mechanism = credential.mechanism.get_or_insert(AuthMechanism::ScramSha1);
    // The driver takes the database in the path for the users' own; here they are all in this
    // one. Roles of IAM are elsewhere, which the driver knows.
    let names_source = settings(uri).any(|(name, _)| name == "authsource");
    if *mechanism == AuthMechanism::ScramSha1 && !names_source {
        credential.source = Some("admin".to_owned());
    }
    Ok(())
}

/// What to write instead of a setting that DocumentDB cannot honour.
///
/// `readPreference`, `w` and `journal` are not among them: whatever they say is overridden, for
/// MongoDB as well.
fn advice(name: &str, value: &str) -> Option<&'static str> {
    let value = value.to_ascii_lowercase();
    match (name, value.as_str()) {
        ("retrywrites", "true") => Some(
            "before 8.0.2 it refuses every write that asks to be retried; write \
             retryWrites=false, failures are retried here",
        ),
        ("compressors", _) => Some("it takes no compressed messages; leave compressors out"),
        ("readconcernlevel", "linearizable" | "snapshot" | "available") => {
            Some("reads go to the primary, which sees every write; leave readConcernLevel out")
        }
        ("authmechanism", "scram-sha-1" | "mongodb-aws") => None,
        ("authmechanism", _) => Some(
            "write authMechanism=SCRAM-SHA-1, or leave it out; for an IAM role write \
             authMechanism=MONGODB-AWS",
        ),
        ("loadbalanced", "true") => {
            Some("it is not behind a load balancer of MongoDB's kind; leave loadBalanced out")
        }
        ("replicaset", "rs0") => None,
        ("replicaset", _) => Some("its replica set has a fixed name; write replicaSet=rs0"),
        ("readpreferencetags", _) => {
            Some("it has no tags, and a queue reads from the primary; leave readPreferenceTags out")
        }
        _ => None,
    }
}

/// The settings of a URI that the driver understood, their names in lower case.
fn settings(uri: &str) -> impl Iterator<Item = (String, String)> {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter_map(|setting| {
        let (name, value) = setting.split_once('=')?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "mongodb://ada:pw@shop.cluster-x.eu-west-1.docdb.amazonaws.com:27017/";

    async fn prepared(uri: &str) -> Result<ClientOptions, Error> {
        let mut options = ClientOptions::parse(uri).await.expect("a valid URI");
        assert!(is_amazon(&options.hosts), "{uri}");
        prepare(uri, &mut options)?;
        Ok(options)
    }

    #[tokio::test]
    async fn hosts_of_amazon_are_known() {
        for host in [
            "shop.cluster-x.eu-west-1.docdb.amazonaws.com",
            "SHOP.cluster-x.eu-west-1.DocDB.amazonaws.com",
            "shop-1.eu-west-1.docdb-elastic.amazonaws.com",
            "shop.cluster-x.cn-north-1.docdb.amazonaws.com.cn",
        ] {
            let options = prepared(&format!("mongodb://{host}/")).await.expect(host);
            assert_eq!(
                is_elastic(&options.hosts),
                host.contains("elastic"),
                "{host}"
            );
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

    #[tokio::test]
    async fn the_connection_string_of_the_console_is_accepted() {
        let uri = format!(
            "{CLUSTER}?tls=true&tlsCAFile=global-bundle.pem&replicaSet=rs0\
             &readPreference=secondaryPreferred&retryWrites=false"
        );
        let credential = prepared(&uri).await.expect("AWS's own").credential;
        let credential = credential.expect("a user");
        assert_eq!(credential.mechanism, Some(AuthMechanism::ScramSha1));
        assert_eq!(credential.source.as_deref(), Some("admin"));
    }

    #[tokio::test]
    async fn users_are_in_admin_unless_the_uri_says_otherwise() {
        let source = async |rest: &str| {
            let options = prepared(&format!("{CLUSTER}{rest}")).await.expect(rest);
            options.credential.expect("a user").source
        };
        assert_eq!(source("shop").await.as_deref(), Some("admin"));
        assert_eq!(source("shop?authSource=x").await.as_deref(), Some("x"));
    }

    #[tokio::test]
    async fn what_cannot_be_honoured_is_refused_with_what_to_write() {
        for (setting, hint) in [
            ("retryWrites=true", "write retryWrites=false"),
            (
                "readConcernLevel=linearizable",
                "leave readConcernLevel out",
            ),
            ("authMechanism=SCRAM-SHA-256", "authMechanism=SCRAM-SHA-1"),
            ("replicaSet=rs1", "write replicaSet=rs0"),
            ("loadBalanced=true", "leave loadBalanced out"),
        ] {
            let error = prepared(&format!("{CLUSTER}?{setting}"))
                .await
                .expect_err(setting);
            let text = error.to_string();
            assert!(text.contains(hint), "{text}");
            assert!(!text.contains("pw"), "{text}");
        }
        // The driver drops what it was built without, so what the URI says is what counts.
        let mut options = ClientOptions::default();
        let error = prepare("mongodb://h/?compressors=zstd", &mut options);
        let text = error.expect_err("it knows none").to_string();
        assert!(text.contains("leave compressors out"), "{text}");
    }
}
