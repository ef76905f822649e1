//! Which part of the program may use which, and which parts may change the host. Checked against every path in `src/`
//! that begins with `crate::`, in `use` lines and elsewhere, in tests too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Values and small tools, from the bottom: what the words mean, and no machine. Each may use those before it.
const VALUES: [&str; 24] = [
    "deadline",
    "given_name",
    "key_path",
    "log_level",
    "printable",
    "serde_as_text",
    "wall_clock",
    "cpuset",
    "pages",
    "pci",
    "kernel_log",
    "monitor",
    "process_id",
    "resume_latency",
    "scheduling",
    "shared_memory",
    "unit_file_name",
    "user_name",
    "guest",
    "event",
    "exit",
    "command",
    "keeper_protocol",
    "gpu",
];

/// The parts above the values, from the bottom. Each may use all values, and the parts that are named beside it. Nothing
/// below the actions knows a key of the YAML file.
const PARTS: [(&str, &[&str]); 14] = [
    ("failpoint", &[]),
    ("host", &["failpoint"]),
    ("log", &["host"]),
    ("restart", &["host", "log"]),
    ("ledger", &["host"]),
    ("config", &[]),
    ("actions", &["config", "host", "ledger"]),
    ("lifecycle", &["actions", "config", "host", "ledger", "log", "restart"]),
    ("keeper", &["actions", "host", "ledger", "lifecycle", "log"]),
    ("hook", &["host", "ledger", "lifecycle", "log"]),
    ("hidden_command", &["host", "keeper", "restart"]),
    ("cli", &[]),
    ("commands", &["actions", "cli", "config", "host", "ledger", "lifecycle", "log"]),
    ("main", &["commands", "hidden_command", "hook"]),
];

/// What a part does not use although it is a value: the host has no opinion of graphics cards.
const NOT_FOR: [(&str, &str); 1] = [("host", "gpu")];

/// What changes the host beside the ledger's executor: no setting that a guest may hold.
const BESIDE_THE_LEDGER: [(&str, &[&str]); 4] = [
    // Loaded for people who look at monitors. It does no harm when it stays.
    ("commands", &["load_i2c_dev"]),
    // Its own lock, and its children: the guest's commands and what they left running.
    (
        "keeper",
        &[
            "adopt_orphans",
            "end_children",
            "lock_state",
            "remove_state_file",
            "run_command",
            "run_in_background",
        ],
    ),
    // Words to keepers; the guest's XML and the count of its restarts in `/run/vfio-hook`.
    ("lifecycle", &["ask_keeper", "remove_state_file", "replace_state", "start_keeper"]),
    ("restart", &["start_detached"]),
];

/// What is under way with a setting or a lease is assigned in one file each.
const ASSIGNED_IN: [(&str, &str); 3] = [
    (".pending = ", "ledger/entry.rs"),
    (".written = ", "ledger/entry.rs"),
    (".phase = ", "ledger/lease_state.rs"),
];

/// A file of `src/`, without comments.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The top-level module that it is in.
    fn module(&self) -> String {
        let first = self.path.iter().next().unwrap().to_str().unwrap();
        first.strip_suffix(".rs").unwrap_or(first).to_owned()
    }

    /// Its text without that of tests.
    fn without_tests(&self) -> &str {
        let is_for_tests = self
            .path
            .iter()
            .any(|part| ["tests", "tests.rs", "testing.rs"].contains(&part.to_str().unwrap()));
        let end = if is_for_tests {
            0
        } else {
            self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len())
        };
        &self.text[..end]
    }

    /// The top-level modules that its paths begin with.
    fn uses(&self) -> BTreeSet<String> {
        let mut uses = BTreeSet::new();
        // In the file of a top-level module that is the root, too.
        let is_top =
            self.path.iter().count() == 1 || self.path.iter().nth(1).is_some_and(|name| name == "mod.rs");
        let parent = is_top.then_some("\nuse super::");
        for prefix in ["crate::", "vfio_hook::"].into_iter().chain(parent) {
            for (at, _) in self.text.match_indices(prefix) {
                let is_end_of_word = self.text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                if prefix.starts_with('\n') || !is_end_of_word {
                    uses.extend(first_names(&self.text[at + prefix.len()..]));
                }
            }
        }
        uses.remove(&self.module());
        uses
    }
}

/// The names that a path goes on with: one, or those of a list in braces.
fn first_names(rest: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(list) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&list[start..at]));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name: &String| !name.is_empty());
    names
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut sources) = (vec![src.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let text = lines.flat_map(|line| [line, "\n"]).collect();
                sources.push(Source { path: path.strip_prefix(&src).unwrap().to_owned(), text });
            }
        }
    }
    sources.retain(|source| source.path != Path::new("lib.rs"));
    assert!(sources.len() > 100, "the sources are not found");
    sources
}

