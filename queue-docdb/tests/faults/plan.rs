//! Which cases are run.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use crate::{
    adversary::{ADVERSARIES, Adversary},
    calls::{CALLS, Call},
    case::Case,
    codes,
    schedule::{CODES, Fault, Place, Request},
    server::ClientKind,
};

/// How much of all cases is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Each call with each kind of fault and each adversary, in drawn combinations.
    Quick,
    All,
}

/// A server that is not the primary.
const TURNED_AWAY: Fault = Fault::Error {
    code: 10107,
    place: Place::Refused,
    has_label: false,
};

/// How many second faults are drawn for each request and first fault.
const SECONDS: usize = 7;

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
    let points = points(requests);
    let mut rng = Rng::with_seed(seed ^ (call as u64) << 32);
    let planned = match share {
        Share::Quick => quick(call, &points, &mut rng),
        Share::All => all(call, &points, &mut rng),
    };
    of_call(call, planned)
}

/// The cases in which a call meets a failover of a replica set: each kind at each request, or in the
/// quick share at a drawn one. Drawn adversaries, and none.
pub(crate) fn failovers(
    call: Call,
    requests: &[(ClientKind, Vec<Request>)],
    share: Share,
    seed: u64,
) -> Vec<Case> {
    let points = points(requests);
    let mut rng = Rng::with_seed(seed ^ (call as u64) << 32);
    let mut planned = Vec::new();
    for fault in Fault::failovers() {
        let mut fitting: Vec<&Point> = points.iter().collect();
        fitting.retain(|point| fault.fits(point.request));
        if share == Share::Quick {
            rng.shuffle(&mut fitting);
            fitting.truncate(1);
        }
        for point in fitting {
            let both = [Adversary::Nothing, drawn(call, &mut rng)];
            let some = match share {
                Share::Quick => &both[rng.usize(..2)..][..1],
                Share::All => &both,
            };
            planned.extend(
                some.iter()
                    .map(|adversary| (point, vec![fault], *adversary)),
            );
        }
    }
    of_call(call, planned)
}

fn points(requests: &[(ClientKind, Vec<Request>)]) -> Vec<Point<'_>> {
    let points = requests.iter().flat_map(|(client, requests)| {
        requests.iter().enumerate().map(|(at, request)| Point {
            client: *client,
            at,
            request,
        })
    });
    points.collect()
}

/// Each once.
fn of_call(call: Call, planned: Vec<Planned>) -> Vec<Case> {
    let cases = planned.into_iter();
    let cases = cases.map(|(point, faults, adversary)| Case {
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

fn adversaries(call: Call) -> Vec<Adversary> {
    let all = ADVERSARIES.into_iter().map(|(adversary, _)| adversary);
    all.filter(|it| call.fits(*it)).collect()
}

fn drawn(call: Call, rng: &mut Rng) -> Adversary {
    let all = adversaries(call);
    all[rng.usize(..all.len())]
}

/// Each kind of fault at a drawn request: alone in one call, and in the next one with an adversary and
/// maybe a second fault. Each code of a refusal that passes, once in one of the calls.
fn quick<'a>(call: Call, points: &'a [Point<'a>], rng: &mut Rng) -> Vec<Planned<'a>> {
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
    for (number, places) in classes.values().enumerate() {
        let (point, fault) = places[rng.usize(..places.len())];
        let mut faults = vec![fault];
        if (call as usize + number).is_multiple_of(2) {
            cases.push((point, faults, Adversary::Nothing));
            continue;
        }
        if rest.is_empty() {
            rest = adversaries(call);
            rest.retain(|it| *it != Adversary::Nothing);
            rng.shuffle(&mut rest);
        }
        if rng.bool() && !fault.lasts() {
            let second = known_faults();
            faults.push(second[rng.usize(..second.len())]);
        }
        cases.extend(rest.pop().map(|adversary| (point, faults, adversary)));
    }
    // One silent connection may only cost a part of a call, whichever command it meets.
    let own = points.iter().filter(|it| it.client == ClientKind::Own);
    cases.extend(own.map(|point| (point, vec![Fault::ReplyLost], Adversary::Nothing)));
    // Another producer may come in between any two requests of an enqueue.
    if call.fits(Adversary::SameIds) {
        let own = points.iter().filter(|it| it.client == ClientKind::Own);
        cases.extend(own.map(|point| (point, vec![Fault::Pause], Adversary::SameIds)));
    }
    // A driver that repeats a command by itself reports only the second error.
    let handed_in = points.iter().filter(|it| it.client == ClientKind::HandedIn);
    let twice = vec![Fault::ResetAfter, TURNED_AWAY];
    cases.extend(handed_in.map(|point| (point, twice.clone(), Adversary::Nothing)));
    let passing = codes::all()
        .into_iter()
        .filter(|it| codes::is_retryable(*it));
    let own = passing.skip(call as usize).step_by(CALLS.len());
    cases.extend(own.filter_map(|code| draw(call, &[code], points, rng)));
    cases
}

/// One of the errors of these codes, at one of the requests.
fn draw<'a>(
    call: Call,
    codes: &[i32],
    points: &'a [Point<'a>],
    rng: &mut Rng,
) -> Option<Planned<'a>> {
    let errors = Fault::errors(codes);
    let fitting: Vec<(&Point, Fault)> = errors
        .flat_map(|fault| points.iter().map(move |point| (point, fault)))
        .filter(|(point, fault)| fault.fits(point.request))
        .collect();
    let (point, fault) = *fitting.get(rng.usize(..fitting.len().max(1)))?;
    Some((point, vec![fault], drawn(call, rng)))
}

/// Each known fault with each adversary at each request; each code at a drawn request and
/// place; and drawn faults after each of them, with drawn adversaries.
fn all<'a>(call: Call, points: &'a [Point<'a>], rng: &mut Rng) -> Vec<Planned<'a>> {
    let mut cases = Vec::new();
    let known = known_faults();
    for point in points {
        for fault in Fault::plain().filter(|fault| fault.fits(point.request)) {
            let adversaries = adversaries(call).into_iter();
            cases.extend(adversaries.map(|adversary| (point, vec![fault], adversary)));
            if fault.lasts() {
                continue;
            }
            for _ in 0..SECONDS {
                let second = known[rng.usize(..known.len())];
                cases.push((point, vec![fault, second], drawn(call, rng)));
            }
        }
        let errors = Fault::errors(&CODES).filter(|fault| fault.fits(point.request));
        cases.extend(errors.map(|fault| (point, vec![fault], drawn(call, rng))));
    }
    for code in codes::all() {
        cases.extend(draw(call, &[code], points, rng));
    }
    cases
}
