//! Measured rows as JSON lines, as tables and as a plot.

use crate::Failure;
use crate::measures::Estimate;
use crate::methods::NAMES;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// The measures, in the order of the tables.
const MEASURES: [&str; 10] = ["top-1", "MRR", "recall@3", "share", "first", "LDS", "LDSp", "removed", "mislabelled", "as floats"];
const BEGIN: &str = "<!-- measured -->";
const END: &str = "<!-- end of measured -->";

/// One measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Bank.
    pub bank: String,
    /// Its seed.
    pub seed: u64,
    /// The training's seed.
    pub train_seed: u64,
    /// Method.
    pub method: String,
    /// Measure.
    pub measure: String,
    /// Mean.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Queries (samples for `mislabelled`).
    pub count: usize,
}

impl Row {
    /// A row of an estimate.
    pub fn new((bank, seed, train_seed): (&str, u64, u64), method: &str, measure: &str, estimate: Estimate) -> Self {
        let Estimate { value, low, high, count } = estimate;
        Self { bank: bank.into(), seed, train_seed, method: method.into(), measure: measure.into(), value, low, high, count }
    }
}

/// Reads JSON lines.
pub fn read(path: &Path) -> Result<Vec<Row>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("reading {}: {e}", path.display()))?;
    let rows = text.lines().filter(|l| !l.trim().is_empty()).map(serde_json::from_str).collect::<Result<_, _>>();
    Ok(rows.map_err(|e| format!("{}: expected one measured row a line, found {e}", path.display()))?)
}

/// One run of a bank: its name, its seed, the training's seed.
type Run<'a> = (&'a str, u64, u64);

fn runs(rows: &[Row]) -> BTreeSet<Run<'_>> {
    rows.iter().map(|r| (r.bank.as_str(), r.seed, r.train_seed)).collect()
}

fn find<'a>(rows: &'a [Row], run: Run, method: &str, measure: &str) -> Option<&'a Row> {
    rows.iter().find(|r| (r.bank.as_str(), r.seed, r.train_seed) == run && r.method == method && r.measure == measure)
}

/// A table a run; intervals are in the JSON rows and, for the first and last measure of finding, in the cells.
pub fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    for run in runs(rows) {
        let measures: Vec<&str> = MEASURES.into_iter().filter(|m| NAMES.iter().any(|n| find(rows, run, n, m).is_some())).collect();
        let queries = find(rows, run, "r", "top-1").map_or(0, |r| r.count);
        let _ = writeln!(text, "\n**{}**, seed {}, training seed {}; {queries} questions answered\n", run.0, run.1, run.2);
        let _ = writeln!(text, "| method | {} |\n|---|{}", measures.join(" | "), "---|".repeat(measures.len()));
        for method in NAMES {
            let cells: Vec<String> = measures.iter().map(|m| find(rows, run, method, m).map_or("–".into(), cell)).collect();
            if cells.iter().any(|c| c != "–") {
                let _ = writeln!(text, "| {method} | {} |", cells.join(" | "));
            }
        }
    }
    text
}

/// Means over all runs of a bank, and over the projections of a written sketch: one line a bank and method.
pub fn averages(rows: &[Row]) -> String {
    let mut sums: BTreeMap<(&str, String, &str), (f64, usize)> = BTreeMap::new();
    for row in rows {
        let of = sums.entry((&row.bank, without_seed(&row.method), &row.measure)).or_default();
        *of = (of.0 + row.value, of.1 + 1);
    }
    let lines: BTreeSet<(&str, &String)> = sums.keys().map(|(bank, method, _)| (*bank, method)).collect();
    let mut text = format!("| bank | method | runs | {} |\n|---|---|---|{}\n", MEASURES.join(" | "), "---|".repeat(MEASURES.len()));
    for (bank, method) in lines {
        let found = MEASURES.map(|measure| sums.get(&(bank, method.clone(), measure)));
        let runs = found.iter().flatten().map(|(_, runs)| *runs).max().unwrap_or(0);
        let cells = found.map(|f| f.map_or("–".into(), |(sum, runs)| format!("{:.2}", sum / *runs as f64)));
        let _ = writeln!(text, "| {bank} | {method} | {runs} | {} |", cells.join(" | "));
    }
    text
}

/// `r:SITES:ROWS:SEED:unit` without its seed.
fn without_seed(method: &str) -> String {
    let is_seed = |part: &&str| method.starts_with("r:") && part.parse::<u64>().is_ok();
    let parts: Vec<&str> = method.split(':').collect();
    let kept = parts.iter().enumerate().filter(|(i, part)| *i < 3 || !is_seed(part)).map(|(_, part)| *part);
    kept.collect::<Vec<_>>().join(":")
}

