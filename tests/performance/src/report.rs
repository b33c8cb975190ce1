//! The report: Markdown, plots, and everything as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use plotters::prelude::*;

use crate::results::{Results, Table};
use crate::systems::Bench;
use crate::{Error, machine};

pub(crate) fn write(bench: &Bench, results: &Results, out: &Path) -> Result<(), Error> {
    fs::create_dir_all(out)?;
    // No plot of an earlier run may be left; whatever else is there is not ours.
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let is_number =
            |stem: &std::ffi::OsStr| stem.to_str().is_some_and(|stem| stem.parse::<u32>().is_ok());
        if path.extension().is_some_and(|end| end == "svg") && path.file_stem().is_some_and(is_number) {
            fs::remove_file(path)?;
        }
    }
    let machine = machine::description();
    let mut text = String::from("# What was measured\n\n");
    for (what, value) in &machine {
        writeln!(text, "- {what}: {value}")?;
    }
    writeln!(
        text,
        "- up to {} rounds of {} s each; medians, with the least and the most; a target compares figures of the same round",
        bench.rounds(),
        bench.secs()
    )?;
    if bench.quick {
        text.push_str("\n**A quick run: these figures mean nothing.**\n");
    }
    text.push_str("\n## Targets\n\n| | what | measured | |\n|---|---|---|---|\n");
    for target in results.targets() {
        let met = if target.met { "met" } else { "**not met**" };
        writeln!(text, "| {} | {} | {} | {met} |", target.name, target.what, target.shown)?;
    }
    if !results.floors().is_empty() {
        text.push_str(
            "\n## Floors\n\nThe same arithmetic here, of something that does none of sessionmesh's work.\n\n",
        );
        text.push_str("| | what | measured |\n|---|---|---|\n");
        for floor in results.floors() {
            writeln!(text, "| {} | {} | {} |", floor.name, floor.what, floor.shown)?;
        }
    }
    for left in results.left_out() {
        writeln!(text, "\nLeft out: {left}")?;
    }
    for (n, table) in results.tables().iter().enumerate() {
        let plot = format!("{}.svg", n + 1);
        let plotted = plot_table(results, table, &out.join(&plot))?;
        writeln!(text, "\n## {}\n\n{}\n", table.title, table.note)?;
        if plotted {
            writeln!(text, "![{}]({plot})\n", table.title)?;
        }
        writeln!(text, "| | {} |\n|---|{}", table.columns.join(" | "), "---|".repeat(table.columns.len()))?;
        for system in &table.systems {
            let shown =
                |column: &&str| results.figure(system, column).map_or("-".into(), |figure| figure.shown());
            let cells: Vec<String> = table.columns.iter().map(shown).collect();
            writeln!(text, "| {system} | {} |", cells.join(" | "))?;
        }
    }
    fs::write(out.join("report.md"), &text)?;
    let figures: Vec<_> = results
        .figures()
        .map(|(system, what, figure)| serde_json::json!({ "system": system, "what": what, "figure": figure }))
        .collect();
    let all = serde_json::json!({
        "machine": machine.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "quick": bench.quick,
        "rounds": bench.rounds(),
        "secs": bench.secs(),
        "figures": figures,
        "targets": results.targets(),
        "floors": results.floors(),
        "left_out": results.left_out(),
    });
    fs::write(out.join("results.json"), serde_json::to_vec_pretty(&all)?)?;
    println!("{text}");
    eprintln!("written to {}", out.display());
    Ok(())
}

/// Bars of the first column, with the spread; not of one system alone.
fn plot_table(results: &Results, table: &Table, path: &Path) -> Result<bool, Error> {
    let Some(column) = table.columns.first() else { return Ok(false) };
    let figures: Vec<_> =
        table.systems.iter().filter_map(|system| Some((system, results.figure(system, column)?))).collect();
    if figures.len() < 2 {
        return Ok(false);
    }
    let height = 60 + 30 * u32::try_from(figures.len())?;
    let most = figures.iter().map(|(_, figure)| figure.most()).fold(0.0, f64::max);
    let (left, width) = (380, 760);
    let area = SVGBackend::new(path, (left + width + 140, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let unit = figures[0].1.unit;
    area.draw(&Text::new(format!("{column}, {unit}"), (8, 10), ("sans-serif", 18)))?;
    let at = |value: f64| i32::try_from(left).unwrap_or(0) + (value / most * f64::from(width)) as i32;
    for (n, (system, figure)) in figures.iter().enumerate() {
        let top = 44 + 30 * i32::try_from(n)?;
        let ours = system.starts_with("sessionmesh");
        let color = if ours { RGBColor(38, 110, 180) } else { RGBColor(150, 150, 150) };
        area.draw(&Text::new((*system).clone(), (8, top + 3), ("sans-serif", 15)))?;
        area.draw(&Rectangle::new([(at(0.0), top), (at(figure.median()), top + 20)], color.filled()))?;
        let spread = [(at(figure.least()), top + 10), (at(figure.most()), top + 10)];
        area.draw(&PathElement::new(spread, BLACK.stroke_width(2)))?;
        let shown = crate::results::number(figure.median());
        area.draw(&Text::new(shown, (at(figure.most()) + 8, top + 3), ("sans-serif", 15)))?;
    }
    area.present()?;
    Ok(true)
}
