//! Processes whose wall clock is wrong.
//!
//! A few lines of C, preloaded into the process, replace the functions of the C library that read
//! the wall clock. Timers and the monotonic clock stay correct, as they do when an operator sets a
//! machine's clock.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// On Linux, Rust's standard library and the C libraries read the time through these functions.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long skew(void) {
    const char *text = getenv("QUEUE_CONFORMANCE_SKEW");
    if (!text) return 0;
    long seconds = atol(text);
    if (seconds) return seconds;
    /* Not a number: jumps back and forth with the monotonic clock. */
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return now.tv_nsec / 250000000 % 2 ? 600 : -600;
}

int clock_gettime(clockid_t id, struct timespec *out) {
    long answer = syscall(SYS_clock_gettime, id, out);
    if (answer == 0 && id == CLOCK_REALTIME) out->tv_sec += skew();
    return (int)answer;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"#;

/// The errors of the processes' clocks, in turn: seconds, or jumping.
const SKEWS: [&str; 3] = ["600", "-600", "jumps"];

/// A library that makes a process's clock wrong. Dropping this removes the library.
pub(super) struct WrongClock {
    folder: PathBuf,
}

impl WrongClock {
    pub(super) fn build() -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("queue-clock-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let clock = Self { folder };
        let source = clock.folder.join("clock.c");
        fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
        let compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&clock.library(), &source])
            .stdin(Stdio::null())
            .output();
        let compiler = compiler.map_err(|error| format!("cc cannot be run: {error}"))?;
        if !compiler.status.success() {
            let stderr = String::from_utf8_lossy(&compiler.stderr);
            return Err(format!("the wrong clock does not compile: {stderr}"));
        }
        clock.self_test()?;
        Ok(clock)
    }

    fn library(&self) -> PathBuf {
        self.folder.join("clock.so")
    }

    /// Makes the clock of the `n`th process wrong.
    pub(super) fn apply_to(&self, command: &mut Command, n: usize) {
        command.env("LD_PRELOAD", self.library());
        command.env("QUEUE_CONFORMANCE_SKEW", SKEWS[n % SKEWS.len()]);
    }

    /// Checks that a process sees another time. Without that, the suite would test nothing.
    fn self_test(&self) -> Result<(), String> {
        let year_of = |skew: &str| {
            let mut date = Command::new("date");
            date.args(["-u", "+%Y"]).env("LD_PRELOAD", self.library());
            date.env("QUEUE_CONFORMANCE_SKEW", skew);
            let output = date.output();
            let output = output.map_err(|error| format!("date cannot be run: {error}"))?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        // Ten years, in seconds.
        let (now, later) = (year_of("1")?, year_of("315576000")?);
        if now == later {
            return Err(format!(
                "a preloaded clock has no effect: the year is {now} and {later}"
            ));
        }
        Ok(())
    }
}

impl Drop for WrongClock {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