fn cell(row: &Row) -> String {
    format!("{:.2} ± {:.2}", row.value, (row.high - row.low) / 2.0)
}

/// Replaces what stands between the marks of a document.
pub fn write_tables(rows: &[Row], path: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("reading {}: {e}", path.display()))?;
    let split = || {
        let (before, rest) = text.split_once(BEGIN)?;
        Some((before, rest.split_once(END)?.1))
    };
    let (before, after) = split().ok_or_else(|| format!("{}: expected the marks `{BEGIN}` and `{END}`, found neither or one", path.display()))?;
    Ok(std::fs::write(path, format!("{before}{BEGIN}\n{}\n{END}{after}", tables(rows)))?)
}

const LEFT: usize = 150;
const WIDTH: usize = 300;
const LINE: usize = 16;

/// Bars with intervals: top-1 and LDSp of every method, run by run.
pub fn plot(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = 10;
    for run in runs(rows) {
        y += 24;
        let _ = writeln!(body, "<text x='10' y='{y}' font-weight='bold'>{}, seed {}, training seed {}</text>", run.0, run.1, run.2);
        for (column, measure) in ["top-1", "LDSp"].into_iter().enumerate() {
            let _ = writeln!(body, "<text x='{}' y='{y}'>{measure}</text>", LEFT + 150 + column * (WIDTH + 40));
        }
        for method in NAMES {
            let found = ["top-1", "LDSp"].map(|m| find(rows, run, method, m));
            if found.iter().all(Option::is_none) {
                continue;
            }
            y += LINE;
            let _ = writeln!(body, "<text x='10' y='{y}'>{method}</text>");
            for (column, row) in found.into_iter().enumerate() {
                row.into_iter().for_each(|row| bar(&mut body, row, LEFT + column * (WIDTH + 40), y));
            }
        }
    }
    let (width, height) = (LEFT + 2 * (WIDTH + 40), y + 20);
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='{width}' height='{height}' fill='white'/>\n{body}</svg>\n"
    )
}

fn bar(body: &mut String, row: &Row, x: usize, y: usize) {
    let at = |value: f64| x as f64 + value.clamp(0.0, 1.0) * WIDTH as f64;
    let fill = if row.method.starts_with("r-") || row.method == "r" { "#2563a8" } else { "#9aa5b1" };
    let _ = writeln!(body, "<rect x='{x}' y='{}' width='{:.1}' height='11' fill='{fill}'/>", y - 10, at(row.value) - x as f64);
    let (low, high, middle) = (at(row.low), at(row.high), y - 5);
    let _ = writeln!(body, "<line x1='{low:.1}' x2='{high:.1}' y1='{middle}' y2='{middle}' stroke='black'/>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_over_runs_and_projections() {
        let row = |run, method: &str, value| Row::new(run, method, "top-1", Estimate { value, low: value, high: value, count: 9 });
        let rows = [row(("hard", 1, 1), "r:o:32:1", 0.5), row(("hard", 3, 1), "r:o:32:2", 0.7), row(("hard", 3, 1), "r:o:32:2:unit", 0.9)];
        let text = averages(&rows);
        assert!(text.contains("| hard | r:o:32 | 2 | 0.60 | –") && text.contains("| hard | r:o:32:unit | 1 | 0.90 | –"), "{text}");
    }

    #[test]
    fn tables_and_plots_have_every_row() {
        let row = |method: &str, measure: &str, value| {
            Row::new(("demo", 0, 1), method, measure, Estimate { value, low: value - 0.1, high: value + 0.1, count: 74 })
        };
        let rows = [row("r", "top-1", 0.9), row("r", "LDSp", 0.5), row("bm25", "top-1", 0.1)];
        let text = tables(&rows);
        assert!(text.contains("| r | 0.90 ± 0.10 | 0.50 ± 0.10 |") && text.contains("| bm25 | 0.10 ± 0.10 | – |"), "{text}");
        assert_eq!(plot(&rows).matches("<rect x=").count(), 3);
        let dir = std::env::temp_dir().join(format!("quality-report-{}", std::process::id()));
        std::fs::write(&dir, format!("before {BEGIN} old {END} after")).unwrap();
        write_tables(&rows, &dir).unwrap();
        let text = std::fs::read_to_string(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert!(text.starts_with("before ") && text.ends_with(" after") && !text.contains("old"));
    }
}
