//! Whether libvirt reaches the hook, and the hook a guest's file: what commands that speak of guests say beside all else.

use std::path::Path;
use std::time::Duration;

use super::output::{self, Format};
use crate::config::did_you_mean;
use crate::deadline::Deadline;
use crate::guest::GuestName;
use crate::host::{HookTrouble, Host};
use crate::lifecycle::{CONFIG_DIR, GROUPS_FILE, HOST_FILE};

/// How long systemd may take to say when the daemon was reloaded.
const PATIENCE: Duration = Duration::from_secs(1);

/// The folder of the host's file and that of groups.
const ABOVE: &str = "/etc/vfio-hook";

/// Where libvirt keeps the XML of guests: of those that are defined, and of those that run.
const GUESTS: [&str; 2] = ["/etc/libvirt/qemu", "/run/libvirt/qemu"];

/// Says on standard error what keeps a guest's file from being used, or that of every guest. Programs are not told.
pub(super) fn tell(host: &Host, guest: Option<&GuestName>, format: Format) {
    if format == Format::Json {
        return;
    }
    let troubles = host.hook_troubles(Deadline::after(PATIENCE));
    for HookTrouble { what, help } in troubles.into_iter().chain(misnamed(host, guest)) {
        output::aside(format_args!("warning: {what}"));
        output::aside(format_args!("help: {help}"));
    }
}

/// Files that the hook does not read, and files of guests that there are not.
fn misnamed(host: &Host, guest: Option<&GuestName>) -> Vec<HookTrouble> {
    let asked = guest.and_then(|guest| guest.as_os_str().to_str());
    let mut guests = guests(host);
    // A person knows the guest, also where nobody but root sees libvirt's.
    if let Some(asked) = asked.filter(|_| guests.is_empty()) {
        guests.push(asked.to_owned());
    }
    let names = host.names_in(Path::new(CONFIG_DIR));
    let shown = |name: &&String| !name.starts_with('.');
    let files = names.iter().filter(shown);
    let mut troubles: Vec<HookTrouble> = files.filter_map(|name| trouble(name, &names, &guests)).collect();
    // Of one guest only what may be its file.
    if let Some(guest) = asked {
        let own = format!("{guest}.yaml");
        troubles.retain(|trouble| {
            !names.contains(&own) && trouble.help.contains(&format!("{CONFIG_DIR}/{own}`"))
        });
    }
    let above = host.names_in(Path::new(ABOVE));
    troubles.extend(above.iter().filter(shown).filter_map(|name| trouble_above(name, &above, asked)));
    troubles
}

/// What is wrong with a name among those of guests' files.
fn trouble(name: &str, names: &[String], guests: &[String]) -> Option<HookTrouble> {
    let rename = |to: &str| match names.iter().any(|other| other == to) {
        true => format!("remove it: {to} is there too"),
        false => moved(CONFIG_DIR, name, CONFIG_DIR, to),
    };
    let not_read = |to: &str| HookTrouble {
        what: format!("{CONFIG_DIR}/{name} is not read: the name of a guest's file ends with `.yaml`"),
        help: rename(to),
    };
    let known = |stem: &str| guests.iter().find(|guest| guest.eq_ignore_ascii_case(stem.trim()));
    match stem(name) {
        Some(stem) if !name.ends_with(".yaml") => Some(not_read(&format!("{}.yaml", stem.trim()))),
        Some(stem) if !guests.is_empty() && !guests.iter().any(|guest| guest == stem) => {
            let all: Vec<&str> = guests.iter().map(String::as_str).collect();
            let meant = known(stem).map(String::as_str).or_else(|| did_you_mean(stem, &all));
            Some(HookTrouble {
                what: format!("{CONFIG_DIR}/{name} is of no guest: none is called {stem}"),
                help: match meant {
                    Some(meant) => rename(&format!("{meant}.yaml")),
                    None => "`virsh list --all` shows the guests".to_owned(),
                },
            })
        }
        // A name ends with no blank.
        Some(stem) if stem.trim() != stem => Some(not_read(&format!("{}.yaml", stem.trim()))),
        None => known(name).map(|guest| not_read(&format!("{guest}.yaml"))),
        _ => None,
    }
}

/// What is wrong with a name beside the file of the host and that of groups.
fn trouble_above(name: &str, names: &[String], asked: Option<&str>) -> Option<HookTrouble> {
    let path = format!("{ABOVE}/{name}");
    if [HOST_FILE, GROUPS_FILE, CONFIG_DIR].contains(&path.as_str()) {
        return None;
    }
    let known: Vec<&str> = [HOST_FILE, GROUPS_FILE, CONFIG_DIR]
        .into_iter()
        .filter_map(|path| path.strip_prefix(ABOVE)?.strip_prefix('/'))
        .collect();
    let in_place = |to: &str| match names.iter().any(|other| other == to) {
        true => format!("remove it: {to} is there too"),
        false => moved(ABOVE, name, ABOVE, to),
    };
    let stem = stem(name).map(str::trim);
    let with_ending = stem.map(|stem| format!("{stem}.yaml"));
    let meant = known.iter().find(|known| {
        with_ending.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(known))
            || name.eq_ignore_ascii_case(known)
    });
    let meant = meant.copied().or_else(|| did_you_mean(name, &known));
    let what = format!("{path} is not read");
    match (meant, stem) {
        (Some(meant), _) => Some(HookTrouble { what, help: in_place(meant) }),
        (None, Some(stem)) if asked.is_none_or(|asked| asked.eq_ignore_ascii_case(stem)) => {
            Some(HookTrouble {
                what: format!("{what}: guests' files lie in {CONFIG_DIR}"),
                help: moved(ABOVE, name, CONFIG_DIR, &format!("{}.yaml", asked.unwrap_or(stem))),
            })
        }
        _ => None,
    }
}

