//! Users with few rights, on queues that others have made.

use std::{sync::Arc, time::Duration};

use mongodb::bson::{Document, doc};
use mongodb_test_server::{MongoServer, ServerOptions, documentdb::Gate};
use queue_api::{
    EnqueueOutcome, ErrorKind, LeaseOutcome, ManualClock, PageOptions, QueueAdmin, QueueBackend,
    QueueStats,
};
use queue_docdb::DocDbBackend;

use crate::fixture::{self, all_engines, applied, message, name, queue_of};

tests! {
    on_one_thread:
        users_with_few_rights_use_queues_that_others_made
}

/// The rights of custom roles: what the calls of a producer and a consumer need, and no more.
const ROLES: [(&str, &[&str]); 3] = [
    (
        "no-index",
        &[
            "find",
            "insert",
            "update",
            "remove",
            "listIndexes",
            "listCollections",
        ],
    ),
    ("least", &["find", "insert", "update", "remove"]),
    ("looks", &["find"]),
];

/// A server with a user for each role, and for the role `read`.
struct Secured {
    server: MongoServer,
    shop: mongodb::Database,
    gate: Gate,
    clock: Arc<ManualClock>,
}

impl Secured {
    async fn start() -> Self {
        let options = ServerOptions::new().with_access_control();
        let server = MongoServer::start_dedicated(options).await.unwrap();
        let uri = server.admin_uri();
        let admin = mongodb::Client::with_uri_str(uri).await.unwrap();
        let shop = admin.database("shop");
        for (role, actions) in ROLES {
            let resource = doc! { "db": "shop", "collection": "" };
            let privileges = [doc! { "resource": resource, "actions": actions }];
            let create = doc! { "createRole": role, "privileges": &privileges[..], "roles": [] };
            shop.run_command(create).await.unwrap();
        }
        let roles = ROLES.iter().map(|(role, _)| *role);
        for user in roles.chain(["read", "readWrite"]) {
            let roles = [doc! { "role": user, "db": "shop" }];
            let create = doc! { "createUser": user, "pwd": "s3cret", "roles": &roles[..] };
            shop.run_command(create).await.unwrap();
        }
        Self {
            server,
            shop,
            gate: Gate::new(all_engines()),
            clock: Arc::new(ManualClock::new()),
        }
    }

    async fn connect(&self, user: &str) -> DocDbBackend {
        let credentials = format!("://{user}:s3cret@");
        let uri = self.server.uri().replace("://", &credentials);
        fixture::builder(&format!("{uri}&authSource=shop"), &self.gate)
            .database("shop")
            .clock(self.clock.clone())
            .connect()
            .await
            .unwrap()
    }

    fn documents(&self) -> mongodb::Collection<Document> {
        self.shop.collection("queue.mail")
    }
}

/// One test, because it needs one server with access control.
async fn users_with_few_rights_use_queues_that_others_made() {
    let secured = Secured::start().await;
    for user in ["read", "looks"] {
        let stats = queue_of(&secured.connect(user).await).stats().await;
        assert_eq!(stats.unwrap(), QueueStats::default(), "{user}, no queue");
    }
    for user in ["no-index", "least", "read", "looks"] {
        let queue = queue_of(&secured.connect(user).await);
        let error = queue.enqueue(&message("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{user}: {error:?}");
        // MongoDB lets a user who may insert create the empty collection.
        let documents = secured.documents().count_documents(doc! {}).await;
        assert_eq!(documents.unwrap(), 0, "{user}");
    }

    let owner = secured.connect("readWrite").await;
    owner.prepare(&name()).await.unwrap();
    for user in ["no-index", "least"] {
        let queue = queue_of(&secured.connect(user).await);
        let stored = queue.enqueue(&message("a")).await;
        assert_eq!(
            stored.unwrap_or_else(|error| panic!("{user}: {error:?}")),
            EnqueueOutcome::Stored
        );
        let delivery = queue.lease().await.unwrap().expect("it is ready");
        let acked = queue.ack(&delivery.receipt).await.unwrap();
        assert_eq!(acked, LeaseOutcome::Applied);
    }

    // A queue that was restored from a dump without indexes.
    let queue = queue_of(&owner);
    let both = [message("a"), message("b")];
    queue.enqueue_batch(&both).await.unwrap();
    let first = queue.lease().await.unwrap().expect("it is ready");
    applied(queue.dead_letter(&first.receipt, "no")).await;
    secured.documents().drop_indexes().await.unwrap();
    for user in ["read", "looks", "no-index", "least"] {
        let backend = secured.connect(user).await;
        let stats = queue_of(&backend).stats().await;
        let stats = stats.unwrap_or_else(|error| panic!("{user}: {error:?}"));
        assert_eq!((stats.ready, stats.dead), (1, 1), "{user}");
        assert_eq!(backend.peek(&name(), 9).await.unwrap().len(), 1);
        let page = PageOptions::new(9);
        let letters = backend.dead_letters(&name(), &page).await.unwrap();
        assert_eq!(letters.len(), 1, "{user}");
        let messages = backend.messages(&name(), &page).await.unwrap();
        assert_eq!(messages.len(), 1, "{user}");
        backend.wait(&name(), Duration::ZERO).await.unwrap();
    }
    let indexes = secured.documents().list_index_names().await.unwrap();
    assert_eq!(indexes, ["_id_"], "none was made");
    secured.gate.verify().unwrap();
    secured.server.stop().await.unwrap();
}
