//! `bench`: figures, and nothing that it leaves.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::Fixture;

tests! {
    bench_measures_and_removes_its_queue,
    an_interrupt_leaves_no_queue,
    settings_of_bench_are_checked,
}

async fn leaves_nothing(fixture: &Fixture) {
    let queues = fixture.admin().list_queues().await;
    assert_eq!(queues.expect("a list"), []);
}

async fn bench_measures_and_removes_its_queue() {
    let fixture = Fixture::new().await;
    let found = fixture.json("bench", &["bench", "--time", "100ms", "--batch", "1,50"]);
    assert_eq!(found.len(), 6, "{found:#?}");
    assert_eq!(
        (&found[1]["batch"], &found[2]["batch"]),
        (&1.into(), &50.into())
    );
    for rate in &found[1..3] {
        for field in ["enqueued_per_second", "finished_per_second"] {
            assert!(rate[field].as_f64().expect("a number") > 1.0, "{rate}");
        }
    }
    // A batch whose messages had one id would be one message.
    let per_lease = |rate: usize| {
        found[rate]["finished_per_lease"]
            .as_f64()
            .expect("a number")
    };
    assert_eq!(per_lease(1), 1.0);
    assert!(per_lease(2) > 1.0, "{}", found[2]);
    for (latency, call) in found[3..].iter().zip(["enqueue", "lease", "ack"]) {
        assert_eq!(latency["call"], call);
        assert!(latency["calls"].as_u64().expect("a count") > 0, "{latency}");
        let ms = |field: &str| latency[field].as_f64().expect("a number");
        assert!(
            0.0 < ms("median_ms") && ms("median_ms") <= ms("p99_ms"),
            "{latency}"
        );
        assert!(ms("p99_ms") <= ms("longest_ms"), "{latency}");
    }
    leaves_nothing(&fixture).await;
    let table = fixture
        .run(&["bench", "--time=50ms", "--batch=10"])
        .succeeds()
        .out;
    assert!(
        table.starts_with("queuectl ") && table.contains("round trip"),
        "{table}"
    );
    assert!(
        table.contains("ENQUEUED/S") && table.contains("MEDIAN MS"),
        "{table}"
    );
}

async fn an_interrupt_leaves_no_queue() {
    let fixture = Fixture::new().await;
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = fixture.command(&["bench", "--time", "10m"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = command.spawn().expect("it starts");
        let mut out = BufReader::new(program.stdout.take().expect("a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        // It is at work once there is a queue.
        while fixture
            .admin()
            .list_queues()
            .await
            .expect("a list")
            .is_empty()
        {}
        let id = Pid::from_child(&program);
        kill_process(id, signal).expect("a signal");
        let mut said = String::new();
        let mut errors = program.stderr.take().expect("a pipe");
        errors.read_to_string(&mut said).expect("text");
        assert_eq!(
            program.wait().expect("it ends").code(),
            Some(code),
            "{said}"
        );
        assert!(said.contains("is removed"), "{said}");
        leaves_nothing(&fixture).await;
    }
}

async fn settings_of_bench_are_checked() {
    let fixture = Fixture::new().await;
    fixture
        .run(&["bench", "--batch", "1,5000"])
        .fails(2, &["--batch has 5000", "1 to"]);
    fixture
        .run(&["bench", "--batch", "0"])
        .fails(2, &["--batch"]);
    fixture
        .run(&["bench", "--time", "0s"])
        .fails(2, &["--time", "at least 1ms"]);
    fixture
        .run(&["bench", "--payload", "999999999"])
        .fails(2, &["--payload is 999999999; it must be at most"]);
    leaves_nothing(&fixture).await;
}
