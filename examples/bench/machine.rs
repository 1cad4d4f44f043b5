//! What the figures were measured on.

use std::{fmt, fs, thread};

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_gib: Option<u64>,
    system: String,
    is_optimized: bool,
}

impl Machine {
    /// What can be found out; on another system than Linux that is little.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = value(&read("/proc/meminfo"), "MemTotal");
        let kib = kib.and_then(|kib| kib.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            processor: value(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.map(|kib| (kib + (1 << 19)) >> 20),
            system: format!(
                "{} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease")
            )
            .trim()
            .to_owned(),
            is_optimized: !cfg!(debug_assertions),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            processor, cores, ..
        } = self;
        write!(f, "{cores} cores of {processor}")?;
        if let Some(memory) = self.memory_gib {
            write!(f, ", {memory} GiB")?;
        }
        write!(f, ", {}", self.system)?;
        if !self.is_optimized {
            f.write_str(", NOT OPTIMIZED: run it with --release")?;
        }
        Ok(())
    }
}
