//! Which requests of a call meet which fault.

use std::{collections::VecDeque, time::Duration};

use crate::{
    schedule::{Fault, Request},
    wire::Command,
};

/// What is to happen.
#[derive(Default)]
pub(crate) struct Agenda {
    pub(crate) is_armed: bool,
    /// The requests since then.
    pub(crate) seen: Vec<Request>,
    /// Requests before this number meet no fault. After that, each fault in turn meets the next request that it
    /// fits.
    pub(crate) skip: usize,
    pub(crate) faults: VecDeque<Fault>,
    /// What every request meets from now on.
    pub(crate) lasting: Option<Fault>,
    /// What the handshake of a new connection meets, after so many others.
    pub(crate) handshake: Option<(usize, Fault)>,
    /// The requests that met a fault.
    pub(crate) met: Vec<String>,
    pub(crate) held: Duration,
    /// Whether the client has gone on before the adversary had moved.
    pub(crate) is_adversary_late: bool,
}

impl Agenda {
    /// The fault that this request meets.
    pub(crate) fn meet(&mut self, command: &Command) -> Option<Fault> {
        if !self.is_armed || command.is_cleanup() {
            return None;
        }
        let request = command.request();
        let is_due = self.seen.len() >= self.skip;
        self.seen.push(request.clone());
        if let Some(lasting) = self.lasting {
            return lasting.fits(&request).then_some(lasting);
        }
        if !is_due {
            return None;
        }
        let fault = self.faults.pop_front_if(|fault| fault.fits(&request))?;
        self.met.push(request.name);
        self.lasting = fault.lasts().then_some(fault);
        Some(fault)
    }

    /// The fault that this handshake meets.
    pub(crate) fn meet_handshake(&mut self) -> Option<Fault> {
        if let Some((skip @ 1.., _)) = &mut self.handshake {
            *skip -= 1;
            return None;
        }
        self.handshake.take().map(|(_, fault)| fault)
    }
}
