//! The chart: a bar for each charted row, and one for its baseline.

use anyhow::{Context as _, Result};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::report::{Row, number, quantile};

const QUEUE: RGBColor = RGBColor(31, 111, 235);
const BASELINE: RGBColor = RGBColor(170, 178, 189);

/// In pixels.
const LABELS: i32 = 260;
const LONGEST_BAR: f64 = 330.0;
const BAR: i32 = 18;
const ROW: i32 = 2 * BAR + 14;

/// The chart as SVG, or `None` if no row is charted.
pub(crate) fn svg(rows: &[Row]) -> Result<Option<String>> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.is_charted).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let baselines = rows.iter().filter_map(|row| row.baseline.as_ref());
    let all = baselines.map(|(_, figures)| figures);
    let all = all.chain(rows.iter().map(|row| &row.figures));
    let longest = all
        .map(|figures| quantile(figures, 0.5))
        .fold(0.0, f64::max);

    let mut svg = String::new();
    let size = (760, (50 + ROW * rows.len() as i32) as u32);
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let text = |text: &str, at: (i32, i32), horizontal| {
        // 13 pixels in the SVG, which divides by 1.24.
        let style = ("sans-serif", 16).into_font().color(&BLACK);
        let style = style.pos(Pos::new(horizontal, VPos::Center));
        area.draw(&Text::new(text.to_owned(), at, style))
    };
    area.fill(&WHITE)?;
    let title = "Messages per second: queue-docdb (blue) and the baseline (grey)";
    text(title, (LABELS, 22), HPos::Left)?;
    for (row, y) in rows.iter().zip((44..).step_by(ROW as usize)) {
        text(&row.what, (LABELS - 10, y + BAR), HPos::Right)?;
        let (name, baseline) = row
            .baseline
            .as_ref()
            .context("a charted row needs a baseline")?;
        let [queue, baseline] = [&row.figures, baseline].map(|figures| quantile(figures, 0.5));
        let ratio = quantile(&row.ratios().unwrap_or_default(), 0.5);
        let queue_label = format!("{} ({} ×)", number(queue), number(ratio));
        let baseline_label = format!("{} {name}", number(baseline));
        for (y, figure, color, label) in [
            (y, queue, QUEUE, queue_label),
            (y + BAR, baseline, BASELINE, baseline_label),
        ] {
            let end = LABELS + (figure / longest * LONGEST_BAR) as i32;
            let corners = [(LABELS, y + 1), (end, y + BAR - 1)];
            area.draw(&Rectangle::new(corners, color.filled()))?;
            text(&label, (end + 6, y + BAR / 2), HPos::Left)?;
        }
    }
    area.present()?;
    drop(area);
    Ok(Some(svg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Target;

    #[test]
    fn a_charted_row_is_drawn_with_its_baseline() {
        let mut row = Row::new("batches", "messages/s", Target::None);
        row.figures = vec![30_000.0];
        row.baseline = Some(("raw".to_owned(), vec![10_000.0]));
        assert_eq!(svg(&[row.clone()]).unwrap(), None);
        row.is_charted = true;
        let svg = svg(&[row]).unwrap().unwrap();
        for text in ["batches", "30,000 (3.00 ×)", "10,000 raw"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
    }
}
