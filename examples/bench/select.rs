//! Which sections are measured.

use anyhow::ensure;

/// The sections of a backend whose names contain what was asked for, in their order.
pub(crate) fn sections(
    all: &[&'static str],
    only: Option<&str>,
) -> anyhow::Result<Vec<&'static str>> {
    let Some(only) = only else {
        return Ok(all.to_vec());
    };
    let chosen: Vec<_> = all
        .iter()
        .copied()
        .filter(|name| name.contains(only))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no section of this backend is called like {only:?}; there are {}",
        all.join(", ")
    );
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_chosen_by_a_part_of_its_name() {
        let all = ["batches", "single", "latency"];
        assert_eq!(sections(&all, None).unwrap(), all);
        assert_eq!(sections(&all, Some("at")).unwrap(), ["batches", "latency"]);
        let error = sections(&all, Some("nothing")).unwrap_err().to_string();
        assert!(error.contains("batches, single, latency"), "{error}");
    }
}
