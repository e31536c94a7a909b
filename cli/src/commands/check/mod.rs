//! `weir check`: does everything work? In the manner of `linkerd check`: categories, one line per check, hints.

mod certificates;
mod looks;

use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use crate::cli::Connection;
use crate::client::Client;
use crate::failure::{FAILED, Outcome};
use crate::output::{color, pretty};

/// Arguments of `weir check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir check                     everything
  weir check --only api,xds      some categories
  weir check -o json             for programs
  weir check --fail-on-warning

√ as it should be   ‼ works, but look at it   × does not work
Exits with 1 if a check has failed.")]
pub struct Args {
    /// Only these categories.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CATEGORY,...")]
    only: Vec<Category>,
    /// A warning fails, too.
    #[arg(long)]
    fail_on_warning: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: CheckFormat,
    #[command(flatten)]
    connection: Connection,
}

/// How checks are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// Only what is not as it should be.
    Short,
}

/// What belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// The control plane answers and knows you.
    Api,
    /// Resources are kept.
    Store,
    /// Configuration reaches the proxies.
    Xds,
    /// Proxies are connected and well.
    Proxies,
    /// Instances serve.
    Instances,
    /// Changes proceed.
    Changes,
    /// Certificates are in use and in time; encryption is as wanted.
    Certificates,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warning,
    /// Does not work.
    Error,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was looked at: a sentence that is true when all is well.
    pub check: String,
    /// How it went.
    pub level: Level,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: impl Into<String>) -> Finding {
        Finding { check: check.into(), level: Level::Ok, detail: None, hint: None }
    }

    /// Not as it should be.
    pub fn not(level: Level, check: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { check: check.into(), level, detail: Some(detail.into()), hint: Some(hint.into()) }
    }

    /// Right if nothing is in the list, which else is told.
    pub fn none(level: Level, check: &str, wrong: &[String], hint: &str) -> Finding {
        const SHOWN: usize = 8;
        if wrong.is_empty() {
            return Finding::ok(check);
        }
        let more = wrong.len().saturating_sub(SHOWN);
        let rest = if more > 0 { format!("\nand {more} more") } else { String::new() };
        Finding::not(level, check, format!("{}{rest}", wrong[..wrong.len() - more].join("\n")), hint)
    }
}

/// A category's checks, in order.
#[derive(Debug, Serialize)]
struct Report {
    category: Category,
    checks: Vec<Finding>,
}

/// Looks at everything. When the API cannot be used, the rest cannot be looked at.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    let mut reports = Vec::new();
    let api = looks::api(&client).await;
    let usable = api.iter().all(|finding| finding.level != Level::Error);
    let wanted = |category: &Category| args.only.is_empty() || args.only.contains(category);
    if wanted(&Category::Api) || !usable {
        reports.push(Report { category: Category::Api, checks: api });
    }
    for category in Category::value_variants().iter().filter(|c| usable && **c != Category::Api && wanted(c)) {
        reports.push(Report { category: *category, checks: looks::category(&client, *category).await });
    }
    print(&reports, args.output);
    let worst = reports.iter().flat_map(|report| &report.checks).map(|finding| finding.level);
    let bad = |level: Level| level == Level::Error || (args.fail_on_warning && level == Level::Warning);
    Ok(if worst.into_iter().any(bad) { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn print(reports: &[Report], format: CheckFormat) {
    let success = reports.iter().flat_map(|r| &r.checks).all(|finding| finding.level != Level::Error);
    if format == CheckFormat::Json {
        println!("{}", pretty(&json!({"success": success, "categories": reports})));
        return;
    }
    for report in reports {
        category(report, format == CheckFormat::Short);
    }
    let paint = color::stdout();
    let verdict = if success { paint.green("√") } else { paint.red("×") };
    println!("Status check results are {verdict}");
}

fn category(report: &Report, short: bool) {
    let shown: Vec<&Finding> = report.checks.iter().filter(|f| !short || f.level != Level::Ok).collect();
    if shown.is_empty() {
        return;
    }
    let name = format!("{:?}", report.category).to_lowercase();
    println!("{}\n{}", color::stdout().bold(&name), "-".repeat(name.len()));
    shown.into_iter().for_each(line);
    println!();
}

fn line(finding: &Finding) {
    let paint = color::stdout();
    let mark = match finding.level {
        Level::Ok => paint.green("√"),
        Level::Warning => paint.yellow("‼"),
        Level::Error => paint.red("×"),
    };
    println!("{mark} {}", finding.check);
    finding.detail.iter().flat_map(|detail| detail.lines()).for_each(|line| println!("    {line}"));
    finding.hint.iter().for_each(|hint| println!("    → {hint}"));
}
