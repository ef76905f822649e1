//! `vfio-hook check`: every mistake of a YAML file, with its place.

mod targets;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::output::{self, Format};
use crate::config::{
    ConfigErrors, ConfigSource, Diagnostic, HostConfig, MAX_FILE_BYTES, Style, TrustError, read_trusted,
};
use crate::exit::Exit;
use crate::host::{Host, read_given_file};
use crate::lifecycle::{self, CONFIG_DIR, HOST_FILE};

use targets::{Kind, Target};

#[derive(Serialize)]
struct View {
    file: PathBuf,
    valid: bool,
    diagnostics: Vec<Diagnostic>,
}

/// What guests' files are held against.
enum HostFile {
    /// It was not needed yet.
    Unread,
    /// What it says.
    Read(HostConfig),
    /// It is wrong, which was told: nothing can be held against it.
    Wrong,
}

/// What was found so far.
struct Checks {
    format: Format,
    views: Vec<View>,
    unreadable: usize,
    host_file: HostFile,
}

pub(super) fn run(named: &[OsString], format: Format) -> anyhow::Result<Exit> {
    let mut checks = Checks { format, views: Vec::new(), unreadable: 0, host_file: HostFile::Unread };
    for target in targets::targets(&Host::real(), named)? {
        checks.check(target);
    }
    let Checks { views, unreadable, .. } = checks;
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

impl Checks {
    fn check(&mut self, Target { file, kind }: Target) {
        let checked = read(&file).and_then(|bytes| match bytes {
            Some(Ok(source)) => Ok(match kind {
                Kind::Host => self.host_errors(Some(&source)),
                Kind::Guest => self.guest_errors(&source),
            }),
            Some(Err(errors)) => Ok(Some(errors)),
            None => anyhow::bail!("there is no {}", file.display()),
        });
        match checked {
            Ok(errors) => self.tell(file, errors),
            Err(error) => self.fail(&error),
        }
    }

    fn guest_errors(&mut self, source: &ConfigSource) -> Option<ConfigErrors> {
        let config = match source.parse() {
            Ok(config) => config,
            Err(errors) => return Some(errors),
        };
        if config.switch_input.is_some() {
            self.read_host_file();
        }
        match &self.host_file {
            HostFile::Read(host) => source.check_against(&config, host),
            HostFile::Unread | HostFile::Wrong => None,
        }
    }

    /// Guests' files that come later are held against this one, or against none.
    fn host_errors(&mut self, source: Option<&ConfigSource>) -> Option<ConfigErrors> {
        match lifecycle::host_config(source) {
            Ok(config) => {
                self.host_file = HostFile::Read(config);
                None
            }
            Err(errors) => {
                self.host_file = HostFile::Wrong;
                Some(errors)
            }
        }
    }

    /// Reads the file of this host, unless another one was named; it is told of only if it is wrong.
    fn read_host_file(&mut self) {
        if !matches!(self.host_file, HostFile::Unread) {
            return;
        }
        let path = Path::new(HOST_FILE);
        self.host_file = HostFile::Wrong;
        let errors = match read(path) {
            Ok(None) => self.host_errors(None),
            Ok(Some(Ok(source))) => self.host_errors(Some(&source)),
            Ok(Some(Err(errors))) => Some(errors),
            Err(error) => return self.fail(&error),
        };
        if errors.is_some() {
            self.tell(path.to_owned(), errors);
        }
    }

    fn tell(&mut self, file: PathBuf, errors: Option<ConfigErrors>) {
        if self.format == Format::Text {
            match &errors {
                None => output::line(format_args!("{}: valid", file.display())),
                Some(errors) => output::line(errors.render(Style::of(&io::stdout())).trim_end()),
            }
        }
        let diagnostics = errors.map(|errors| errors.diagnostics().to_vec()).unwrap_or_default();
        self.views.push(View { file, valid: diagnostics.is_empty(), diagnostics });
    }

    fn fail(&mut self, error: &anyhow::Error) {
        output::error(error);
        self.unreadable += 1;
    }
}

/// A file's text; none if there is none. Those that the hook would load must also be root's.
fn read(file: &Path) -> anyhow::Result<Option<Result<ConfigSource, ConfigErrors>>> {
    let bytes = if file.starts_with(CONFIG_DIR) || file == Path::new(HOST_FILE) {
        let host = Host::real();
        match read_trusted(&host.root(), file, host.trusted_owner()) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error @ TrustError::Io { .. }) => return Err(error.into()),
            Err(error) => return Ok(Some(Err(untrusted(file, &error).into()))),
        }
    } else {
        read_given_file(file, MAX_FILE_BYTES).with_context(|| format!("failed to read {}", file.display()))?
    };
    Ok(Some(ConfigSource::from_bytes(file, bytes)))
}

/// The error's second line tells what to do.
fn untrusted(file: &Path, error: &TrustError) -> Diagnostic {
    let text = error.to_string();
    let (message, help) = text.split_once('\n').unwrap_or((&text, ""));
    Diagnostic::new(file, message, (!help.is_empty()).then(|| help.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nothing_is_a_mistake_with_its_help() {
        let file = Path::new("/etc/vfio-hook/hooks.d/win11.yaml");
        let error = TrustError::Dangling { path: PathBuf::from("/srv/win11.yaml"), link: file.to_owned() };
        let errors = ConfigErrors::from(untrusted(file, &error));
        insta::assert_snapshot!(errors.render(Style::Plain), @"
        error: /srv/win11.yaml does not exist, and a symbolic link leads there
        --> /etc/vfio-hook/hooks.d/win11.yaml
         = help: create it, or remove the link at /etc/vfio-hook/hooks.d/win11.yaml
        ");
    }
}
