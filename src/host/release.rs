//! Which kernel and which distribution this is, and what the kernel was told at boot.

use super::{Host, HostError};

/// The distribution's own file, and where it is if `/etc` has none (os-release(5)).
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

impl Host {
    /// `/proc/sys/kernel/osrelease`, such as `6.12.57+deb13-amd64`.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn kernel_release(&self) -> Result<String, HostError> {
        self.text("/proc/sys/kernel/osrelease")
    }

    /// `/proc/cmdline`: the words of the kernel's command line.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn kernel_command_line(&self) -> Result<Vec<String>, HostError> {
        Ok(self.text("/proc/cmdline")?.split_whitespace().map(str::to_owned).collect())
    }

    /// `PRETTY_NAME` of `/etc/os-release`, such as `Debian GNU/Linux 13 (trixie)`; none where the host does not say.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn distribution(&self) -> Result<Option<String>, HostError> {
        for path in OS_RELEASE {
            if let Some(text) = self.text_if_present(path)? {
                let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
                return Ok(name.map(|name| name.trim_matches(['"', '\'']).to_owned()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    #[test]
    fn says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        assert!(host.kernel_release().unwrap_err().is_absent());
        assert!(host.kernel_command_line().unwrap_err().is_absent());
        assert_eq!(host.distribution().unwrap(), None);
        lay_out(
            "/proc/sys/kernel/osrelease = 6.12.57+deb13-amd64\n\
             /proc/cmdline = root=/dev/sda2 quiet  amd_iommu=on\n\
             /usr/lib/os-release = ID=debian\\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\\nVERSION_ID=13\n",
            folder.path(),
        )
        .unwrap();
        assert_eq!(host.kernel_release().unwrap(), "6.12.57+deb13-amd64");
        assert_eq!(host.kernel_command_line().unwrap(), ["root=/dev/sda2", "quiet", "amd_iommu=on"]);
        assert_eq!(host.distribution().unwrap().as_deref(), Some("Debian GNU/Linux 13 (trixie)"));
        lay_out("/etc/os-release = ID=arch\n", folder.path()).unwrap();
        assert_eq!(host.distribution().unwrap(), None);
    }
}
