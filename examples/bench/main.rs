//! The benchmark: what the backends can do, beside what they are measured against.
//!
//! ```text
//! cargo run --release --example bench                        # memory, quick
//! cargo run --release --example bench -- --backend docdb     # a MongoDB, found as in the tests
//! cargo run --release --example bench -- --backend docdb --full
//! cargo run --release --example bench -- --backend docdb --only latency
//! ```
//!
//! It prints a table and leaves it as Markdown, with the figures of every round as JSON and two
//! charts as SVG, in `target/bench`, or where `--output` says. What each row means is in
//! `docs/benchmarks.md`.

mod chart;
mod child;
mod clock;
mod docdb;
mod findings;
mod machine;
mod memory;
mod progress;
mod row;
mod samples;
mod select;
mod table;
mod window;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use tokio::runtime::{Builder, Runtime};

use crate::{
    findings::{Findings, Run},
    machine::Machine,
    progress::Progress,
};

/// Measures a backend, beside baselines in the same rounds.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// What is measured.
    #[arg(long, value_enum, default_value = "memory")]
    backend: Backend,
    /// With smaller backlogs and fewer rounds, within two minutes; this is the default.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// With the backlogs and rounds that the targets are about.
    #[arg(long)]
    full: bool,
    /// Only the sections whose name contains this.
    #[arg(long, value_name = "SECTION")]
    only: Option<String>,
    /// The folder for `<backend>.json`, `.md` and `.svg`, or `<backend>-<section>` with `--only`; it
    /// is made if it is missing.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    output: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Memory,
    Docdb,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    if let Some(role) = child::role()? {
        return many_threads()?.block_on(child::play(role));
    }
    let arguments = Arguments::parse();
    let all: &[&'static str] = match arguments.backend {
        Backend::Memory => &memory::SECTIONS,
        Backend::Docdb => &docdb::SECTIONS,
    };
    let sections = select::sections(all, arguments.only.as_deref())?;
    // Before anything is measured, which would be in vain.
    fs::create_dir_all(&arguments.output)
        .with_context(|| format!("cannot make the folder {}", arguments.output.display()))?;
    let mut run = Run {
        backend: match arguments.backend {
            Backend::Memory => "memory",
            Backend::Docdb => "docdb",
        },
        scale: if arguments.full { "full" } else { "quick" },
        only: arguments.only.clone(),
        machine: Machine::here(),
        store: None,
    };
    let mut progress = Progress::of(sections.len());
    let findings = match arguments.backend {
        Backend::Memory => {
            let scale = match arguments.full {
                true => memory::Scale::full(),
                false => memory::Scale::quick(),
            };
            let measuring = memory::measure(&sections, &scale, &mut progress);
            one_thread()?.block_on(measuring)?
        }
        Backend::Docdb => {
            let scale = match arguments.full {
                true => docdb::Scale::full(),
                false => docdb::Scale::quick(),
            };
            let measuring = docdb::measure(&sections, &scale, &mut progress);
            let (findings, store) = many_threads()?.block_on(measuring)?;
            run.store = Some(store);
            findings
        }
    };
    progress.end();
    report(&findings, &run, &arguments)
}

fn report(findings: &Findings, run: &Run, arguments: &Arguments) -> anyhow::Result<()> {
    println!("\n{}", findings.markdown(run));
    if !arguments.full {
        println!("A quick run: smaller backlogs and fewer rounds than the targets are about.");
    }
    for path in findings.write(run, &arguments.output)? {
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn many_threads() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

fn one_thread() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
