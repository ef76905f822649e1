//! `vfio-hook check`: every mistake of a YAML file, with its place.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::output::{self, Format};
use crate::config::{
    ConfigErrors, ConfigSource, Diagnostic, MAX_FILE_BYTES, Style, TrustError, read_trusted,
};
use crate::exit::Exit;
use crate::guest::GuestName;
use crate::host::Host;
use crate::lifecycle::{self, CONFIG_DIR};

#[derive(Serialize)]
struct View {
    file: PathBuf,
    valid: bool,
    diagnostics: Vec<Diagnostic>,
}

pub(super) fn run(targets: &[OsString], format: Format) -> anyhow::Result<Exit> {
    let files = if targets.is_empty() { all_files()? } else { named_files(targets)? };
    let mut views = Vec::new();
    let mut unreadable = 0;
    for file in files {
        let errors = match check(&file) {
            Ok(errors) => errors,
            Err(error) => {
                output::error(&error);
                unreadable += 1;
                continue;
            }
        };
        if format == Format::Text {
            print(&file, errors.as_ref());
        }
        let diagnostics = errors.map(|errors| errors.diagnostics().to_vec()).unwrap_or_default();
        views.push(View { file, valid: diagnostics.is_empty(), diagnostics });
    }
    let all_valid = views.iter().all(|view| view.valid);
    match format {
        Format::Json => output::json(&views),
        Format::Text if views.is_empty() && unreadable == 0 => {
            output::line(format_args!("there is no guest's file in {CONFIG_DIR}"));
        }
        Format::Text => {}
    }
    Ok(match (all_valid, unreadable) {
        (false, _) => Exit::Usage,
        (true, 0) => Exit::Done,
        (true, _) => Exit::Failed,
    })
}

fn print(file: &Path, errors: Option<&ConfigErrors>) {
    match errors {
        None => output::line(format_args!("{}: valid", file.display())),
        Some(errors) => output::line(errors.render(Style::of(&io::stdout())).trim_end()),
    }
}

/// What is wrong with a file. Those that the hook would load must also be root's.
fn check(file: &Path) -> anyhow::Result<Option<ConfigErrors>> {
    let bytes = if file.starts_with(CONFIG_DIR) {
        let host = Host::real();
        match read_trusted(&host.root(), file, host.trusted_owner()) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => anyhow::bail!("there is no {}", file.display()),
            Err(error @ TrustError::Io { .. }) => return Err(error.into()),
            Err(error) => {
                return Ok(ConfigErrors::new(vec![Diagnostic::new(file, error.to_string(), None)], 0));
            }
        }
    } else {
        read_any(file)?
    };
    Ok(ConfigSource::from_bytes(file, bytes).and_then(|source| source.parse()).err())
}

fn read_any(file: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|opened| opened.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .with_context(|| format!("failed to read {}", file.display()))?;
    Ok(bytes)
}

fn all_files() -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(CONFIG_DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("failed to list {CONFIG_DIR}"))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("failed to list {CONFIG_DIR}"))?.path();
        if path.extension() == Some(OsStr::new("yaml")) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// A path is one by its slash or its ending; everything else is a guest's name.
fn named_files(targets: &[OsString]) -> anyhow::Result<Vec<PathBuf>> {
    let file = |target: &OsString| {
        let path = Path::new(target);
        if target.as_encoded_bytes().contains(&b'/') || path.extension() == Some(OsStr::new("yaml")) {
            return Ok(path.to_owned());
        }
        let name = GuestName::new(target.clone());
        lifecycle::config_path(&name).with_context(|| format!("a guest called `{name}` can have no file"))
    };
    targets.iter().map(file).collect()
}
