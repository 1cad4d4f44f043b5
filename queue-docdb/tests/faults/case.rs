//! One case: a call, its faults and the adversary's move.

use std::{fmt, sync::Arc, time::Duration};

use queue_api::{Error, ErrorKind, Result};
use queue_conformance::record::judge;
use tokio::time::{Instant, timeout};

use crate::{
    adversary::{ADVERSARIES, Adversary},
    calls::{CALLS, Call, LONGEST_POLL_PAUSE, LONGEST_WAIT, Seen},
    codes,
    drain::drain,
    failover::Seat,
    log::{Event, Leased, Party, What, World},
    look::Look,
    proxy::{Proxy, pause},
    record::{SUBJECT, record_case},
    schedule::{Fault, Place, Request, TIMEOUT},
    server::{CLIENTS, ClientKind, Server},
    truth::{Facts, lost, untruths},
};

/// How much longer than its operation timeout a call may take.
const GRACE: Duration = Duration::from_secs(2);

/// How much longer than the silence a call with one silent connection may take.
const SILENCE_GRACE: Duration = Duration::from_millis(700);

/// On a busy machine, a call may take longer by so many times what an undisturbed look takes. On a
/// quiet one, that is a fraction of a second.
const BUSY: u32 = 20;

/// A call that takes longer hangs.
pub(crate) const HANGS: Duration = Duration::from_secs(40);

/// More than two clocks may differ.
const AFTER_DELETION: Duration = Duration::from_secs(2);

/// How often a call is repeated after an error. Connections that the fault has broken may each fail
/// one.
const REPEATS: usize = 8;

/// The driver answers it by logging in, which these clients cannot, and forgets its labels.
const REAUTHENTICATE: i32 = 391;

/// Commands that only read.
const READS: [&str; 4] = ["find", "aggregate", "listCollections", "listIndexes"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Case {
    pub(crate) call: Call,
    pub(crate) client: ClientKind,
    /// The first request that may meet the first fault, from 0.
    pub(crate) at: usize,
    /// The second one meets the next request that it fits, and so on.
    pub(crate) faults: Vec<Fault>,
    pub(crate) adversary: Adversary,
}

/// How a case went.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) wrong: Vec<String>,
    /// What is wrong, unless the machine was too busy: it can break connections too.
    pub(crate) slow: Vec<String>,
    /// Whether the call went on before the adversary had moved.
    pub(crate) is_adversary_late: bool,
    pub(crate) took: Duration,
    pub(crate) answer: Result<()>,
    /// The requests that met a fault.
    pub(crate) met: Vec<String>,
    /// All requests of the call.
    pub(crate) requests: Vec<Request>,
}

