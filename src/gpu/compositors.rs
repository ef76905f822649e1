//! Desktops that open every graphics card they find, and what keeps one of them from a second card.

/// A desktop's program, and what tells it which cards to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compositor {
    /// The names of its processes, as the kernel has them.
    pub programs: &'static [&'static str],
    /// What keeps it from a card: words that follow "for the desktop".
    pub setting: &'static str,
}

/// A list of cards is separated by colons, so that the links in `/dev/dri/by-path`, whose names have some, cannot stand in
/// it.
const COMPOSITORS: [Compositor; 6] = [
    // https://wiki.hypr.land/Hypr-Ecosystem/aquamarine/; hyprwm/aquamarine#416, hyprwm/Hyprland#4370
    Compositor {
        programs: &["Hyprland"],
        setting: "`AQ_DRM_DEVICES=/dev/dri/cardN` in Hyprland's environment, with the host's own card",
    },
    // docs/env_vars.md of wlroots; swaywm/wlroots#1278
    Compositor {
        programs: &["sway", "wayfire", "labwc", "river", "dwl", "cage", "hikari"],
        setting: "`WLR_DRM_DEVICES=/dev/dri/cardN` in its environment, with the host's own card",
    },
    // https://github.com/niri-wm/niri/wiki/Configuration:-Debug-Options; YaLTeR/niri#3610
    Compositor {
        programs: &["niri"],
        setting: "`debug { ignore-drm-device \"/dev/dri/renderDN\" }` in niri's configuration, with this card",
    },
    // src/backends/drm/drm_backend.cpp of KWin
    Compositor {
        programs: &["kwin_wayland"],
        setting: "`KWIN_DRM_DEVICES=/dev/dri/cardN` in its environment, with the host's own card",
    },
    // data/61-mutter.rules of mutter, meta_is_udev_device_ignore
    Compositor {
        programs: &["gnome-shell", "gala"],
        setting: "a udev rule that gives this card the tag `mutter-device-ignore`",
    },
    // xorg.conf(5)
    Compositor {
        programs: &["Xorg", "X"],
        setting: "`Option \"AutoAddGPU\" \"false\"` in the section ServerFlags of xorg.conf",
    },
];

/// The most that the kernel keeps of a process's name (`TASK_COMM_LEN`).
const NAME: usize = 15;

/// The desktop that a process of this name is; none where it is another program. NixOS starts one as `.Hyprland-wrapped`,
/// of which the kernel keeps the beginning.
#[must_use]
pub fn compositor_of(name: &str) -> Option<&'static Compositor> {
    let is_it = |program: &str| {
        let wrapped = format!(".{program}-wrapped");
        name == program || name == &wrapped[..wrapped.len().min(NAME)]
    };
    COMPOSITORS.iter().find(|compositor| compositor.programs.iter().any(|program| is_it(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_desktops_by_their_names_also_wrapped_ones() {
        for (name, setting) in [
            ("Hyprland", Some("AQ_DRM_DEVICES")),
            (".Hyprland-wrapp", Some("AQ_DRM_DEVICES")),
            ("sway", Some("WLR_DRM_DEVICES")),
            (".sway-wrapped", Some("WLR_DRM_DEVICES")),
            ("niri", Some("ignore-drm-device")),
            ("kwin_wayland", Some("KWIN_DRM_DEVICES")),
            (".kwin_wayland-w", Some("KWIN_DRM_DEVICES")),
            ("gnome-shell", Some("mutter-device-ignore")),
            ("Xorg", Some("AutoAddGPU")),
            ("swaybg", None),
            ("Xwayland", None),
            ("firefox", None),
            ("", None),
        ] {
            let found = compositor_of(name);
            assert_eq!(found.is_some(), setting.is_some(), "{name}");
            assert!(setting.is_none_or(|setting| found.unwrap().setting.contains(setting)), "{name}");
        }
    }
}
