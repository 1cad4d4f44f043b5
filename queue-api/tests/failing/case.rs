//! The cases: which subject meets which trouble at which of its calls.

use std::fmt;

use queue_api::ErrorKind;
use queue_test_support::{Fault, Operation};

use crate::{code::Place, subject::Subject};

const OPERATIONS: [Operation; 6] = [
    Operation::Enqueue,
    Operation::Lease,
    Operation::Ack,
    Operation::Change,
    Operation::Wait,
    Operation::Stats,
];

const KINDS: [ErrorKind; 7] = [
    ErrorKind::InvalidInput,
    ErrorKind::Unavailable,
    ErrorKind::TimedOut,
    ErrorKind::QueueFull,
    ErrorKind::Denied,
    ErrorKind::Codec,
    ErrorKind::Internal,
];

/// How many calls go well before the trouble.
const SKIPS: [usize; 3] = [0, 1, 4];

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// Calls of the store fail.
    Store(Operation, Fault),
    /// Code of the application panics.
    Code(Place),
}

/// One subject in one trouble.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) subject: Subject,
    pub(crate) trouble: Trouble,
    pub(crate) skip: usize,
    /// Whether only that call fails. Otherwise all fail after it, until all is mended.
    pub(crate) once: bool,
}

/// Its name, with which it can be run again.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}/", self.subject, self.trouble.call())?;
        if let Trouble::Store(_, fault) = self.trouble {
            let fault = format!("{fault:?}").replace('(', "-").replace(')', "");
            write!(f, "{fault}/")?;
        }
        let often = if self.once { "once" } else { "always" };
        write!(f, "{}/{often}", self.skip)
    }
}

impl Trouble {
    /// What is called.
    pub(crate) fn call(self) -> String {
        match self {
            Self::Store(operation, _) => format!("{operation:?}"),
            Self::Code(place) => format!("{place:?}"),
        }
    }

    /// The calls that never end.
    pub(crate) fn hangs(self) -> Option<Operation> {
        match self {
            Self::Store(operation, Fault::Hangs | Fault::HangsAfter) => Some(operation),
            _ => None,
        }
    }
}

impl Case {
    /// All cases of a subject.
    pub(crate) fn all(subject: Subject) -> Vec<Self> {
        let operations = OPERATIONS.into_iter().filter(|one| subject.calls(*one));
        let faults = operations.flat_map(|operation| {
            let faults = faults(operation).into_iter();
            faults.map(move |fault| Trouble::Store(operation, fault))
        });
        let places = Place::ALL.into_iter().filter(|one| subject.runs(*one));
        let troubles = faults.chain(places.map(Trouble::Code));
        let cases = troubles.flat_map(|trouble| {
            let case = move |skip, once| Self {
                subject,
                trouble,
                skip,
                once,
            };
            SKIPS
                .into_iter()
                .flat_map(move |skip| [case(skip, true), case(skip, false)])
        });
        cases.collect()
    }
}

/// All ways in which a call of this kind can fail.
fn faults(operation: Operation) -> Vec<Fault> {
    let mut faults: Vec<_> = KINDS.map(Fault::Before).to_vec();
    faults.extend(KINDS.map(Fault::After));
    faults.extend([
        Fault::Panics,
        Fault::PanicsAfter,
        Fault::Hangs,
        Fault::HangsAfter,
    ]);
    match operation {
        Operation::Wait => faults.push(Fault::NoWait),
        Operation::Stats => {}
        _ => faults.extend([Fault::TooFew, Fault::TooMany]),
    }
    faults
}
