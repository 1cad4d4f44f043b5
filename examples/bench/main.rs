//! The benchmark: throughput and latency of the backends, beside baselines in the same rounds.
//!
//! ```text
//! cargo run --release --example bench                        # memory
//! cargo run --release --example bench -- --backend docdb     # a MongoDB, found as in the tests
//! cargo run --release --example bench -- --backend docdb --full
//! cargo run --release --example bench -- --backend docdb --only latency
//! ```
//!
//! `docs/benchmarks.md` explains the rows.

mod chart;
mod child;
mod docdb;
mod memory;
mod report;
mod window;

use std::{env, fs, path::PathBuf, thread};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use tokio::runtime::{Builder, Runtime};

use crate::{
    child::{Orders, Role},
    report::Report,
};

/// Measures a backend beside baselines.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    #[arg(long, value_enum, default_value = "memory")]
    backend: Backend,
    /// Smaller backlogs and fewer rounds, within two minutes. This is the default.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The backlogs and rounds that the targets are for.
    #[arg(long)]
    full: bool,
    /// Only the sections whose names contain this.
    #[arg(long, value_name = "SECTION")]
    only: Option<String>,
    /// A PostgreSQL whose database has the extension pgmq, to compare docdb with in `batches`. A
    /// queue is created there, and dropped at the end.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// The folder for `<backend>.md` and `<backend>.svg`, or `<backend>-<section>` with `--only`.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    output: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Memory,
    Docdb,
}

fn main() -> Result<()> {
    if let Some((role, orders)) = child::role()? {
        return Runtime::new()?.block_on(run_child(role, orders));
    }
    let Arguments {
        backend,
        full,
        only,
        postgres,
        output,
        ..
    } = Arguments::parse();
    let (name, sections): (_, &[_]) = match backend {
        Backend::Memory => ("memory", &memory::SECTIONS),
        Backend::Docdb => ("docdb", &docdb::SECTIONS),
    };
    let chosen = choose(sections, only.as_deref())?;
    fs::create_dir_all(&output)
        .with_context(|| format!("cannot create the folder {}", output.display()))?;

    let title = if full { "full" } else { "quick" };
    let mut title = format!("{title} run on {}", machine());
    let report = match backend {
        Backend::Memory => {
            let scale = if full { memory::FULL } else { memory::QUICK };
            let mut report = Report::new(chosen.len(), scale.rounds);
            let one_thread = Builder::new_current_thread().enable_all().build()?;
            one_thread.block_on(memory::measure(&chosen, &scale, &mut report))?;
            report
        }
        Backend::Docdb => {
            let scale = if full { docdb::FULL } else { docdb::QUICK };
            let mut report = Report::new(chosen.len(), scale.rounds);
            let measuring = docdb::measure(&chosen, &scale, postgres.as_deref(), &mut report);
            title = format!("{title}, {}", Runtime::new()?.block_on(measuring)?);
            report
        }
    };

    let markdown = format!("{title}\n\n{}\n", report.table());
    println!("\n{markdown}");
    let only = only.map(|only| format!("-{only}")).unwrap_or_default();
    let mut files = vec![("md", markdown)];
    files.extend(chart::svg(&report.rows)?.map(|svg| ("svg", svg)));
    for (extension, text) in files {
        let path = output.join(format!("{name}{only}.{extension}"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

async fn run_child(role: Role, orders: Orders) -> Result<()> {
    match role {
        Role::Consumer(location) => docdb::consume(&location, orders).await,
        Role::Listener(location) => docdb::listen(&location, orders).await,
        Role::Store { messages } => child::tell(&memory::bytes_per_message(messages).await?),
    }
}

fn choose(all: &[&'static str], only: Option<&str>) -> Result<Vec<&'static str>> {
    let only = only.unwrap_or_default();
    let chosen: Vec<_> = all
        .iter()
        .copied()
        .filter(|name| name.contains(only))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "--only is {only:?}; it must be part of one of {}",
        all.join(", ")
    );
    Ok(chosen)
}

fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or(env::consts::ARCH, |model| {
        model.trim_start_matches(['\t', ':', ' '])
    });
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let warning = if cfg!(debug_assertions) {
        ", WITHOUT --release"
    } else {
        ""
    };
    format!("{cores} cores of {model}, {}{warning}", env::consts::OS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_chosen_by_a_part_of_its_name() {
        let all = ["batches", "single", "latency"];
        assert_eq!(choose(&all, None).unwrap(), all);
        assert_eq!(choose(&all, Some("at")).unwrap(), ["batches", "latency"]);
        let error = choose(&all, Some("nothing")).unwrap_err().to_string();
        assert!(error.contains("batches, single, latency"), "{error}");
    }
}
