//! Line plots as SVG, for the documents.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use lock_benches::Session;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 8] = [
    "#c0392b", "#2980b9", "#27ae60", "#8e44ad", "#e67e22", "#16a085", "#7f8c8d", "#2c3e50",
];

/// A plot with logarithmic axes.
pub(crate) struct Plot {
    name: String,
    across: String,
    up: String,
    series: Vec<Series>,
}

/// One line.
pub(crate) struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Series {
    pub(crate) fn new(
        name: impl Into<String>,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().collect(),
        }
    }
}

impl Plot {
    pub(crate) fn logarithmic(name: &str, across: &str, up: &str) -> Self {
        Self {
            name: name.into(),
            across: across.into(),
            up: up.into(),
            series: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, series: Series) {
        self.series.push(series);
    }

    /// Writes `inprocess-<name>.svg` into the session's folder, and shows it on its page.
    pub(crate) fn write(&self, session: &mut Session) -> Result<()> {
        let file = format!("inprocess-{}.svg", self.name);
        let path = session.folder().join(&file);
        let drawn = self.drawn()?;
        std::fs::create_dir_all(session.folder())
            .and_then(|()| std::fs::write(&path, drawn))
            .with_context(|| format!("writing {}", path.display()))?;
        session.show(format_args!("![{} by {}]({file})", self.up, self.across));
        Ok(())
    }

    fn drawn(&self) -> Result<String> {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let (x_low, x_high) = decades(all().map(|point| point.0));
        let (y_low, y_high) = decades(all().map(|point| point.1));
        let (inner_width, inner_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let x_span = f64::from((x_high - x_low).max(1));
        let y_span = f64::from((y_high - y_low).max(1));
        let x = |value: f64| LEFT + (value.log10() - f64::from(x_low)) / x_span * inner_width;
        let y = |value: f64| {
            HEIGHT - BOTTOM - (value.log10() - f64::from(y_low)) / y_span * inner_height
        };
        let mut svg = String::new();
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
        )?;
        writeln!(
            svg,
            r##"<rect width="100%" height="100%" fill="#ffffff"/>"##
        )?;
        writeln!(
            svg,
            r#"<text x="{LEFT}" y="22" font-size="14">{} by {}</text>"#,
            self.up, self.across
        )?;
        for decade in x_low..=x_high {
            let (at, bottom) = (x(10_f64.powi(decade)), HEIGHT - BOTTOM);
            writeln!(
                svg,
                r##"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{bottom}" stroke="#dddddd"/>"##
            )?;
            let (label, below) = (10_f64.powi(decade), bottom + 18.0);
            writeln!(
                svg,
                r#"<text x="{at:.1}" y="{below}" text-anchor="middle">{label}</text>"#
            )?;
        }
        for decade in y_low..=y_high {
            let (at, right) = (y(10_f64.powi(decade)), WIDTH - RIGHT);
            writeln!(
                svg,
                r##"<line x1="{LEFT}" y1="{at:.1}" x2="{right}" y2="{at:.1}" stroke="#dddddd"/>"##
            )?;
            let (label, before) = (10_f64.powi(decade), LEFT - 6.0);
            writeln!(
                svg,
                r#"<text x="{before}" y="{:.1}" text-anchor="end">{label}</text>"#,
                at + 4.0
            )?;
        }
        let (middle, below) = (LEFT + inner_width / 2.0, HEIGHT - 12.0);
        writeln!(
            svg,
            r#"<text x="{middle}" y="{below}" text-anchor="middle">{}</text>"#,
            self.across
        )?;
        for (number, series) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let dashes = if number < COLOURS.len() {
                "none"
            } else {
                "4 3"
            };
            let points: Vec<String> = series
                .points
                .iter()
                .map(|(across, up)| format!("{:.1},{:.1}", x(*across), y(*up)))
                .collect();
            let width = if number == 0 { 3 } else { 1 };
            writeln!(
                svg,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>"#,
                points.join(" ")
            )?;
            let (at, text) = (WIDTH - RIGHT + 12.0, TOP + 14.0 + 18.0 * number as f64);
            writeln!(
                svg,
                r#"<text x="{at}" y="{text}" fill="{colour}">{}</text>"#,
                series.name
            )?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

/// The powers of ten around the values.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
    for value in values {
        low = low.min(value);
        high = high.max(value);
    }
    (low.log10().floor() as i32, high.log10().ceil() as i32)
}
