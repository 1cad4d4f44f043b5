//! Keys and answers in, screens and effects out.

use std::time::Duration;

use queue_api::{QueueName, QueueStats};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use tokio::time::Instant;

use super::{
    draw::{FRAME_LINES, draw},
    state::{Action, App, Details, HeadRow},
    update::{Effect, Event, update},
};

fn name(text: &str) -> QueueName {
    QueueName::new(text).expect("a name")
}

/// Queues `q000`, `q001`, … with as many ready messages as their number.
fn app(queues: u64) -> App {
    let mut app = App::new(
        "database shop of db:27017 with prefix \"queue.\"".to_owned(),
        100,
    );
    let names = (0..queues).map(|n| name(&format!("q{n:03}")));
    update(&mut app, Event::Names(names.collect()));
    update(&mut app, Event::Listed);
    for n in 0..queues {
        stats(
            &mut app,
            &format!("q{n:03}"),
            QueueStats::default().with_ready(n),
        );
    }
    app
}

fn stats(app: &mut App, queue: &str, stats: QueueStats) {
    update(app, Event::Stats(name(queue), Instant::now(), stats));
}

fn keys(app: &mut App, keys: &str) -> Option<Effect> {
    let typed = keys.chars().map(|c| match c {
        '\n' => KeyCode::Enter,
        '\x1b' => KeyCode::Esc,
        c => KeyCode::Char(c),
    });
    typed.map(|code| key(app, code)).last().flatten()
}

