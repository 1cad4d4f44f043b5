//! Charts as SVG, by hand: two axes, points, lines and a legend need no library.

use std::fmt::Write;

use serde::Serialize;

use crate::table::grouped;

/// Figures that depend on a number: of processes, of stored messages.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    pub(crate) series: Vec<Series>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

/// The median of the rounds, between the smallest and the largest.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Chart {
    fn points(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().flat_map(|series| &series.points)
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 320.0;

/// Told apart by people who see colours differently, on white as on black.
const COLOURS: [&str; 4] = ["#2f7ed8", "#d9822b", "#3d9a50", "#a05cc8"];

/// Plain rules first: not every viewer knows of dark ones.
const STYLE: &str = "<style>\
text { font: 13px sans-serif; fill: #24292f; } \
.title { font-size: 15px; font-weight: bold; } \
.paper { fill: #ffffff; } \
.grid { stroke: #d0d7de; } \
.line { fill: none; stroke-width: 2; } \
.spread { stroke-width: 5; stroke-opacity: 0.3; } \
@media (prefers-color-scheme: dark) { \
text { fill: #e6edf3; } .paper { fill: #0d1117; } .grid { stroke: #3d444d; } } \
</style>";

/// All charts, one below the other.
pub(crate) fn svg(charts: &[Chart]) -> String {
    let height = HEIGHT * charts.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n{STYLE}\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    for (index, chart) in charts.iter().enumerate() {
        let down = HEIGHT * index as f64;
        let _ = writeln!(
            svg,
            "<g transform=\"translate(0 {down})\">{}</g>",
            draw(chart)
        );
    }
    svg + "</svg>\n"
}

fn draw(chart: &Chart) -> String {
    let mut xs: Vec<f64> = chart.points().map(|point| point.x).collect();
    xs.sort_unstable_by(f64::total_cmp);
    xs.dedup();
    let across = Scale::logarithmic(&xs, LEFT + 20.0, RIGHT - 20.0);
    let highest = chart.points().map(|point| point.most).fold(0.0, f64::max);
    let step = step(highest);
    let top = (highest / step).ceil().max(1.0) * step;
    let up = Scale::linear(0.0, top, BOTTOM, TOP);
    let mut drawn = text(LEFT, 25.0, "start", "title", &chart.title);
    for tick in 0..=(top / step).round() as u32 {
        let figure = f64::from(tick) * step;
        let y = up.place(figure);
        let _ = write!(
            drawn,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>"
        );
        drawn += &text(LEFT - 8.0, y + 4.0, "end", "tick", &short(figure));
    }
    for x in xs {
        let label = grouped(x as i64);
        drawn += &text(across.place(x), BOTTOM + 18.0, "middle", "tick", &label);
    }
    drawn += &text(
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 38.0,
        "middle",
        "label",
        chart.x_label,
    );
    let middle = (TOP + BOTTOM) / 2.0;
    let _ = write!(
        drawn,
        "<g transform=\"rotate(-90 22 {middle})\">{}</g>",
        text(22.0, middle, "middle", "label", chart.y_label)
    );
    for (index, series) in chart.series.iter().enumerate() {
        drawn += &draw_series(series, index, &across, &up);
    }
    drawn
}

fn draw_series(series: &Series, index: usize, across: &Scale, up: &Scale) -> String {
    let colour = COLOURS[index % COLOURS.len()];
    let mut drawn = String::new();
    let mut line = String::new();
    for point in &series.points {
        let (x, y) = (across.place(point.x), up.place(point.y));
        let (least, most) = (up.place(point.least), up.place(point.most));
        let _ = write!(line, "{x:.1},{y:.1} ");
        let _ = write!(
            drawn,
            "<line class=\"spread\" stroke=\"{colour}\" x1=\"{x:.1}\" y1=\"{least:.1}\" x2=\"{x:.1}\" \
             y2=\"{most:.1}\"/><circle fill=\"{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"
        );
    }
    let _ = write!(
        drawn,
        "<polyline class=\"line\" stroke=\"{colour}\" points=\"{}\"/>",
        line.trim_end()
    );
    let (column, y) = (index % 2, BOTTOM + 58.0 + 18.0 * (index / 2) as f64);
    let x = LEFT + 265.0 * column as f64;
    let _ = write!(
        drawn,
        "<circle fill=\"{colour}\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"5\"/>",
        y - 4.0
    );
    drawn + &text(x + 12.0, y, "start", "legend", &series.name)
}

fn text(x: f64, y: f64, anchor: &str, class: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{words}</text>"
    )
}

