//! Layers of storage as they are, taken down, and brought back. Programs do it, as children with a bound: a file system
//! or a drive that hangs keeps nobody waiting.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::device::{BLOCK, BlockDevice};
use super::layer::{LayerName, LayerState};
use super::mounts::InUse;
use super::uses::volume_of;
use crate::deadline::Deadline;
use crate::failpoint;
use crate::host::command::{CommandEnd, CommandLine};
use crate::host::root_path::find_program;
use crate::host::{Host, HostError};

/// A drive that comes back takes its time to be found, and its parts to be known: so often it is tried again.
const AGAIN: Duration = Duration::from_millis(300);

/// Where systemd has its own programs, besides root's path.
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd", "/lib/systemd"];

/// The most lines of a program that a message has.
const MOST_LINES: usize = 3;

impl Host {
    /// What a layer is now.
    ///
    /// # Errors
    /// sysfs or `/proc` cannot be read.
    pub fn storage_layer(&self, layer: &LayerName) -> Result<LayerState, HostError> {
        let in_use = InUse::read(self)?;
        Ok(match layer {
            LayerName::Mount(path) => match self.mount_at(&in_use, Path::new(path))? {
                None => LayerState::Down,
                Some(Ok(spec)) => LayerState::Mounted(Box::new(spec)),
                Some(Err(_)) => {
                    return Err(HostError::call("mount", path, "something else is mounted there"));
                }
            },
            LayerName::Swap(path) => match self.block_device_at(Path::new(path))? {
                Some(device) if in_use.is_swap(&device) => {
                    LayerState::Swapped { priority: in_use.swap_priority(&device) }
                }
                _ => LayerState::Down,
            },
            LayerName::Crypt(name) => self.mapped(|mapped| mapped == name)?,
            LayerName::Volume(volume) => self.mapped(|mapped| volume_of(mapped) == *volume)?,
            LayerName::Array(uuid) => match self.array(uuid)? {
                Some(device) => LayerState::Assembled { name: self.array_name(&device)? },
                None => LayerState::Down,
            },
        })
    }

    fn mapped(&self, is_it: impl Fn(&str) -> bool) -> Result<LayerState, HostError> {
        for name in self.names_if_present(BLOCK)? {
            if let Some(mapped) = self.text_if_present(Path::new(BLOCK).join(&name).join("dm/name"))?
                && is_it(&mapped)
            {
                return Ok(LayerState::Up);
            }
        }
        Ok(LayerState::Down)
    }