fn key(app: &mut App, code: KeyCode) -> Option<Effect> {
    update(app, Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

/// The lines of the screen.
fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
    app.height = usize::from(height.saturating_sub(FRAME_LINES)).max(1);
    update(app, Event::Resized);
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
    terminal.draw(|frame| draw(app, frame)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let line = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn two_hundred_queues_on_a_small_screen() {
    let mut app = app(200);
    let dead = QueueStats::default()
        .with_ready(190)
        .with_leased(9)
        .with_dead(7);
    stats(
        &mut app,
        "q199",
        dead.with_oldest_ready(Some(Duration::from_secs(75))),
    );
    app.commands = (42, 100);
    let lines = screen(&mut app, 80, 24);
    assert!(
        lines[0].starts_with(" 200 queues by depth ↓ · database shop"),
        "{}",
        lines[0]
    );
    assert!(lines[0].ends_with("42 of 100 commands/s"), "{}", lines[0]);
    assert_eq!(
        words(&lines[1]),
        ["QUEUE", "DEPTH", "NET/S", "OLDEST", "LEASED", "DEAD"]
    );
    let first = words(&lines[2]);
    assert_eq!(first[..2], ["q199", "199"]);
    assert_eq!(first[first.len() - 4..], ["1m", "15s", "9", "7"]);
    assert_eq!(words(&lines[21])[0], "q180");
    assert!(
        lines[23].contains("redrive") && lines[23].contains("quit"),
        "{}",
        lines[23]
    );

    key(&mut app, KeyCode::End);
    let lines = screen(&mut app, 80, 24);
    assert_eq!(words(&lines[21])[0], "q000");
    key(&mut app, KeyCode::PageUp);
    key(&mut app, KeyCode::Home);
    assert_eq!(words(&screen(&mut app, 80, 24)[2])[0], "q199");
    assert_eq!(
        app.wanted().visible.len(),
        20,
        "only these are looked at first"
    );
}

#[test]
fn the_selection_stays_on_its_queue() {
    let mut app = app(50);
    screen(&mut app, 80, 24);
    keys(&mut app, "jj");
    assert_eq!(app.selected, Some(name("q047")));
    stats(&mut app, "q047", QueueStats::default());
    screen(&mut app, 80, 24);
    assert_eq!(app.selected, Some(name("q047")));
    let rows = app.rows();
    let at = app.position(&rows);
    assert!(
        (app.offset..app.offset + app.height).contains(&at),
        "it is on the screen"
    );
    keys(&mut app, "x");
    assert_eq!(app.question, Some(Action::Delete(name("q047"))));
}

#[test]
fn the_filter_and_the_order() {
    let mut app = app(30);
    keys(&mut app, "/Q01\n");
    let lines = screen(&mut app, 80, 24);
    assert!(lines[0].contains("10 with /Q01"), "{}", lines[0]);
    assert_eq!(
        (words(&lines[2])[0], words(&lines[11])[0]),
        ("q019", "q010")
    );
    keys(&mut app, "S");
    assert_eq!(words(&screen(&mut app, 80, 24)[2])[0], "q010");
    keys(&mut app, "\x1bSs");
    stats(&mut app, "q003", QueueStats::default().with_dead(1));
    let lines = screen(&mut app, 80, 24);
    assert!(lines[0].contains("30 queues by dead"), "{}", lines[0]);
    assert_eq!(words(&lines[2])[0], "q003");
    keys(&mut app, "/zz\n");
    assert!(
        screen(&mut app, 80, 24)
            .iter()
            .any(|line| line.contains("no queue has this"))
    );
}

#[test]
fn nothing_is_changed_without_a_yes() {
    let mut app = app(2);
    stats(
        &mut app,
        "q001",
        QueueStats::default().with_ready(1).with_dead(3),
    );
    for (letter, action, text) in [
        (
            "r",
            Action::Redrive(name("q001")),
            "redrive 3 dead letters of queue q001?",
        ),
        (
            "p",
            Action::PurgeLive(name("q001")),
            "remove 1 live message of queue q001?",
        ),
        (
            "d",
            Action::PurgeDead(name("q001")),
            "remove 3 dead letters of queue q001?",
        ),
        (
            "x",
            Action::Delete(name("q001")),
            "delete, with 1 live message and 3 dead letters, queue q001?",
        ),
    ] {
        assert_eq!(keys(&mut app, letter), None);
        assert!(screen(&mut app, 80, 24)[22].contains(text), "{text}");
        for other in ["n", "\n", "Y", letter, "q"] {
            assert_eq!(keys(&mut app, other), None, "{other}");
            assert_eq!(app.question, None);
            assert!(screen(&mut app, 80, 24)[22].contains("nothing was changed"));
            keys(&mut app, letter);
        }
        assert_eq!(keys(&mut app, "y"), Some(Effect::Act(action)));
    }
}

#[test]
fn a_lost_connection_is_shown_until_it_is_back() {
    let mut app = app(3);
    update(&mut app, Event::Lost("no answer for 3s".to_owned()));
    let lines = screen(&mut app, 80, 24);
    assert!(
        lines[22].contains("connection lost, trying again: no answer for 3s"),
        "{}",
        lines[22]
    );
    assert_eq!(words(&lines[2])[0], "q002", "what was known stays");
    update(&mut app, Event::Found);
    assert_eq!(screen(&mut app, 80, 24)[22], "");
}

#[test]
fn one_queue_in_detail() {
    let mut app = app(3);
    keys(&mut app, "\n");
    assert_eq!(app.wanted().open, Some(name("q002")));
    let details = Details {
        head: vec![HeadRow {
            id: "m-1".to_owned(),
            state: "ready",
            attempts: 2,
            due: "for 5s".to_owned(),
            payload: "hello".to_owned(),
        }],
        reasons: vec![("broken".to_owned(), 4), ("late".to_owned(), 1)],
        has_all_reasons: false,
        leases: vec![("up to 10 s", 3)],
        has_all_leases: true,
    };
    update(&mut app, Event::Details(name("other"), Details::default()));
    update(&mut app, Event::Details(name("q002"), details));
    let all = screen(&mut app, 80, 24);
    let has = |words_of: &[&str]| all.iter().any(|line| words(line) == words_of);
    assert!(
        has(&[
            "2", "ready,", "0", "delayed,", "0", "leased,", "0", "dead;", "oldest", "ready", "-"
        ]),
        "{all:#?}"
    );
    assert!(
        has(&["m-1", "ready", "2", "for", "5s", "hello"]),
        "{all:#?}"
    );
    assert!(
        has(&["4", "broken", "3", "up", "to", "10", "s"]),
        "{all:#?}"
    );
    assert!(
        all.iter()
            .any(|line| line.contains("the first 5 dead letters by reason"))
    );
    keys(&mut app, "\x1b");
    assert!(app.open.is_none());
}

#[test]
fn a_queue_that_goes_while_it_is_open() {
    let mut app = app(2);
    keys(&mut app, "\n");
    update(&mut app, Event::Names([name("q000")].into()));
    let lines = screen(&mut app, 80, 24);
    assert!(lines[2].contains("does not exist any more"), "{lines:#?}");
    keys(&mut app, "\x1b");
    assert_eq!(words(&screen(&mut app, 80, 24)[2])[0], "q000");
}

#[test]
fn every_size_of_the_screen_is_drawn() {
    for (width, height) in [(1, 1), (3, 2), (10, 4), (40, 7), (300, 100)] {
        for queues in [0, 1, 200] {
            let mut app = app(queues);
            screen(&mut app, width, height);
            keys(&mut app, "jj\n");
            screen(&mut app, width, height);
        }
    }
}

#[test]
fn net_is_the_change_between_two_looks() {
    let (mut app, began) = (app(0), Instant::now());
    update(&mut app, Event::Names([name("q")].into()));
    for (seconds, ready) in [(0, 100), (2, 90)] {
        let at = began + Duration::from_secs(seconds);
        update(
            &mut app,
            Event::Stats(name("q"), at, QueueStats::default().with_ready(ready)),
        );
    }
    let lines = screen(&mut app, 80, 24);
    assert!(words(&lines[2]).contains(&"-5.0"), "{}", lines[2]);
}

#[test]
fn control_c_always_ends() {
    for typed in ["", "x", "/a", "\n"] {
        let mut app = app(2);
        keys(&mut app, typed);
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(
            update(&mut app, Event::Key(key)),
            Some(Effect::Quit),
            "{typed:?}"
        );
    }
}
