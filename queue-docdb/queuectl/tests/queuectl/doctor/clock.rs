//! A machine whose clock is wrong: the program runs with a C library that answers another time.

use std::{fs, process::Command};

use super::{Doctor, Fixture};

tests! {
    a_clock_that_is_wrong,
}

const SOURCE: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *out) {
    long answer = syscall(SYS_clock_gettime, id, out);
    if (answer == 0 && id == CLOCK_REALTIME) out->tv_sec -= 600;
    return (int)answer;
}
";

async fn a_clock_that_is_wrong() {
    let fixture = Fixture::new().await;
    let file = |name: &str| fixture.folder.path().join(name);
    fs::write(file("clock.c"), SOURCE).expect("a file");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]);
    let compiled = compiler.args([file("clock.so"), file("clock.c")]).status();
    assert!(compiled.expect("cc runs").success());
    let mut command = fixture.command(&["doctor"]);
    let found = Doctor::of(command.env("LD_PRELOAD", file("clock.so")));
    found.says("clock off", "clock", "warning");
    found.is_well_but(&["clock", "queues"]);
    let text = found.check("clock")["finding"].to_string();
    let offset = text.split(' ').nth(3).and_then(|it| it.parse::<f64>().ok());
    assert!((offset.expect("a number") - 600.0).abs() < 5.0, "{text}");
}
