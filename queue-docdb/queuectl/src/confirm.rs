//! A question before what cannot be undone.

use std::io::{IsTerminal, stdin};

use crate::{
    cli::ConfirmArgs,
    failure::{Exit, Failure, Result},
};

/// Returns if the user agrees to `what`, such as "remove 12 messages of queue mail".
pub(crate) fn confirm(args: &ConfirmArgs, what: &str) -> Result<()> {
    if args.yes {
        return Ok(());
    }
    if !stdin().is_terminal() {
        return Err(Failure::new(
            Exit::NotConfirmed,
            format!("this would {what}; the standard input is no terminal, so --yes is needed"),
        ));
    }
    let asked = dialoguer::Confirm::new()
        .with_prompt(format!("This will {what}. Go on?"))
        .default(false)
        .interact();
    match asked {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(Exit::NotConfirmed, "nothing was changed")),
        Err(error) => {
            let text = format!("cannot ask: {error}; nothing was changed");
            Err(Failure::new(Exit::NotConfirmed, text))
        }
    }
}