impl Case {
    /// As its `Display` writes it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.split('/').collect();
        let [call, client, at, faults, adversary] = words[..] else {
            return None;
        };
        let faults: Option<Vec<Fault>> = faults.split('+').map(Fault::parse).collect();
        Some(Self {
            call: CALLS.iter().find(|(_, name)| *name == call)?.0,
            client: CLIENTS.iter().find(|(_, name)| *name == client)?.0,
            at: at.parse().ok()?,
            faults: faults?,
            adversary: ADVERSARIES.iter().find(|(_, name)| *name == adversary)?.0,
        })
    }

    /// With a seat, the case meets a failover of the server's replica set.
    pub(crate) async fn run(&self, server: &Server, seat: Option<Arc<Seat>>) -> Report {
        let database = server.database(self.call.is_first());
        let began = Instant::now();
        let running = self.run_in(server, seat, &database);
        let mut report = match running.await {
            Ok(report) => report,
            Err(error) => Report {
                slow: vec![format!("an undisturbed call failed: {error:?}")],
                ..Report::default()
            },
        };
        report.took = began.elapsed();
        let is_clean = report.wrong.is_empty() && report.slow.is_empty();
        // A request of a deletion may still be on its way, and the next case begins at the same time.
        let is_deleted = self.adversary == Adversary::Delete || self.call == Call::DeleteQueue;
        if is_clean && !is_deleted && !self.call.is_first() {
            server.give_back(database);
        } else {
            server.drop_database(&database).await;
        }
        report
    }

    async fn run_in(
        &self,
        server: &Server,
        seat: Option<Arc<Seat>>,
        database: &str,
    ) -> Result<Report> {
        let world = Arc::new(World::new(database));
        let other = server.undisturbed("other", database, &world).await?;
        let adversary = server.undisturbed("adversary", database, &world).await?;
        let proxy = Proxy::start(server.primary(), seat.clone()).await;
        let connecting = || server.behind(&proxy, self.client, database, &world);
        let subject = match connecting().await {
            Ok(subject) => subject,
            // Its timeouts are short for a busy machine.
            Err(_) => connecting().await?,
        };
        if !self.call.is_first() {
            other.backend.prepare(&world.queue).await?;
            // It knows the queue, so that it sends nothing but the call's requests.
            subject.lease(1).await?;
        }
        let leased = self.call.prepare(&other).await?;
        let looking = Instant::now();
        let before = other.look(self.call).await?;
        let busy = looking.elapsed() * BUSY;
        let prepared = world.events().len();
        if !world.has_sent_all(&before) {
            // A request of the database's last case was on its way for that long.
            let report = Report {
                slow: vec![format!("the queue was not empty: {before:?}")],
                ..Report::default()
            };
            return Ok(report);
        }

        let beside = match self.faults.contains(&Fault::OthersUndone) {
            true => {
                let beside = proxy.beside().await;
                let mut party = server
                    .behind(&beside, ClientKind::Own, database, &world)
                    .await?;
                party.name = adversary.name;
                Some((beside, party))
            }
            false => None,
        };
        if let Some(seat) = &seat {
            seat.prepare().await;
        }
        proxy.arm(self.at, &self.faults);
        let arrive = async || match self.call {
            Call::WaitEmpty => other.enqueue(world.copies(&["late"])).await.map(drop),
            _ => Ok(()),
        };
        let moves = async {
            if self.call == Call::WaitEmpty && self.faults.is_empty() {
                tokio::select! {
                    () = proxy.await_requests(2) => {}
                    _ = proxy.fault() => {}
                }
                return arrive().await;
            }
            if !proxy.fault().await {
                return Ok(());
            }
            let moved = match &beside {
                None => self.adversary.make(self.call, &adversary).await,
                Some((beside, adversary)) => {
                    beside.arm(0, &[]);
                    tokio::select! {
                        moved = self.adversary.make(self.call, adversary) => moved,
                        () = beside.written() => Ok(()),
                    }
                }
            };
            let arrived = arrive().await;
            proxy.go_on();
            moved.and(arrived)
        };
        let call = async {
            let began = Instant::now();
            let answer = tokio::select! {
                answer = timeout(HANGS, self.call.make(&subject, &leased)) => answer,
                () = self.give_up(&proxy) => {
                    Ok(Err(Error::new(ErrorKind::Unavailable, "call", "it was dropped")))
                }
            };
            let took = began.elapsed();
            let requests = proxy.requests();
            if self.call == Call::DeleteQueue && matches!(answer, Ok(Ok(_))) {
                // A request of the deletion that arrives after it must not remove what came after it. The
                // clock stood still; it moves by what the call took, and no more.
                world.clock.advance(took);
                let _ = other.enqueue(world.copies(&["a"])).await;
            }
            let (met, held) = proxy.heal().await;
            (answer, took.saturating_sub(held), met, requests)
        };
        let ((answer, took, met, requests), moved) = tokio::join!(call, moves);
        let mut report = Report {
            met,
            requests,
            is_adversary_late: proxy.is_adversary_late(),
            ..Report::default()
        };
        if let Some(seat) = &seat {
            seat.outlast().await;
        }
        let Ok(answer) = answer else {
            report.wrong.push("the call hangs".to_owned());
            return Ok(report);
        };
        if answer.is_ok() {
            proxy.undo().await;
        }
        let after = other.look(self.call).await?;
        let longest = match self.call {
            // Nothing is ready any more, and the clock stands still.
            Call::Wait if after.ready() == 0 => LONGEST_WAIT,
            // An old primary does not have the message.
            Call::WaitEmpty if self.faults.contains(&Fault::OthersUndone) => LONGEST_WAIT,
            // W1: each fault may cost a look at the database.
            Call::WaitEmpty => {
                LONGEST_POLL_PAUSE + server.timeout * self.faults.len().max(1) as u32
            }
            _ => server.timeout * self.call.timeouts(),
        };
        if took > longest + GRACE + busy {
            let why = format!("the call took {took:.1?}, more than {longest:?} and {GRACE:?}");
            report.slow.push(why);
        }
        // What a late request of a deletion may still remove has to be told from newer messages.
        let pause = match self.call {
            Call::DeleteQueue => Duration::from_secs(1),
            _ => Duration::ZERO,
        };
        let took = took.saturating_sub(pause);
        let is_one_silence = matches!(self.faults[..], [fault] if fault.is_one_silence());
        let is_alone = self.adversary == Adversary::Nothing;
        let is_repeatable = report.met.iter().all(|name| self.is_repeatable(name));
        if is_one_silence && is_alone && is_repeatable && took > TIMEOUT / 3 + SILENCE_GRACE + busy
        {
            let why =
                format!("one silent connection cost more than a third of the call: {took:.1?}");
            report.slow.push(why);
        }
        if let Err(error) = &answer {
            self.judge_error(error, moved.is_err(), &mut report);
        }
        let looks = (&before, &after);
        let wrong = &mut report.wrong;
        self.judge_answer(&world, prepared, looks, &answer, false, wrong);
        if answer.is_err() {
            self.repeat(&proxy, &subject, &leased, &other, &mut report)
                .await?;
        }
        if self.call.is_first() || self.adversary == Adversary::Delete {
            // A request of another's deletion may arrive after it, too.
            world.clock.advance(AFTER_DELETION);
            // Of a collection that was made without its unique index, the judge sees it now.
            for party in [&subject, &subject, &other] {
                // An error is as good as an answer.
                let _ = party.enqueue(world.copies(&["a"])).await;
            }
        }
        let last = drain(self.call, &other, &mut report.wrong).await?;
        let mut events = world.events();
        if self.faults.contains(&Fault::OthersUndone) {
            // A failover may undo what a read has shown.
            events.retain(|event| !matches!(event.what, What::Read(_)));
        }
        report.wrong.extend(lost(&events, &last));
        let violations = judge(&record_case(&events, self.call, self.faults.len()));
        report
            .wrong
            .extend(violations.iter().map(ToString::to_string));
        report.answer = answer.map(drop);
        Ok(report)
    }

    /// Waits until the caller drops the call.
    async fn give_up(&self, proxy: &Proxy) {
        if self.adversary != Adversary::GivesUp || !proxy.fault().await {
            std::future::pending().await
        }
    }

    /// Whether the backend can send this command again after a fault that leaves open what it did.
    /// README.md lists those that it cannot.
    fn is_repeatable(&self, request: &str) -> bool {
        match self.call {
            Call::Transaction => false,
            Call::Purge | Call::PurgeDead | Call::Redrive | Call::RedriveIds => {
                READS.contains(&request)
            }
            _ => request != "insert",
        }
    }

    /// How many of its faults no request met.
    pub(crate) fn count_faults_not_met(&self, report: &Report) -> usize {
        self.faults.len() - report.met.len()
    }

    /// Whether the primary changes, also if the call has no message that meets it.
    pub(crate) fn is_failover(&self) -> bool {
        self.faults.iter().any(|fault| fault.failover().is_some())
    }

    /// Whether the error is one that the faults explain.
    fn judge_error(&self, error: &Error, is_disturbed: bool, report: &mut Report) {
        let may_be_final = self.faults.iter().any(|fault| match *fault {
            Fault::Error {
                code,
                place,
                has_label,
            } => {
                let is_said = has_label && code != REAUTHENTICATE;
                !is_said && place != Place::Concern && !codes::is_retryable(code)
            }
            _ => false,
        });
        if !error.is_retryable() && !may_be_final {
            let why = format!("X1: the error is not retryable: {error:?}");
            report.wrong.push(why);
        }
        let is_harmless = !self.is_failover()
            && (report.met.is_empty()
                || matches!(self.faults[..], [Fault::Pause | Fault::PauseAfter]));
        let is_alone = self.adversary == Adversary::Nothing && !is_disturbed;
        if is_harmless && is_alone {
            let why = format!("nothing happened, and the call failed: {error:?}");
            report.slow.push(why);
        }
        let is_repeatable = report.met.iter().all(|name| self.is_repeatable(name));
        let passes = match self.faults[..] {
            [Fault::Error { code, place, .. }] => {
                place == Place::Refused && codes::is_retryable(code) && codes::passes(code)
            }
            _ => false,
        };
        if is_alone && is_repeatable && passes {
            let why = format!("a refusal that passes failed the call: {error:?}");
            report.slow.push(why);
        }
    }

    fn judge_answer(
        &self,
        world: &World,
        earlier: usize,
        (before, after): (&Look, &Look),
        answer: &Result<Seen>,
        is_repeat: bool,
        wrong: &mut Vec<String>,
    ) {
        let events = world.events();
        let is_own = |event: &&Event| event.by == SUBJECT;
        let (own, others) = events[earlier..].iter().partition(is_own);
        wrong.extend(untruths(&Facts {
            events: &events,
            own,
            others,
            is_repeat,
            has_time_passed: self.adversary.passes_time(),
            may_be_short: self.faults.len() > 1 || self.faults.iter().any(|it| it.lasts()),
            before,
            after,
            seen: answer.as_ref().ok(),
        }));
    }

    /// After an error, the same call works and does no harm.
    async fn repeat(
        &self,
        proxy: &Proxy,
        subject: &Party,
        leased: &[Leased],
        other: &Party,
        report: &mut Report,
    ) -> Result<()> {
        let mut last = None;
        for _ in 0..REPEATS {
            let before = other.look(self.call).await?;
            let earlier = other.world.events().len();
            let answer = timeout(HANGS, self.call.make(subject, leased)).await;
            proxy.undo().await;
            let Ok(answer) = answer else {
                report.wrong.push("the repeat hangs".to_owned());
                return Ok(());
            };
            let after = other.look(self.call).await?;
            let looks = (&before, &after);
            let wrong = &mut report.wrong;
            self.judge_answer(&other.world, earlier, looks, &answer, true, wrong);
            match answer {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
            if self.call == Call::Transaction {
                // The one before holds its messages until the server ends it.
                pause(Duration::from_secs(1)).await;
            }
        }
        let why = format!("X1: no repeat of the call works: {last:?}");
        report.wrong.push(why);
        Ok(())
    }
}

impl Default for Report {
    fn default() -> Self {
        Self {
            wrong: Vec::new(),
            slow: Vec::new(),
            is_adversary_late: false,
            took: Duration::ZERO,
            answer: Ok(()),
            met: Vec::new(),
            requests: Vec::new(),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = CLIENTS.iter().find(|(it, _)| *it == self.client);
        let client = client.map_or("", |(_, name)| name);
        let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        let faults = faults.join("+");
        let Self {
            call,
            at,
            adversary,
            ..
        } = self;
        write!(f, "{call}/{client}/{at}/{faults}/{adversary}")
    }
}