/// Where a figure is in the picture.
struct Scale {
    is_logarithmic: bool,
    from: f64,
    until: f64,
    first: f64,
    last: f64,
}

impl Scale {
    fn linear(from: f64, until: f64, first: f64, last: f64) -> Self {
        Self {
            is_logarithmic: false,
            from,
            until,
            first,
            last,
        }
    }

    /// For these figures, in ascending order: processes and backlogs grow by factors.
    fn logarithmic(figures: &[f64], first: f64, last: f64) -> Self {
        let end = |figure: Option<&f64>| figure.map_or(0.0, |figure| figure.max(1.0).ln());
        Self {
            is_logarithmic: true,
            from: end(figures.first()),
            until: end(figures.last()),
            first,
            last,
        }
    }

    fn place(&self, figure: f64) -> f64 {
        let figure = match self.is_logarithmic {
            true => figure.max(1.0).ln(),
            false => figure,
        };
        if self.until == self.from {
            return (self.first + self.last) / 2.0;
        }
        let share = (figure - self.from) / (self.until - self.from);
        self.first + (self.last - self.first) * share
    }
}

/// How far the lines of the grid are apart: 1, 2 or 5 times a power of ten, four to eight of them.
fn step(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf((highest / 4.0).log10().floor());
    let factor = [5.0, 2.0, 1.0];
    let fits = factor
        .into_iter()
        .find(|factor| factor * power * 4.0 <= highest);
    fits.unwrap_or(1.0) * power
}

/// Short enough for the margin.
fn short(figure: f64) -> String {
    let plain = |figure: f64| {
        let text = format!("{figure:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match figure {
        1_000_000.0.. => format!("{}M", plain(figure / 1e6)),
        1000.0.. => grouped(figure.round() as i64),
        _ => plain(figure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_scale_divides_by_proportion_and_may_point_upwards() {
        let up = Scale::linear(0.0, 200.0, 300.0, 100.0);
        assert_eq!(
            [0.0, 50.0, 200.0].map(|y| up.place(y)),
            [300.0, 250.0, 100.0]
        );
    }

    #[test]
    fn a_logarithmic_scale_makes_factors_distances() {
        let across = Scale::logarithmic(&[1.0, 4.0, 16.0], 0.0, 100.0);
        assert_eq!(across.place(1.0), 0.0);
        assert!((across.place(4.0) - 50.0).abs() < 1e-9);
        assert!((across.place(16.0) - 100.0).abs() < 1e-9);
        // A single figure is in the middle.
        assert_eq!(Scale::logarithmic(&[7.0], 0.0, 100.0).place(7.0), 50.0);
    }

    #[test]
    fn the_grid_is_round_and_has_four_to_ten_lines() {
        let steps = [1.0, 3.9, 26_500.0, 31_000.0, 80_000.0].map(step);
        assert_eq!(steps, [0.2, 0.5, 5000.0, 5000.0, 20_000.0]);
        for highest in 1..2000 {
            let lines = f64::from(highest) / step(f64::from(highest));
            assert!((4.0..=10.0).contains(&lines), "{lines} lines for {highest}");
        }
    }

    #[test]
    fn figures_at_the_axis_are_short() {
        let figures = [0.0, 0.25, 20.0, 12_000.0, 1_500_000.0].map(short);
        assert_eq!(figures, ["0", "0.25", "20", "12,000", "1.5M"]);
    }

    #[test]
    fn a_chart_draws_each_point_and_escapes_its_words() {
        let point = |x| Point {
            x,
            y: 2.0,
            least: 1.0,
            most: 3.0,
        };
        let series = |name: &str| Series {
            name: name.to_owned(),
            points: vec![point(1.0), point(4.0)],
        };
        let chart = Chart {
            title: "speed".to_owned(),
            x_label: "processes",
            y_label: "messages/s",
            series: vec![series("a < b"), series("c & d")],
        };
        let svg = svg(&[chart.clone(), chart]);
        assert_eq!(svg.matches("r=\"4\"").count(), 8);
        assert!(svg.contains("a &lt; b") && svg.contains("c &amp; d"));
        assert!(!svg.contains("NaN"));
    }
}
