//! A program that is asked to end. This program starts itself again, and sends real signals.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
};

use libtest_mimic::{Arguments, Failed, Trial};
use queue_api::{
    Queue,
    consumer::{Context, Failure, Worker, Workers, shutdown_signal},
};
use queue_memory::MemoryBackend;

/// If it is set, this process is the program that gets signals: a worker, or several.
const CHILD: &str = "QUEUE_SIGNAL_CHILD";

fn main() -> ExitCode {
    if let Ok(child) = env::var(CHILD) {
        program(&child).expect("the program ends without an error");
        return ExitCode::SUCCESS;
    }
    let trials = ["TERM", "INT"].into_iter().flat_map(|signal| {
        ["a_worker", "workers"].map(|child| {
            let name = format!("{child}::SIG{signal}_lets_the_handler_finish");
            Trial::test(name, move || ends_gracefully(child, signal))
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

#[tokio::main]
async fn program(child: &str) -> queue_api::Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "work")?;
    queue.typed().enqueue(&"a message".to_owned()).await?;
    let worker = Worker::new(queue.clone(), handle);
    let report = match child {
        "a_worker" => worker.run(shutdown_signal()).await?,
        _ => {
            let workers = Workers::new().with(worker);
            workers.run(shutdown_signal()).await.remove(0)?
        }
    };
    println!("{report}");
    Ok(())
}

async fn handle(_: String, context: Context) -> Result<(), Failure> {
    println!("handling");
    context.stopping().await;
    println!("stopping");
    let finish = || io::stdin().lines().next();
    tokio::task::spawn_blocking(finish).await?;
    Ok(())
}

fn ends_gracefully(child: &str, signal: &str) -> Result<(), Failed> {
    let program = Command::new(env::current_exe()?)
        .env(CHILD, child)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut program = Program(program);
    let mut said = BufReader::new(program.0.stdout.take().ok_or("no stdout")?).lines();
    let mut says = |expected: &str| -> Result<(), Failed> {
        let line = said
            .next()
            .ok_or(format!("it ended without {expected:?}"))??;
        assert!(line.starts_with(expected), "{line:?}, not {expected:?}");
        Ok(())
    };
    says("handling")?;
    program.signal(signal)?;
    says("stopping")?;
    program.signal(signal)?;
    let mut stdin = program.0.stdin.take().ok_or("no stdin")?;
    stdin.write_all(b"finish\n")?;
    says("1 handled, 0 failed")?;
    let status = program.0.wait()?;
    assert!(status.success(), "{status}");
    Ok(())
}

struct Program(Child);

impl Program {
    fn signal(&self, signal: &str) -> Result<(), Failed> {
        // `kill` is a builtin of every shell.
        let kill = format!("kill -{signal} {}", self.0.id());
        let status = Command::new("sh").args(["-c", &kill]).status()?;
        assert!(status.success(), "{kill}: {status}");
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
