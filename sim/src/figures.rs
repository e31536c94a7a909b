//! Figures as SVG, written by hand: bars with their labels, nothing else.

use std::fmt::Write as _;
use std::path::Path;

use crate::report::Summary;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 170.0;
const ROW: f64 = 28.0;
const TOP: f64 = 48.0;
/// A colour for each judge, told apart by the colour-blind too (Okabe and Ito).
const COLOURS: [&str; 3] = ["#0072b2", "#e69f00", "#999999"];

/// One bar.
struct Bar {
    label: String,
    value: f64,
    text: String,
    colour: &'static str,
}

/// Writes `stopped.svg` (bad versions stopped, by kind and judge) and `judges.svg` (harmed requests by judge).
///
/// # Errors
/// Those of the file system, with the file's name.
pub fn write(folder: &Path, summaries: &[Summary]) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let save = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    save("stopped.svg", chart("Bad versions that were stopped (%)", &stopped(summaries)))?;
    save("judges.svg", chart("Failed requests per bad version", &harmed(summaries)))
}

fn stopped(summaries: &[Summary]) -> Vec<Bar> {
    let flaws = summaries.first().map(|s| s.by_flaw.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let bar = |flaw: &str, number: usize, summary: &Summary| {
        let ratio = 100.0 * summary.by_flaw[flaw].share.ratio();
        let label = if number == 0 { flaw.to_owned() } else { String::new() };
        let text = format!("{ratio:.1} {}", summary.judge);
        Bar { label, value: ratio, text, colour: COLOURS[number % COLOURS.len()] }
    };
    flaws.iter().flat_map(|flaw| summaries.iter().enumerate().map(move |(n, s)| bar(flaw, n, s))).collect()
}

fn harmed(summaries: &[Summary]) -> Vec<Bar> {
    let bar = |(number, summary): (usize, &Summary)| Bar {
        label: summary.judge.clone(),
        value: summary.harmed_per_bad_change,
        text: format!("{:.0}", summary.harmed_per_bad_change),
        colour: COLOURS[number % COLOURS.len()],
    };
    summaries.iter().enumerate().map(bar).collect()
}

fn chart(title: &str, bars: &[Bar]) -> String {
    let height = TOP + ROW * bars.len() as f64 + 16.0;
    let largest = bars.iter().map(|b| b.value).fold(1e-9, f64::max);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"26\" font-size=\"16\">{}</text>\n",
        escaped(title)
    );
    for (number, bar) in bars.iter().enumerate() {
        draw(&mut svg, bar, TOP + ROW * number as f64, (WIDTH - LEFT - 170.0) * bar.value / largest);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, bar: &Bar, y: f64, length: f64) {
    let (label, text, base) = (escaped(&bar.label), escaped(&bar.text), y + 16.0);
    // Writing to a String cannot fail.
    let _ = writeln!(svg, "<text x=\"12\" y=\"{base}\">{label}</text>");
    let _ = writeln!(svg, "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"22\" fill=\"{}\"/>", bar.colour);
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{base}\">{text}</text>", LEFT + length + 6.0);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_bar_for_each_value_and_escapes_text() {
        let bar = |value| Bar { label: "a<b".into(), value, text: String::new(), colour: COLOURS[0] };
        let svg = chart("x & y", &[bar(1.0), bar(2.0)]);
        assert_eq!(svg.matches("<rect x=").count(), 2);
        assert!(svg.contains("a&lt;b") && svg.contains("x &amp; y"));
    }
}
