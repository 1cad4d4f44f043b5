//! The command that runs or judges a failed history again.

use std::{env, fmt::Display, path::Path};

/// Sets the environment `variable` to `value` and runs the items that `filter` matches.
pub(crate) fn command(variable: &str, value: impl Display, filter: &str) -> String {
    let target = env::current_exe().ok().and_then(|this| target(&this));
    let target = target.unwrap_or_else(|| "conformance".to_owned());
    format!("{variable}={value} cargo test --test {target} {filter}")
}

/// The test target of a binary. Cargo adds a hash to its name.
fn target(binary: &Path) -> Option<String> {
    let stem = binary.file_stem()?.to_str()?;
    let (target, _hash) = stem.rsplit_once('-')?;
    Some(target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_the_binary_without_its_hash() {
        let binary = Path::new("/target/debug/deps/two_words-0123456789abcdef");
        assert_eq!(target(binary).as_deref(), Some("two_words"));
        assert_eq!(target(Path::new("/somewhere/else")), None);
    }
}
