//! What the servers are, and what the URI says of them.

use queue_api::QueueTransaction;

use super::{tls::tls_options, *};

tests! {
    on_threads:
        of_the_replica_set,
        of_the_deployment,
        of_a_direct_connection
}

async fn of_the_replica_set() {
    let server = MongoServer::shared().await.unwrap();
    let at = address(server);
    let uri = |settings: &str| builder(format!("mongodb://{at}/?{settings}"));
    let authority = Authority::new();
    let ca = PemFile::new("ca", &authority.certificate);
    let mut rows = vec![
        caused(
            "TLS to a plain server",
            uri("tls=true"),
            &[
                "TLS is on, but",
                at,
                "has no TLS; add tls=false to the URI, or turn TLS on in",
            ],
        ),
        caused(
            "TLS to a plain server, directly",
            uri("tls=true&directConnection=true"),
            &[
                "TLS is on, but",
                at,
                "has no TLS; add tls=false to the URI, or turn TLS on in",
            ],
        ),
        caused(
            "a CA file for a plain server",
            uri("").ca_file(&ca.0),
            &["remove ca_file", at],
        ),
        row(
            "a wrong replicaSet",
            uri("replicaSet=shop"),
            &["replicaSet is shop", "rs0"],
        ),
        row(
            "a wrong replicaSet, directly",
            uri("replicaSet=shop&directConnection=true"),
            &["replicaSet is shop", "rs0"],
        ),
        caused(
            "loadBalanced without a load balancer",
            uri("loadBalanced=true"),
            &["loadBalanced"],
        ),
    ];
    // A process calls itself by the address that the URI has.
    if matches!(server.source(), Source::Container { .. }) {
        let name = "127.0.0.1:27017";
        rows.push(row(
            "a member's name that cannot be reached",
            uri(""),
            &[at, "calls itself", name, "directConnection=true"],
        ));
    }
    check(rows).await;
}

async fn of_the_deployment() {
    let authority = Authority::new();
    let options = tls_options(authority.server(["localhost", "127.0.0.1"]))
        .with_file("ca.pem", authority.certificate.clone(), 0o400)
        .with_arguments(["--tlsCAFile", "{ca.pem}"])
        .as_standalone();
    let new_set = ServerOptions::new().without_initiation();
    let (standalone, uninitiated) = tokio::join!(start(options), start(new_set));
    let alone = address(&standalone);
    let twice = format!("{alone},{}", alone.replace("127.0.0.1", "localhost"));
    let uri = |hosts: &str, settings: &str| builder(format!("mongodb://{hosts}/?{settings}"));
    let new = address(&uninitiated);
    let ca = PemFile::new("ca", &authority.certificate);
    check(vec![
        row(
            "a replicaSet of a standalone",
            uri(alone, "replicaSet=rs0"),
            &["replicaSet is rs0", "standalone"],
        ),
        row(
            "a replicaSet of a standalone, directly",
            uri(alone, "replicaSet=rs0&directConnection=true"),
            &["replicaSet is rs0", "standalone"],
        ),
        row(
            "two hosts of a standalone",
            uri(&twice, ""),
            &["standalone", "one host"],
        ),
        row(
            "a standalone and a set",
            uri(&format!("{alone},{new}"), "replicaSet=rs0"),
            &["standalone", "initiated"],
        ),
        caused(
            "no client certificate",
            uri(alone, "tls=true").ca_file(&ca.0),
            &["tlsCertificateKeyFile"],
        ),
        row("a set that is not initiated", uri(new, ""), &["initiated"]),
        row(
            "the same set by its name",
            uri(new, "replicaSet=rs0"),
            &["initiated"],
        ),
        row(
            "the same set, directly",
            builder(uninitiated.uri()),
            &["initiated"],
        ),
        row(
            "the same set by another name",
            uri(new, "replicaSet=shop"),
            &["initiated"],
        ),
    ])
    .await;
    let backend = builder(standalone.uri()).connect().await.unwrap();
    assert_needs_a_set(&backend).await;

    admin(
        &standalone,
        doc! { "setParameter": 1, "requireApiVersion": true },
    )
    .await;
    let uri = format!("{}&serverSelectionTimeoutMS=500", standalone.uri());
    let own_client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let own = DocDbBackend::from_database(own_client.database("shop"));
    check(vec![
        caused(
            "a required API version",
            builder(standalone.uri()),
            &["API version"],
        ),
        caused(
            "a required API version, with an own client",
            own,
            &["API version"],
        ),
    ])
    .await;
}

async fn assert_needs_a_set(backend: &DocDbBackend) {
    let mut session = backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut queues = backend.in_transaction(&mut session);
    let error = queues.enqueue(&name(), &[message("a")]).await.unwrap_err();
    assert_readable(&error).unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:#}");
    let text = error.to_string();
    assert!(text.contains("replica set"), "{text}");
    assert!(!text.contains("retryWrites"), "{text}");
    backend.stats(&name()).await.unwrap();
}

async fn of_a_direct_connection() {
    let set = MongoReplicaSet::start(ReplicaSetOptions::new())
        .await
        .unwrap();
    let primary = set.settled().await.unwrap();
    let secondary = set.members().into_iter().find(|each| *each != primary);
    let secondary = set.member_uri(secondary.unwrap());
    let reader = "mongodb://shop.cluster-ro-x.eu-west-1.docdb.amazonaws.com/?directConnection=true";
    let client = mongodb::Client::with_uri_str(&secondary).await.unwrap();
    let own = DocDbBackend::from_database(client.database("shop"));
    let direct = &["directConnection", "secondary"];
    check(vec![
        row("a secondary", builder(&secondary), direct),
        row(
            "a secondary, by name",
            builder(format!("{secondary}&replicaSet=rs0")),
            direct,
        ),
        row("a secondary, with an own client", own, direct),
        row(
            "a reader endpoint",
            builder(reader),
            &["cluster-ro", "cluster endpoint"],
        ),
    ])
    .await;
    let primary = builder(set.member_uri(primary)).connect().await;
    primary.unwrap();
    builder(set.uri()).connect().await.unwrap();
    set.shut_down().await.unwrap();
}
