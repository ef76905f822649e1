//! One guest's file as a whole.

use std::path::Path;

use super::block_sleep::BlockSleep;
use super::diagnostic::{ConfigErrors, Diagnostic};
use super::hugepages::Hugepages;
use super::isolate_cpus::IsolateCpus;
use super::locate::Part;
use super::run::Run;
use super::section::{Problem, Section, note_duplicates};
use super::services::Services;
use super::source::{ConfigSource, MAX_FILE_BYTES};
use super::tree::{self, Node};
use super::value::Fault;

/// What is done for one guest; at least one section is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// CPUs of its own.
    pub isolate_cpus: Option<IsolateCpus>,
    /// Memory in huge pages.
    pub hugepages: Option<Hugepages>,
    /// The host does not sleep.
    pub block_sleep: Option<BlockSleep>,
    /// Units of the host that do not run meanwhile.
    pub services: Option<Services>,
    /// Commands of the host's administrator.
    pub run: Option<Run>,
}

/// Places are looked for one by one, each in a walk of its own, and nobody mends more than this at once.
const MAX_DIAGNOSTICS: usize = 20;

impl GuestConfig {
    /// Reads a guest's file.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the lines: YAML that is none, unknown or repeated keys, wrong values,
    /// a file without any section.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        ConfigSource::new(file, text).parse()
    }

    pub(super) fn read(source: &ConfigSource) -> Result<Self, ConfigErrors> {
        let root = read_tree(source)?;
        let mut problems = Vec::new();
        note_duplicates(&root, &mut problems);

        let mut sections = Section::of_file(&root, &mut problems);
        let config = Self {
            isolate_cpus: sections.section("isolate_cpus", "isolate_cpus: {}").map(IsolateCpus::read),
            hugepages: sections.section("hugepages", "hugepages: {}").map(Hugepages::read),
            block_sleep: sections.section("block_sleep", "block_sleep: {}").map(BlockSleep::read),
            services: sections.section("services", "services: {stop: [ollama.service]}").map(Services::read),
            run: sections.item("run").map(Run::read),
        };
        sections.finish();

        match ConfigErrors::new(located(source, &mut problems), problems.len()) {
            Some(errors) => Err(errors),
            None => Ok(config),
        }
    }
}

/// The file's sections as a tree, or the one mistake that keeps it from being read at all.
fn read_tree(source: &ConfigSource) -> Result<Node, ConfigErrors> {
    if source.text().len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(Diagnostic::new(source.file(), message, None).into());
    }
    let root = tree::parse(source.text()).map_err(|fault| {
        let diagnostic = Diagnostic::new(source.file(), fault.message, fault.help);
        match fault.offset {
            Some(offset) => diagnostic.at(source.spot(offset, Part::Value)),
            None => diagnostic,
        }
    })?;
    let fault = match &root {
        Node::Map(entries) if !entries.is_empty() => return Ok(root),
        Node::Map(_) | Node::Null => {
            Fault::new("does nothing: no section", "add one, for example `hugepages: {}`, or remove the file")
        }
        other => Fault::expected_like("sections", other, "a section looks like `hugepages: {}`"),
    };
    let diagnostic = Diagnostic::new(source.file(), fault.message, fault.help);
    Err(match root {
        Node::Null => diagnostic.into(),
        _ => diagnostic.at_some(source.find(&[], Part::Value)).into(),
    })
}

/// Gives the problems their places and puts them into the order of the lines; takes the first ones away.
fn located(source: &ConfigSource, problems: &mut Vec<Problem>) -> Vec<Diagnostic> {
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    let first = problems.len().min(MAX_DIAGNOSTICS);
    problems
        .drain(..first)
        .map(|problem| {
            let spot = source.find(&problem.path, problem.part);
            Diagnostic::new(source.file(), problem.fault.message, problem.fault.help).at_some(spot)
        })
        .collect()
}
