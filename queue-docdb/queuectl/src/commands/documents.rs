//! `completions` and `man`.

use std::{fs, io};

use clap::CommandFactory;

use crate::{
    cli::{Cli, CompletionsArgs, ManArgs},
    failure::{Exit, Failure, Result},
};

pub(super) fn completions(args: &CompletionsArgs) -> Result<()> {
    // Into memory first, because the library panics if the output is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "queuectl", &mut script);
    Ok(io::Write::write_all(&mut io::stdout(), &script)?)
}

pub(super) fn man(args: &ManArgs) -> Result<()> {
    let Some(dir) = &args.dir else {
        return Ok(clap_mangen::Man::new(Cli::command()).render(&mut io::stdout())?);
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|error| {
            let text = format!("cannot write the manual to {}: {error}", dir.display());
            Failure::new(Exit::Failed, text)
        })
}
