//! Everything that a run has found, and the files that it leaves.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    chart::{Chart, Series, svg},
    machine::Machine,
    row::Row,
    samples::Samples,
    table::table,
};

/// Rows and charts in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) rows: Vec<Row>,
    pub(crate) charts: Vec<Chart>,
}

/// What was run, for the files.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) backend: &'static str,
    pub(crate) scale: &'static str,
    pub(crate) only: Option<String>,
    pub(crate) machine: Machine,
    /// What was behind the backend, if anything.
    pub(crate) store: Option<String>,
}

impl Findings {
    pub(crate) fn markdown(&self, run: &Run) -> String {
        let store = run.store.as_ref().map(|store| format!(", {store}"));
        format!(
            "{} run on {}{}\n\n{}",
            run.scale,
            run.machine,
            store.unwrap_or_default(),
            table(&self.rows)
        )
    }

    /// Writes `<backend>.json`, `.svg` and `.md`, and says where they are. A run of some sections has
    /// names of its own, so that it does not take the place of a whole one.
    pub(crate) fn write(&self, run: &Run, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = vec![
            ("json", format!("{:#}\n", self.json(run)?)),
            ("md", self.markdown(run)),
        ];
        if !self.charts.is_empty() {
            files.push(("svg", svg(&self.charts)));
        }
        let name = match &run.only {
            Some(only) => format!("{}-{only}", run.backend),
            None => run.backend.to_owned(),
        };
        let write = |(ending, text): (&str, String)| {
            let path = folder.join(format!("{name}.{ending}"));
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        files.into_iter().map(write).collect()
    }

    fn json(&self, run: &Run) -> anyhow::Result<Value> {
        let row = |row: &Row| {
            let mut value = serde_json::to_value(row)?;
            value["measured"] = summary(&row.measured, row.quantile);
            if let Some(baseline) = &row.baseline {
                value["baseline"]["measured"] = summary(&baseline.measured, row.quantile);
            }
            let ratio = row.ratio();
            value["ratio"] = ratio.map_or(Value::Null, |ratio| summary(&ratio, row.quantile));
            value["met"] = json!(row.is_met());
            anyhow::Ok(value)
        };
        let rows = self
            .rows
            .iter()
            .map(row)
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(json!({ "run": run, "rows": rows, "charts": self.charts }))
    }

    /// Adds a point to a chart's series, either of which is made where it is missing.
    pub(crate) fn plot(&mut self, chart: &Chart, series: &str, x: f64, y: &Samples) {
        let place = self
            .charts
            .iter()
            .position(|each| each.title == chart.title);
        let place = place.unwrap_or_else(|| {
            self.charts.push(chart.clone());
            self.charts.len() - 1
        });
        let all = &mut self.charts[place].series;
        let index = all.iter().position(|each| each.name == series);
        let index = index.unwrap_or_else(|| {
            all.push(Series {
                name: series.to_owned(),
                points: Vec::new(),
            });
            all.len() - 1
        });
        let (least, most) = y.spread();
        all[index].points.push(crate::chart::Point {
            x,
            y: y.median(),
            least,
            most,
        });
    }
}

fn summary(samples: &Samples, quantile: f64) -> Value {
    let (least, most) = samples.spread();
    json!({ "figure": samples.quantile(quantile), "least": least, "most": most, "rounds": samples })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Unit;

    fn run() -> Run {
        Run {
            backend: "memory",
            scale: "quick",
            only: None,
            machine: Machine::here(),
            store: None,
        }
    }

    #[test]
    fn the_json_holds_rounds_ratios_and_verdicts() {
        let measured: Samples = [2.0, 4.0, 6.0].into_iter().collect();
        let row = Row::new("batches", "lease", Unit::MessagesPerSecond)
            .measured(measured.clone())
            .against("raw", Samples::from_iter([2.0; 3]))
            .at_least(1.5);
        let findings = Findings {
            rows: vec![row],
            charts: Vec::new(),
        };
        let json = findings.json(&run()).unwrap();
        let row = &json["rows"][0];
        assert_eq!(row["measured"]["figure"], 4.0);
        assert_eq!(row["measured"]["rounds"], json!([2.0, 4.0, 6.0]));
        assert_eq!(row["baseline"]["measured"]["figure"], 2.0);
        assert_eq!(row["ratio"]["most"], 3.0);
        assert_eq!(row["target"], json!({ "at_least": 1.5 }));
        assert_eq!(row["met"], true);
    }

    #[test]
    fn points_gather_in_their_series() {
        let chart = Chart {
            title: "t".to_owned(),
            x_label: "x",
            y_label: "y",
            series: Vec::new(),
        };
        let mut findings = Findings::default();
        findings.plot(&chart, "a", 1.0, &Samples::one(5.0));
        findings.plot(&chart, "b", 1.0, &Samples::one(6.0));
        findings.plot(&chart, "a", 2.0, &Samples::from_iter([1.0, 9.0]));
        let [chart] = &findings.charts[..] else {
            panic!("{:?}", findings.charts)
        };
        let points: Vec<usize> = chart.series.iter().map(|each| each.points.len()).collect();
        assert_eq!(points, [2, 1]);
        let last = chart.series[0].points[1];
        assert_eq!((last.y, last.least, last.most), (5.0, 1.0, 9.0));
    }
}
