//! Users, their passwords and how they log in.

use super::*;

tests! {
    on_threads:
        of_users
}

async fn of_users() {
    let server = start(ServerOptions::new().with_access_control()).await;
    let client = mongodb::Client::with_uri_str(server.admin_uri())
        .await
        .unwrap();
    let create = doc! {
        "createUser": "writer", "pwd": "s3cret", "roles": [{ "role": "readWrite", "db": "shop" }],
    };
    client.database("shop").run_command(create).await.unwrap();
    let at = address(&server);
    let uri = |user: &str, rest: &str| {
        let mark = if rest.contains('?') { "&" } else { "?" };
        builder(format!(
            "mongodb://{user}@{at}/{rest}{mark}directConnection=true"
        ))
    };
    check(vec![
        denied(
            "no authSource",
            uri("writer:s3cret", ""),
            &["refuses this user: "],
        ),
        denied(
            "no authSource, with a database",
            uri("writer:s3cret", "mail"),
            &["authSource", "mail"],
        ),
        denied(
            "a wrong authSource",
            uri("writer:s3cret", "?authSource=mail"),
            &["authSource is mail; it must be the database in which the user was created"],
        ),
        denied(
            "a wrong password",
            uri("writer:wrong", "?authSource=shop"),
            &["uthentication"],
        ),
        denied(
            "an unknown user",
            uri("nobody:s3cret", "?authSource=shop"),
            &["uthentication"],
        ),
        denied(
            "a mechanism that the server lacks",
            uri("writer:s3cret", "?authMechanism=PLAIN&authSource=$external"),
            &["PLAIN"],
        ),
        caused(
            "an unknown mechanism",
            uri("writer:s3cret", "?authMechanism=FOO"),
            &["FOO"],
        ),
        caused("no user", builder(format!("mongodb://@{at}")), &["user"]),
        caused(
            "X.509 with a password",
            uri("writer:s3cret", "?authMechanism=MONGODB-X509"),
            &["password", "X509"],
        ),
        caused(
            "OIDC with a password",
            uri("writer:s3cret", "?authMechanism=MONGODB-OIDC"),
            &["MONGODB-OIDC"],
        ),
        row(
            "a password with a /",
            uri("writer:s3/cret", ""),
            &["percent-encoded"],
        ),
        row(
            "a database with an @",
            builder(format!("mongodb://{at}/sh@op")),
            &["database", "@"],
        ),
    ])
    .await;
    server.stop().await.unwrap();
}