/// The name of a file of YAML without its ending, if it has one that people give such files.
fn stem(name: &str) -> Option<&str> {
    let lower = name.to_lowercase();
    [".yaml", ".yml", ".yaml.txt", ".yml.txt", ".json"]
        .into_iter()
        .find(|end| lower.ends_with(end))
        .map(|end| &name[..name.len() - end.len()])
}

/// The command that gives a file another name.
fn moved(folder: &str, name: &str, to_folder: &str, to: &str) -> String {
    let quoted = |path: String| if path.contains(char::is_whitespace) { format!("'{path}'") } else { path };
    format!("`mv {} {}`", quoted(format!("{folder}/{name}")), quoted(format!("{to_folder}/{to}")))
}

/// The names of libvirt's guests; none without root, who alone sees them.
fn guests(host: &Host) -> Vec<String> {
    let files = GUESTS.iter().flat_map(|folder| host.names_in(Path::new(folder)));
    files.filter_map(|file| file.strip_suffix(".xml").map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    fn told(files: &[&str], guests: &[&str], guest: Option<&str>) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = files
            .iter()
            .map(|file| match file.strip_prefix("../") {
                Some(above) => format!("{ABOVE}/{above} =\n"),
                None => format!("{CONFIG_DIR}/{file} =\n"),
            })
            .chain(guests.iter().map(|guest| format!("/etc/libvirt/qemu/{guest}.xml =\n")))
            .collect();
        lay_out(&lines, folder.path()).unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        let troubles = misnamed(&host, guest.map(GuestName::new).as_ref());
        troubles.into_iter().map(|trouble| format!("{} ({})", trouble.what, trouble.help)).collect()
    }

    #[test]
    fn names_that_are_nearly_right_are_told() {
        let files = [
            "a.yml",
            "b.YAML",
            "c.yaml.txt",
            "Win11.yaml",
            "wni10.yaml",
            "x.yaml",
            "win10",
            "d.yaml",
            "d.yml",
        ];
        let guests = ["win11", "win10", "a", "b", "c", "d"];
        insta::assert_snapshot!(told(&files, &guests, None).join("\n"));
    }

    #[test]
    fn names_that_are_right_and_files_kept_aside_are_not() {
        assert!(
            told(&["win11.yaml", "win10.yaml.bak", "win10.yaml~", ".x.yaml.swp", "README"], &["win11"], None)
                .is_empty()
        );
        // Without root nobody knows the guests.
        assert!(told(&["win11.yaml"], &[], None).is_empty());
        assert!(told(&["win11.yaml", "../host.yaml", "../guests.yaml", "../README"], &[], None).is_empty());
    }

    /// Also without root, who alone sees libvirt's guests.
    #[test]
    fn the_file_of_a_guest_that_is_asked_for_is_found_under_nearly_its_name() {
        for (file, moved) in [
            ("Win11.yaml", "Win11.yaml"),
            ("win11", "win11"),
            ("win11 .yaml", ""),
            ("win11.yml", "win11.yml"),
        ] {
            let told = told(&[file], &[], Some("win11"));
            let mv = match moved {
                "" => format!("`mv '{CONFIG_DIR}/win11 .yaml' {CONFIG_DIR}/win11.yaml`"),
                name => format!("`mv {CONFIG_DIR}/{name} {CONFIG_DIR}/win11.yaml`"),
            };
            assert!(told.len() == 1 && told[0].contains(&mv), "{file}: {told:?}");
        }
        let told = |file| told(&[file], &[], Some("win11"));
        assert!(
            told("../win11.yaml")[0].contains(&format!("`mv {ABOVE}/win11.yaml {CONFIG_DIR}/win11.yaml`"))
        );
        assert!(told("../win10.yaml").is_empty() && told("win10.yml").is_empty());
    }

    #[test]
    fn files_one_level_too_high_and_misspelt_ones_of_the_host_are_told() {
        for (file, to) in [
            ("../guests.yml", format!("{ABOVE}/guests.yaml`")),
            ("../guest.yaml", format!("{ABOVE}/guests.yaml`")),
            ("../host.yml", format!("{ABOVE}/host.yaml`")),
            ("../Host.yaml", format!("{ABOVE}/host.yaml`")),
            ("../win11.yml", format!("{CONFIG_DIR}/win11.yaml`")),
        ] {
            let told = told(&[file], &[], None);
            assert!(told.len() == 1 && told[0].contains(&to), "{file}: {told:?}");
        }
    }

    #[test]
    fn of_one_guest_only_what_may_be_its_file() {
        let of = |guest| told(&["win11.yml", "win10.yml"], &["win11", "win10"], Some(guest));
        assert_eq!(of("win11").len(), 1, "{:?}", of("win11"));
        assert!(of("win7").is_empty());
    }
}
