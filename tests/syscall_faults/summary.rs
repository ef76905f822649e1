//! What came of all cases, in words.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use vfio_hook::event::Operation;

use crate::life::{Case, Help, LIFE, Report};
use crate::tracer::Fault;

/// Figures and failures.
#[derive(Default)]
pub(crate) struct Summary {
    cases: usize,
    not_made: Vec<String>,
    worst: BTreeMap<&'static str, (Duration, String)>,
    help: BTreeMap<Help, Vec<String>>,
    litter: Vec<String>,
    pub(crate) failed: Vec<String>,
}

impl Summary {
    pub(crate) fn add(&mut self, case: &Case, report: Report) {
        self.cases += 1;
        if !report.was_made {
            self.not_made.push(case.to_string());
        }
        if let Some(help) = report.help {
            self.help.entry(help).or_default().push(case.to_string());
        }
        if !report.litter.is_empty() {
            self.litter.push(format!("{case}: {}", report.litter.join(", ")));
        }
        // What is late on purpose tells nothing of how fast it is.
        let worst = self.worst.entry(case.event.as_str()).or_default();
        if report.took > worst.0 && matches!(case.fault, Fault::Fails(_)) {
            *worst = (report.took, case.to_string());
        }
        if !report.failures.is_empty() {
            let failed = format!("{case}\n    {}", report.failures.join("\n    "));
            println!("FAILED: {failed}");
            for line in &report.log {
                println!("      log: {}", line.replace('\n', "\n           "));
            }
            self.failed.push(failed);
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("{} cases, {} failed\n", self.cases, self.failed.len());
        for event in LIFE.map(Operation::as_str) {
            if let Some((took, case)) = self.worst.get(event) {
                let _ =
                    writeln!(text, "{event}: the slowest answer took {:.2} s ({case})", took.as_secs_f64());
            }
        }
        for (help, cases) in &self.help {
            let what = match help {
                Help::ClearCard => "`gpu clear`",
                Help::UndoStale => "`undo --stale`",
                Help::AnotherLife => "another life of the guest",
            };
            let _ = writeln!(text, "{} took {what} afterwards:", cases.len());
            for case in cases {
                let _ = writeln!(text, "  {case}");
            }
        }
        for (what, cases) in
            [("left files behind", &self.litter), ("did not come to the call", &self.not_made)]
        {
            if !cases.is_empty() {
                let _ = writeln!(text, "{} {what}:\n  {}", cases.len(), cases.join("\n  "));
            }
        }
        if !self.failed.is_empty() {
            let _ = writeln!(text, "failed:\n  {}", self.failed.join("\n  "));
        }
        text
    }
}
