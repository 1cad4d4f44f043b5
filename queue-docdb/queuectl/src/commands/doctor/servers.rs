//! The engine, the members, the clocks and the way to the servers, from what each server said.

use std::{collections::HashSet, time::Duration};

use queue_docdb::mongodb::options::ClientOptions;

use super::{
    check::Check,
    probe::{Answer, Member},
};
use crate::duration::short;

const ENGINE: &str = "engine";
const MEMBERS: &str = "members";
const MAJORITY: &str = "majority";
const CLOCK: &str = "clock";
const ROUND_TRIP: &str = "round trip";

/// Logs of several machines can be compared.
const LARGEST_OFFSET: f64 = 1.0;

const LONG_ROUND_TRIP: Duration = Duration::from_millis(20);

pub(super) fn checks(options: &ClientOptions, members: &[Member]) -> Vec<Check> {
    let answers: Vec<_> = members.iter().filter_map(answered).collect();
    // What the primary says counts.
    let main = answers
        .iter()
        .find(|(_, it)| it.is("isWritablePrimary"))
        .or(answers.first());
    let Some((host, main)) = main else {
        let no_answer = members.iter().filter_map(|it| {
            let error = it.answer.as_ref().err()?;
            Some(format!("{}: {error}", it.address))
        });
        let why = "no server answers with these settings";
        let whys = no_answer.collect::<Vec<_>>().join("; ");
        let mut checks = vec![Check::failed(MEMBERS, format!("{why}: {whys}"))];
        for name in [ENGINE, MAJORITY, CLOCK, ROUND_TRIP] {
            checks.push(Check::not_checked(name, why));
        }
        return checks;
    };
    let is_one = options.direct_connection == Some(true);
    let mut checks = vec![engine(options, main)];
    checks.extend(set(members, main, is_one));
    checks.push(clock(&answers, host, main));
    checks.push(round_trip(host, main));
    checks
}

fn answered(member: &Member) -> Option<(&str, &Answer)> {
    Some((&member.address, member.answer.as_ref().ok()?))
}

/// By the names of hosts, as queue-docdb tells it.
pub(super) fn is_amazon(options: &ClientOptions, answer: &Answer) -> bool {
    let mut names = answer.members();
    names.extend(options.hosts.iter().map(ToString::to_string));
    names.iter().any(|name| {
        let name = name.to_ascii_lowercase();
        name.contains(".docdb") && name.contains(".amazonaws.com")
    })
}

fn engine(options: &ClientOptions, answer: &Answer) -> Check {
    let version = answer.version.as_deref().unwrap_or("of unknown version");
    match is_amazon(options, answer) {
        true => Check::ok(
            ENGINE,
            format!("Amazon DocumentDB, compatible with {version}"),
        ),
        false => Check::ok(ENGINE, format!("MongoDB {version}")),
    }
}

