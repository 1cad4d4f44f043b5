//! The rows as a table in Markdown, which a terminal shows as well.

use crate::{
    row::{Row, Target, Unit},
    samples::Samples,
};

const HEAD: [&str; 6] = ["what", "measured", "against", "ratio", "target", "met"];

/// Each row with its figure, mostly the median, and in brackets, its smallest and largest round.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widths: [usize; HEAD.len()] = std::array::from_fn(|column| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let rule = widths.map(|width| "-".repeat(width));
    lines.insert(1, rule);
    let line = |cells: &[String; HEAD.len()]| {
        let padded = cells.iter().zip(widths);
        let padded: Vec<_> = padded
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    lines.iter().map(line).collect()
}

fn cells(row: &Row) -> [String; HEAD.len()] {
    let figure = |figure| number(figure, row.unit);
    let ratio = row.ratio();
    let target = row.target.map(|target| {
        let show = |bound: f64| match ratio {
            Some(_) => plain(bound),
            None => figure(bound),
        };
        match target {
            Target::AtLeast(least) => format!("≥ {}", show(least)),
            Target::AtMost(most) => format!("≤ {}", show(most)),
        }
    });
    let baseline = row.baseline.as_ref();
    [
        row.name.clone(),
        format!(
            "{} {}",
            with_spread(&row.measured, row.quantile, figure),
            row.unit
        ),
        baseline.map_or_else(String::new, |baseline| {
            format!(
                "{}: {}",
                baseline.name,
                with_spread(&baseline.measured, row.quantile, figure)
            )
        }),
        ratio.map_or_else(String::new, |ratio| {
            with_spread(&ratio, row.quantile, |ratio| format!("{ratio:.2}"))
        }),
        target.unwrap_or_default(),
        match row.is_met() {
            Some(true) => "yes".to_owned(),
            Some(false) => "**no**".to_owned(),
            None => String::new(),
        },
    ]
}

fn with_spread(samples: &Samples, quantile: f64, show: impl Fn(f64) -> String) -> String {
    let figure = show(samples.quantile(quantile));
    if samples.len() < 2 {
        return figure;
    }
    let (least, most) = samples.spread();
    format!("{figure} ({}–{})", show(least), show(most))
}

fn number(figure: f64, unit: Unit) -> String {
    match unit {
        Unit::MessagesPerSecond | Unit::Bytes | Unit::Nanoseconds => grouped(figure.round() as i64),
        Unit::CommandsPerSecond | Unit::PerMessage => format!("{figure:.2}"),
        Unit::Milliseconds => format!("{figure:.1}"),
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{grouped}")
}

/// At least one decimal, and no more than it has: targets are round.
fn plain(number: f64) -> String {
    let text = number.to_string();
    if text.contains('.') {
        text
    } else {
        format!("{text}.0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let numbers = [0, 999, 1000, 1_234_567, -4321];
        let grouped = numbers.map(grouped);
        assert_eq!(grouped, ["0", "999", "1,000", "1,234,567", "-4,321"]);
    }

    #[test]
    fn a_row_shows_figure_baseline_ratio_and_verdict() {
        let row = Row::new("batches", "lease + ack", Unit::MessagesPerSecond)
            .measured([12_000.0, 15_000.0, 18_000.0].into_iter().collect())
            .against("raw", [10_000.0; 3].into_iter().collect())
            .at_least(1.0);
        let last = table(&[row]).lines().last().unwrap_or_default().to_owned();
        let cells: Vec<_> = last.split('|').map(str::trim).collect();
        assert_eq!(
            cells,
            [
                "",
                "lease + ack",
                "15,000 (12,000–18,000) messages/s",
                "raw: 10,000 (10,000–10,000)",
                "1.50 (1.20–1.80)",
                "≥ 1.0",
                "yes",
                ""
            ]
        );
    }

    #[test]
    fn a_row_without_a_baseline_is_judged_by_itself() {
        let row = Row::new("size", "bytes", Unit::Bytes)
            .measured(Samples::one(1234.0))
            .at_most(300.0);
        let table = table(&[row]);
        assert!(table.contains("| 1,234 bytes |"), "{table}");
        assert!(table.contains("| ≤ 300  | **no** |"), "{table}");
    }
}
