//! What libvirt does when the guest reboots.

use std::fmt;

use super::xml::Element;

/// What happens to a guest at an event of its life: `<on_reboot>restart</on_reboot>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifecycleAction {
    /// It ends, and with it QEMU.
    Destroy,
    /// It goes on in the same QEMU; no hook runs.
    Restart,
    /// It stops and is kept for a look at it.
    Preserve,
    /// It goes on under another name.
    RenameRestart,
    /// An action that is not for reboots, or that this program does not know.
    Other(String),
}

impl fmt::Display for LifecycleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Destroy => "destroy",
            Self::Restart => "restart",
            Self::Preserve => "preserve",
            Self::RenameRestart => "rename-restart",
            Self::Other(other) => other,
        })
    }
}

/// Reads `<on_reboot>`; libvirt's default is to restart.
pub(super) fn on_reboot(domain: &Element<'_>) -> LifecycleAction {
    let Some(action) = domain.find("on_reboot") else { return LifecycleAction::Restart };
    match action.text().as_str() {
        "destroy" => LifecycleAction::Destroy,
        "restart" => LifecycleAction::Restart,
        "preserve" => LifecycleAction::Preserve,
        "rename-restart" => LifecycleAction::RenameRestart,
        other => LifecycleAction::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::testing::guest;

    #[test]
    fn reads_every_action() {
        for (text, action) in [
            ("destroy", LifecycleAction::Destroy),
            ("restart", LifecycleAction::Restart),
            ("preserve", LifecycleAction::Preserve),
            ("rename-restart", LifecycleAction::RenameRestart),
            ("coredump-restart", LifecycleAction::Other("coredump-restart".into())),
        ] {
            assert_eq!(guest(&format!("<on_reboot>{text}</on_reboot>")).on_reboot, action);
        }
        assert_eq!(guest("").on_reboot, LifecycleAction::Restart);
    }
}