/// What a part may use.
fn allowed(module: &str) -> BTreeSet<&'static str> {
    if let Some(at) = VALUES.iter().position(|value| *value == module) {
        return VALUES[..at].iter().copied().collect();
    }
    let (_, parts) = PARTS
        .iter()
        .find(|(part, _)| *part == module)
        .unwrap_or_else(|| panic!("`{module}` has no place in the table"));
    let is_open = |value: &&&str| !NOT_FOR.contains(&(module, **value));
    VALUES.iter().filter(is_open).chain(*parts).copied().collect()
}

#[test]
fn each_part_uses_only_what_it_may() {
    let mut wrong = Vec::new();
    let mut used = BTreeMap::<String, BTreeSet<String>>::new();
    for source in sources() {
        let (module, uses) = (source.module(), source.uses());
        let allowed = allowed(&module);
        wrong.extend(
            uses.iter()
                .filter(|name| !allowed.contains(name.as_str()))
                .map(|name| format!("{}: crate::{name}", source.path.display())),
        );
        used.entry(module).or_default().extend(uses);
    }
    assert!(wrong.is_empty(), "not allowed by the table:\n{}", wrong.join("\n"));
    for (part, uses) in PARTS {
        let unused: Vec<_> = uses.iter().filter(|name| !used[part].contains(**name)).collect();
        assert!(unused.is_empty(), "the table allows {part} what it does not use: {unused:?}");
    }
}

#[test]
fn the_table_has_no_circle() {
    for (at, (part, uses)) in PARTS.iter().enumerate() {
        let below: Vec<&str> = PARTS[..at].iter().map(|(part, _)| *part).collect();
        assert!(uses.iter().all(|name| below.contains(name)), "{part} uses what stands above it");
    }
}

#[test]
fn the_host_knows_no_yaml_file() {
    for source in sources().iter().filter(|source| source.module() == "host") {
        assert!(!source.text.contains("YAML"), "{}", source.path.display());
    }
}

#[test]
fn only_the_ledger_changes_the_host() {
    let sources = sources();
    let changes: BTreeSet<&str> =
        sources.iter().filter(|source| source.module() == "host").flat_map(changing_methods).collect();
    assert!(changes.contains("set_vcp_features") && changes.contains("set_bindings"), "{changes:?}");
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for source in &sources {
        let module = source.module();
        if ["host", "ledger"].contains(&module.as_str()) {
            continue;
        }
        let exceptions = BESIDE_THE_LEDGER
            .iter()
            .find(|(part, _)| *part == module)
            .map_or(&[][..], |(_, methods)| methods);
        let called = |method: &&str| source.without_tests().contains(&format!(".{method}("));
        let (excepted, beside): (Vec<&str>, Vec<&str>) =
            changes.iter().copied().filter(called).partition(|method| exceptions.contains(method));
        used.extend(excepted.into_iter().map(|method| (module.clone(), method)));
        wrong.extend(beside.iter().map(|method| format!("{}: {method}", source.path.display())));
        // A setting's own methods that take the host.
        for write in [".write(host", ".write(&mut ", "Setting::write(", "Setting::give_back("] {
            if source.without_tests().contains(write) {
                wrong.push(format!("{}: {write}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "the host is changed beside the ledger:\n{}", wrong.join("\n"));
    for (part, methods) in BESIDE_THE_LEDGER {
        let unused: Vec<_> =
            methods.iter().filter(|method| !used.contains(&(part.to_owned(), **method))).collect();
        assert!(unused.is_empty(), "{part} does not call {unused:?} any more");
    }
}

#[test]
fn what_is_under_way_is_assigned_in_one_file() {
    for (assignment, file) in ASSIGNED_IN {
        let mut assigning: Vec<String> = Vec::new();
        for source in sources().iter().filter(|source| source.module() == "ledger") {
            if source.without_tests().contains(assignment) {
                assigning.push(source.path.display().to_string());
            }
        }
        assert_eq!(assigning, [file], "{assignment}");
    }
}

/// The methods of `Host` in a file that others may call and that need it mutable.
fn changing_methods(source: &Source) -> Vec<&str> {
    let blocks = source.without_tests().split("\nimpl Host {").skip(1);
    let blocks = blocks.map(|block| block.split("\n}").next().unwrap_or_default());
    let methods = blocks.flat_map(|block| {
        ["\n    pub fn ", "\n    pub(crate) fn "].into_iter().flat_map(|start| block.split(start).skip(1))
    });
    let is_changing = |method: &&str| {
        method.split_once('(').is_some_and(|(_, rest)| rest.trim_start().starts_with("&mut self"))
    };
    methods.filter(is_changing).map(|method| method.split(['(', '<']).next().unwrap_or_default()).collect()
}
