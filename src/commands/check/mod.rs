//! `vfio-hook check`: every mistake of a YAML file, with its place.

mod of_groups;
mod targets;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::output::{self, Format};
use super::reach;
use crate::actions::{Groups, GuestConfig, trouble_with_folder};
use crate::commands::user_error::{Trying, UserError, UserResult};
use crate::config::{
    ConfigErrors, ConfigSource, Diagnostic, HostConfig, MAX_FILE_BYTES, RunEntry, TrustError, read_trusted,
};
use crate::exit::Exit;
use crate::guest::GuestName;
use crate::host::{Host, read_given_file};
use crate::key_path::KeyPath;
use crate::lifecycle::{self, CONFIG_DIR, GROUPS_FILE, HOST_FILE};

use of_groups::{GroupsFile, WithoutFile, name_of};
use targets::{Kind, Target};

pub(in crate::commands) use of_groups::start_with_wrong_groups;

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
    groups: GroupsFile,
    host: Host,
}

pub(super) fn run(named: &[OsString], format: Format) -> UserResult<Exit> {
    let host = Host::real();
    let mut checks = Checks {
        format,
        views: Vec::new(),
        unreadable: 0,
        host_file: HostFile::Unread,
        groups: GroupsFile::default(),
        host: Host::real(),
    };
    let targets = targets::targets(&host, named)?;
    // Of a file that lies elsewhere the hook knows nothing yet.
    let is_used = |target: &Target| target.file.starts_with(CONFIG_DIR);
    if named.is_empty() || targets.iter().any(is_used) {
        let mut guests = targets.iter().filter(|target| target.kind == Kind::Guest);
        let guest = match (guests.next(), guests.next()) {
            (Some(one), None) if !named.is_empty() => name_of(&one.file),
            _ => None,
        };
        reach::tell(&host, guest.as_ref(), format);
    }
    for target in targets {
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
        let is_of_groups = kind == Kind::Groups && file == Path::new(GROUPS_FILE);
        let mut from_groups = Vec::new();
        let checked = match read(&file) {
            Ok(Some(Ok(source))) => Ok(match kind {
                Kind::Host => self.host_errors(Some(&source)),
                Kind::Groups => self.groups_errors(source),
                Kind::Guest => self.guest_errors(&source, &mut from_groups),
            }),
            Ok(Some(Err(errors))) => Ok(Some(errors)),
            Ok(None) if kind == Kind::Guest && file.starts_with(CONFIG_DIR) => {
                return self.without_file(&file);
            }
            Ok(None) => Err(UserError::new(format!("there is no {}", file.display()))),
            Err(error) => Err(error),
        };
        if is_of_groups && !matches!(checked, Ok(None)) {
            self.groups = GroupsFile::Wrong;
        }
        match checked {
            Ok(errors) => self.tell(file, errors),
            Err(error) => self.fail(&error),
        }
        if self.format == Format::Text {
            from_groups.iter().for_each(|line| output::line(format_args!("  {line}")));
        }
    }

    /// A guest may have all from the groups.
    fn without_file(&mut self, file: &Path) {
        let shown = file.display();
        let Some(name) = name_of(file) else { return };
        match self.groups.without_file(&self.host, &name) {
            WithoutFile::Has(lines) => {
                if self.format == Format::Text {
                    output::line(format_args!("{name} has no file of its own, and"));
                    lines.iter().for_each(|line| output::line(format_args!("  {line}")));
                }
            }
            WithoutFile::Nothing(reasons) if reasons.is_empty() => {
                self.fail(&UserError::new(format!("there is no {shown}")));
            }
            WithoutFile::Nothing(reasons) => {
                let message = format!("there is no {shown}, and no group of {GROUPS_FILE} has {name}");
                self.fail(&UserError::new(message).with_help(reasons.join("; ")));
            }
            WithoutFile::Unknown(what) => self.fail(&UserError::new(what)),
        }
    }

    /// `from_groups` gets a line for each group that the guest has something of.
    fn guest_errors(&mut self, source: &ConfigSource, from_groups: &mut Vec<String>) -> Option<ConfigErrors> {
        let config = match GuestConfig::read(source) {
            Ok(config) => config,
            Err(errors) => return Some(errors),
        };
        if source.file().starts_with(CONFIG_DIR)
            && let Some(name) = name_of(source.file())
        {
            *from_groups = self.groups.origins(&self.host, &name, &config);
            if let Some(errors) = self.scripts_errors(source, &config, &name) {
                return Some(errors);
            }
        }
        let switches = config.switch_input?;
        self.read_host_file();
        match &self.host_file {
            HostFile::Read(host) => source.check_against(&switches, host),
            HostFile::Unread | HostFile::Wrong => None,
        }
    }

    /// Folders of scripts that this host has not, or from which the guest would get none.
    fn scripts_errors(
        &self,
        source: &ConfigSource,
        config: &GuestConfig,
        name: &GuestName,
    ) -> Option<ConfigErrors> {
        let entries = config.run.as_ref().map_or(&[][..], |run| &run.entries);
        let guest = name.to_string();
        let trouble = |(number, entry): (usize, &RunEntry)| {
            let RunEntry::Scripts(scripts) = entry else { return None };
            let (message, help) = trouble_with_folder(&self.host, &scripts.directory, &guest)?;
            let place = KeyPath::from(&["run"]).element(number).key("scripts");
            Some(source.diagnose(place, message, Some(help)))
        };
        ConfigErrors::new(entries.iter().enumerate().filter_map(trouble).collect(), 0)
    }

    fn groups_errors(&mut self, source: ConfigSource) -> Option<ConfigErrors> {
        let groups = match Groups::read(&source) {
            Ok(groups) => groups,
            Err(errors) => return Some(errors),
        };
        let source = Arc::new(source);
        let mut errors = None;
        if groups.want_monitors() {
            self.read_host_file();
            if let HostFile::Read(host) = &self.host_file {
                errors = groups.check_against(&source, host);
            }
        }
        // Groups of another host's file are no guest's here.
        if source.file() == Path::new(GROUPS_FILE) {
            self.groups = GroupsFile::Right(source, groups);
        }
        errors
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
                Some(errors) => output::mistakes(errors),
            }
        }
        let diagnostics = errors.map(|errors| errors.diagnostics().to_vec()).unwrap_or_default();
        self.views.push(View { file, valid: diagnostics.is_empty(), diagnostics });
    }

    fn fail(&mut self, error: &UserError) {
        output::error(error);
        self.unreadable += 1;
    }
}

/// A file's text; none if there is none. Those that the hook would load must also be root's.
fn read(file: &Path) -> UserResult<Option<Result<ConfigSource, ConfigErrors>>> {
    let bytes = if file.starts_with(CONFIG_DIR)
        || [HOST_FILE, GROUPS_FILE].iter().any(|known| file == Path::new(known))
    {
        let host = Host::real();
        match read_trusted(&host.root(), file, host.trusted_owner()) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error @ TrustError::Io { .. }) => return Err(error.into()),
            Err(error) => return Ok(Some(Err(untrusted(file, &error).into()))),
        }
    } else {
        read_given_file(file, MAX_FILE_BYTES).trying(|| format!("failed to read {}", file.display()))?
    };
    Ok(Some(ConfigSource::from_bytes(file, bytes)))
}

fn untrusted(file: &Path, error: &TrustError) -> Diagnostic {
    Diagnostic::new(file, error.to_string(), Some(error.help()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Style;

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