fn set(members: &[Member], main: &Answer, is_one: bool) -> Vec<Check> {
    if main.hello.get_str("msg") == Ok("isdbgrid") {
        let text = "a router of shards, which tells nothing of the members";
        return [MEMBERS, MAJORITY]
            .map(|it| Check::not_checked(it, text))
            .into();
    }
    let Ok(set) = main.hello.get_str("setName") else {
        let text = "a standalone server: it has no change streams and no transactions, and no \
                    other member goes on if it fails";
        let advice = "make it a replica set; one member is enough for change streams and \
                      transactions, three outlast the loss of one";
        return vec![
            Check::warning(MEMBERS, text).advise(advice),
            Check::ok(MAJORITY, "the only server is the majority"),
        ];
    };
    let voters = main.members();
    let needed = voters.len() / 2 + 1;
    let role = |answer: &Answer| match () {
        () if answer.is("isWritablePrimary") => "primary",
        () if answer.is("secondary") => "secondary",
        () if answer.is("arbiterOnly") => "arbiter",
        () => "neither primary nor secondary",
    };
    let listed = members.iter().map(|member| {
        let state = match &member.answer {
            Ok(answer) => role(answer).to_owned(),
            Err(error) => format!("no answer ({error})"),
        };
        format!("{} {state}", member.address)
    });
    let text = format!("{set}: {}", listed.collect::<Vec<_>>().join(", "));
    if is_one && voters.len() > 1 {
        let why = format!(
            "directConnection is true, so only one of {} members was asked",
            voters.len()
        );
        return vec![Check::ok(MEMBERS, text), Check::not_checked(MAJORITY, why)];
    }
    let answered = members.iter().filter(|it| it.answer.is_ok()).count();
    // The URI may name a member otherwise than the set does.
    let names = members.iter().filter_map(|it| {
        let answer = it.answer.as_ref().ok()?;
        let name = answer.hello.get_str("me").unwrap_or(&it.address);
        Some(name.to_lowercase())
    });
    let up = names.collect::<HashSet<_>>().len();
    let has_primary = members
        .iter()
        .filter_map(|it| it.answer.as_ref().ok())
        .any(|answer| answer.is("isWritablePrimary"));
    let all = voters.len();
    let state = format!("members that answer: {up} of {all}; needed for writes: {needed}");
    let majority = match (up >= needed, has_primary) {
        (true, true) => Check::ok(MAJORITY, state),
        (true, false) => Check::failed(MAJORITY, format!("{state}; there is no primary"))
            .advise("wait a few seconds for an election, then look at rs.status()"),
        (false, _) => Check::failed(MAJORITY, format!("{state}; every write waits"))
            .advise("start the members that do not answer"),
    };
    let members = match answered == members.len() {
        true => Check::ok(MEMBERS, text),
        false => Check::warning(MEMBERS, text).advise(
            "start the member that does not answer, or let this machine reach it; queues work \
             while a majority is there",
        ),
    };
    vec![members, majority]
}

fn clock(answers: &[(&str, &Answer)], host: &str, main: &Answer) -> Check {
    let Some((offset, error)) = main.offset else {
        return Check::not_checked(CLOCK, format!("{host} does not tell its time"));
    };
    let offsets = answers.iter().filter_map(|(_, it)| it.offset);
    let farthest = offsets
        .map(|(other, other_error)| (other - offset).abs() - other_error - error)
        .fold(0.0, f64::max);
    if farthest > LARGEST_OFFSET {
        let text = format!("the members' clocks differ by {farthest:.1} s");
        return Check::failed(CLOCK, text).advise(
            "set the members' clocks by NTP: after a failover, leases end early or late by this",
        );
    }
    let seconds = offset.abs();
    let direction = if offset > 0.0 { "behind" } else { "ahead of" };
    let text = format!("this machine is {seconds:.3} s {direction} {host}, ± {error:.3} s");
    match seconds - error > LARGEST_OFFSET {
        true => Check::warning(CLOCK, text).advise(
            "set the clock that is wrong by NTP; queues use the server's time, so leases are \
             right, but times in logs are not",
        ),
        false => Check::ok(CLOCK, text),
    }
}

fn round_trip(host: &str, answer: &Answer) -> Check {
    let trips = &answer.round_trips;
    let (Some(longest), Some(median)) = (trips.last(), trips.get(trips.len() / 2)) else {
        return Check::not_checked(ROUND_TRIP, "there was no answer");
    };
    let milliseconds = |it: &Duration| format!("{:.1} ms", it.as_secs_f64() * 1e3);
    let text = format!(
        "{} to {host}, at most {} in {} tries",
        milliseconds(median),
        milliseconds(longest),
        trips.len()
    );
    match *median > LONG_ROUND_TRIP {
        true => Check::warning(ROUND_TRIP, text).advise(format!(
            "above {} use batches, or run workers nearer to the database: a lease and its ack \
             take about four round trips",
            short(LONG_ROUND_TRIP)
        )),
        false => Check::ok(ROUND_TRIP, text),
    }
}
