//! Which cases are run.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use crate::{
    adversary::{ADVERSARIES, Adversary},
    calls::Call,
    case::Case,
    codes,
    schedule::{CODES, Fault, Request},
    server::ClientKind,
};

/// How much of all cases is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Each call with each kind of fault and each adversary, in drawn combinations.
    Quick,
    All,
}

/// A request of a call by a client.
struct Point<'a> {
    client: ClientKind,
    at: usize,
    request: &'a Request,
}

/// The cases of a call. `requests` are those that it sends when nothing happens.
pub(crate) fn cases(
    call: Call,
    requests: &[(ClientKind, Vec<Request>)],
    share: Share,
    seed: u64,
) -> Vec<Case> {
    let points = requests.iter().flat_map(|(client, requests)| {
        requests.iter().enumerate().map(|(at, request)| Point {
            client: *client,
            at,
            request,
        })
    });
    let points: Vec<Point> = points.collect();
    let mut rng = Rng::with_seed(seed ^ (call as u64) << 32);
    let cases = match share {
        Share::Quick => quick(&points, &mut rng),
        Share::All => all(&points, &mut rng),
    };
    let cases = cases.into_iter().map(|(point, faults, adversary)| Case {
        call,
        client: point.client,
        at: point.at,
        faults,
        adversary,
    });
    let cases: BTreeSet<Case> = cases.collect();
    cases.into_iter().collect()
}

type Planned<'a> = (&'a Point<'a>, Vec<Fault>, Adversary);

fn known_faults() -> Vec<Fault> {
    Fault::plain().chain(Fault::errors(&CODES)).collect()
}

fn adversaries() -> impl Iterator<Item = Adversary> {
    ADVERSARIES.into_iter().map(|(adversary, _)| adversary)
}

/// Each kind of fault once with nobody else and once with an adversary, at drawn requests. Then a
/// second fault after each.
fn quick<'a>(points: &'a [Point<'a>], rng: &mut Rng) -> Vec<Planned<'a>> {
    let mut classes: BTreeMap<String, Vec<(&Point, Fault)>> = BTreeMap::new();
    for point in points {
        let faults = known_faults().into_iter();
        for fault in faults.filter(|fault| fault.fits(point.request)) {
            let class = classes.entry(fault.class()).or_default();
            class.push((point, fault));
        }
    }
    let mut cases = Vec::new();
    let mut rest: Vec<Adversary> = Vec::new();
    for places in classes.values() {
        if rest.is_empty() {
            rest.extend(adversaries().filter(|it| *it != Adversary::Nothing));
            rng.shuffle(&mut rest);
        }
        let next = rest.pop().unwrap_or(Adversary::Nothing);
        for (adversary, is_double) in [(Adversary::Nothing, false), (next, false), (next, true)] {
            let (point, fault) = places[rng.usize(..places.len())];
            let mut faults = vec![fault];
            if is_double {
                let second = known_faults();
                faults.push(second[rng.usize(..second.len())]);
            }
            cases.push((point, faults, adversary));
        }
    }
    cases
}

/// Each known fault with each adversary at each request; each code at a drawn request in each place;
/// and each two known faults one after the other, with drawn adversaries.
fn all<'a>(points: &'a [Point<'a>], rng: &mut Rng) -> Vec<Planned<'a>> {
    let mut cases = Vec::new();
    let drawn = |rng: &mut Rng| ADVERSARIES[rng.usize(..ADVERSARIES.len())].0;
    for point in points {
        for fault in Fault::plain().filter(|fault| fault.fits(point.request)) {
            cases.extend(adversaries().map(|adversary| (point, vec![fault], adversary)));
            for second in known_faults() {
                cases.push((point, vec![fault, second], drawn(rng)));
            }
        }
        let errors = Fault::errors(&CODES).filter(|fault| fault.fits(point.request));
        cases.extend(errors.map(|fault| (point, vec![fault], drawn(rng))));
    }
    for fault in Fault::errors(&codes::all()) {
        let fitting: Vec<&Point> = points.iter().filter(|it| fault.fits(it.request)).collect();
        if !fitting.is_empty() {
            let point = fitting[rng.usize(..fitting.len())];
            cases.push((point, vec![fault], drawn(rng)));
        }
    }
    cases
}
