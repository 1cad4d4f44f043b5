//! Another address of a server, which goes away with its variable.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Forwards connections. It ends on drop.
pub(crate) struct Forwarder {
    address: String,
    /// How many connections are accepted before the one that is silent.
    before_mute: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Forwarder {
    /// Forwards to `server`, a host and a port.
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let before_mute = Arc::new(AtomicUsize::new(usize::MAX));
        let before = before_mute.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, is_mute) =
                    (server.clone(), before.fetch_sub(1, Ordering::Relaxed) == 0);
                connections.spawn(async move {
                    if is_mute {
                        // Takes what comes until the client closes the connection.
                        let _ = io::copy(&mut client, &mut io::sink()).await;
                    } else if let Ok(mut server) = TcpStream::connect(&server).await {
                        let _ = io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self {
            address,
            before_mute,
            task,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// After `skip` more connections, one is silent from its start.
    pub(crate) fn mute_after(&self, skip: usize) {
        self.before_mute.store(skip, Ordering::Relaxed);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}
