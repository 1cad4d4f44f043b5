//! A request that arrives late, after its connection has ended.

use std::{io, sync::Mutex};

use tokio::net::TcpStream;

use crate::{schedule::Arrival, wire::Message};

/// At most one such request.
#[derive(Default)]
pub(crate) struct Late(Mutex<Option<(Message, Arrival)>>);

impl Late {
    pub(crate) fn put(&self, request: Message, arrival: Arrival) {
        *self.0.lock().expect("no panic") = Some((request, arrival));
    }

    /// The client sends the next request, so this one may arrive.
    pub(crate) async fn approach(&self, server: &str) -> io::Result<()> {
        let is_due = {
            let mut late = self.0.lock().expect("no panic");
            match late.as_mut().map(|(_, arrival)| arrival) {
                Some(Arrival::BeforeNext) => true,
                Some(arrival @ Arrival::BeforeSecond) => {
                    *arrival = Arrival::BeforeNext;
                    false
                }
                Some(Arrival::AfterCall) | None => false,
            }
        };
        match is_due {
            true => self.deliver(server).await,
            false => Ok(()),
        }
    }

    /// It arrives now.
    pub(crate) async fn deliver(&self, server: &str) -> io::Result<()> {
        let late = self.0.lock().expect("no panic").take();
        if let Some((late, _)) = late {
            let mut server = TcpStream::connect(server).await?;
            late.write(&mut server).await?;
            Message::read(&mut server).await?;
        }
        Ok(())
    }
}