    /// The array with a UUID; none where it does not run.
    fn array(&self, uuid: &str) -> Result<Option<BlockDevice>, HostError> {
        for name in self.names_if_present(BLOCK)? {
            let is_array = self.is_present(Path::new(BLOCK).join(&name).join("md"));
            if is_array
                && let Some(device) = BlockDevice::named(self, &name)?
                && self.udev_property(&device, "MD_UUID")?.as_deref() == Some(uuid)
            {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    /// The path in `/dev` that an array was assembled under, as udev has it: `md/games`, or `md127` for one without a name.
    fn array_name(&self, device: &BlockDevice) -> Result<String, HostError> {
        let name = self.udev_property(device, "MD_DEVNAME")?.filter(|name| !name.contains('/'));
        Ok(name.map_or_else(|| device.name().to_owned(), |name| format!("md/{name}")))
    }

    /// Takes a layer down, or brings it back. One that comes back waits for its drive.
    ///
    /// # Errors
    /// A program fails, is not there, or takes too long. A mount that is in use stays: nothing is forced.
    pub fn set_storage_layer(
        &mut self,
        layer: &LayerName,
        to: &LayerState,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        if let (LayerName::Mount(path), LayerState::Mounted(spec)) = (layer, to)
            && let Some(above) = &spec.within
            && InUse::read(self)?.mounts().iter().all(|mount| mount.mount_point != Path::new(above))
        {
            return Err(HostError::call("mount", path, format!("{above}, which it is in, is not mounted")));
        }
        if !self.is_real() {
            let word = if to.is_there() { "up" } else { "down" };
            return self.set(layer.simulated(), word);
        }
        loop {
            let commands = self.commands(layer, to)?;
            let mut tried = Ok(());
            failpoint::reached("setting");
            for command in &commands {
                tried = tried.and_then(|()| self.run_storage_program(command, deadline));
            }
            failpoint::reached("setting");
            let Err(error) = tried else { return Ok(()) };
            // udev, or systemd, may have been faster.
            if self.storage_layer(layer)?.is_there() == to.is_there() {
                return Ok(());
            }
            if !to.is_there() || deadline.has_passed() || error.ran_out_of_time() {
                return Err(error);
            }
            deadline.pause(AGAIN);
        }
    }

    fn commands(&self, layer: &LayerName, to: &LayerState) -> Result<Vec<CommandLine>, HostError> {
        let line = |program: &str, arguments: &[&str]| {
            let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            command(program, arguments)
        };
        Ok(vec![match (layer, to) {
            (LayerName::Mount(path), LayerState::Mounted(spec)) => {
                return spec
                    .arguments(path)
                    .into_iter()
                    .map(|arguments| command("mount", arguments))
                    .collect();
            }
            (LayerName::Mount(path), _) => line("umount", &["--", path])?,
            (LayerName::Swap(path), LayerState::Swapped { priority }) if *priority >= 0 => {
                line("swapon", &["--priority", &priority.to_string(), "--", path])?
            }
            (LayerName::Swap(path), LayerState::Down) => line("swapoff", &["--", path])?,
            // The kernel numbers those without a priority from -2 on downwards, in the order in which they come.
            (LayerName::Swap(path), _) => line("swapon", &["--", path])?,
            (LayerName::Crypt(name), LayerState::Down) => line("cryptsetup", &["close", "--", name])?,
            (LayerName::Crypt(name), _) => match self.crypt_line(name)? {
                Ok(found) => {
                    let options = format!("{},headless=yes", found.options);
                    let options = options.trim_start_matches(',');
                    line("systemd-cryptsetup", &["attach", name, &found.device, &found.key, options])?
                }
                Err(reason) => return Err(HostError::call("systemd-cryptsetup attach", name, reason)),
            },
            (LayerName::Volume(volume), to) => {
                let activate = if to.is_there() { "y" } else { "n" };
                line("lvm", &["lvchange", "--activate", activate, "--", volume])?
            }
            (LayerName::Array(uuid), LayerState::Down) => match self.array(uuid)? {
                Some(device) => line("mdadm", &["--stop", &device.to_string()])?,
                None => return Ok(Vec::new()),
            },
            (LayerName::Array(uuid), to) => {
                let path = match to {
                    LayerState::Assembled { name } => format!("/dev/{name}"),
                    _ => "/dev/md/restored".to_owned(),
                };
                line("mdadm", &["--assemble", &path, &format!("--uuid={uuid}")])?
            }
        }])
    }

    fn run_storage_program(&mut self, command: &CommandLine, deadline: Deadline) -> Result<(), HostError> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let end = self.run_command(command, deadline, None, move |line| {
            let mut lines = heard.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() < MOST_LINES {
                lines.push(line.to_owned());
            }
        });
        let said: Vec<String> = lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let words: Vec<String> = std::iter::once(command.program.display().to_string())
            .chain(command.arguments.iter().map(|word| word.to_string_lossy().into_owned()))
            .collect();
        let object = words.join(" ");
        match end {
            CommandEnd::Exited(0) => Ok(()),
            CommandEnd::TimedOut => Err(HostError::late_call("run", &object, said.join("; "))),
            end if said.is_empty() => Err(HostError::call("run", &object, end)),
            _ => Err(HostError::call("run", &object, said.join("; "))),
        }
    }

    /// The programs that layers need and this host does not have.
    #[must_use]
    pub fn missing_storage_programs(&self, layer: &LayerName) -> Vec<&'static str> {
        let needed: &[&'static str] = match layer {
            LayerName::Mount(_) => &["mount", "umount"],
            LayerName::Swap(_) => &["swapon", "swapoff"],
            LayerName::Crypt(_) => &["cryptsetup", "systemd-cryptsetup"],
            LayerName::Volume(_) => &["lvm"],
            LayerName::Array(_) => &["mdadm"],
        };
        match self.is_real() {
            true => needed.iter().copied().filter(|name| storage_program(name).is_none()).collect(),
            false => Vec::new(),
        }
    }
}

fn storage_program(name: &str) -> Option<PathBuf> {
    find_program(name)
        .or_else(|| SYSTEMD.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file()))
}

fn command(program: &str, arguments: Vec<String>) -> Result<CommandLine, HostError> {
    let path = storage_program(program);
    let path = path.ok_or_else(|| HostError::call("run", program, "this host does not have the program"))?;
    Ok(CommandLine {
        program: path,
        arguments: arguments.into_iter().map(Into::into).collect(),
        environment: vec![("LC_ALL".into(), "C".into()), ("LVM_SUPPRESS_FD_WARNINGS".into(), "1".into())],
        user: None,
        stdin: None,
    })
}
