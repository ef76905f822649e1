//! A card on one screen.

use super::card::{
    BusResetView, CardView, FamilyView, FunctionView, GuestView, HealthState, PortsView, UsersView,
    VendorResetView,
};
use crate::gpu::Robustness;
use crate::host::DriverName;
use crate::pci::listed;
use crate::wall_clock::age;

/// Where the text of a row begins.
const INDENT: usize = 14;

/// Longer lines are hard to read.
const WIDTH: usize = 110;

/// Lines that are made row by row: what it is about, then what there is to say.
struct Sheet(Vec<String>);

impl Sheet {
    /// A row; none where there is nothing to say.
    fn row(&mut self, label: &str, texts: impl IntoIterator<Item = String>) {
        let lines: Vec<String> = texts.into_iter().flat_map(|text| wrapped(&text)).collect();
        for (number, line) in lines.into_iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            self.0.push(format!("  {label:width$}{line}", width = INDENT - 2));
        }
    }
}

/// The text in lines that fit beside the rows' names, broken between words. Columns stay as they are.
fn wrapped(text: &str) -> Vec<String> {
    if text.chars().count() <= WIDTH - INDENT {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > WIDTH - INDENT {
            lines.push(format!("  {word}"));
        } else if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

pub(super) fn of_card(card: &CardView) -> Vec<String> {
    let name = card.name.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
    let mut sheet = Sheet(vec![match (&card.family, card.quarantines.first()) {
        (Some(family), _) => format!("graphics card {}{name}, family {}", card.slot, family.name),
        // What is no longer there is known from the ledger only.
        (None, Some(quarantine)) => quarantine.card.clone(),
        (None, None) => format!("device {}{name}", card.slot),
    }]);
    sheet.row("functions", functions(&card.functions));
    sheet.row("ports", ports(&card.ports));
    sheet.row("iommu", iommu(card));
    sheet.row("health", health(card));
    sheet.row("reset", [reset(&card.functions, &card.bus_reset)]);
    if let Some(family) = &card.family {
        sheet.row("family", family_rows(family));
    }
    sheet.row("pictures", pictures(card));
    sheet.row("used by", users(&card.users));
    sheet.row("guest", card.guest.as_ref().map(guest));
    for quarantine in &card.quarantines {
        let since = age(quarantine.since);
        let head = [format!("since {since}, guest {}", quarantine.guest)];
        let again = [format!("`vfio-hook gpu clear {}` looks at it again", card.slot)];
        let again = again.into_iter().filter(|_| card.stuck.is_empty());
        sheet.row("quarantine", head.into_iter().chain(quarantine.evidence.iter().cloned()).chain(again));
    }
    for stuck in &card.stuck {
        sheet.row("hangs", [stuck.line(), stuck.help.clone()]);
    }
    sheet.0
}

/// One a line, in columns.
fn functions(functions: &[FunctionView]) -> Vec<String> {
    let rows: Vec<[String; 5]> = functions
        .iter()
        .map(|function| {
            let driver = function.driver.as_ref().map_or("no driver", DriverName::as_str);
            let group = function.iommu_group.map(|group| format!("IOMMU group {group}"));
            match &function.class {
                Some(class) => [
                    function.model.to_string(),
                    class.clone(),
                    driver.to_owned(),
                    function.power_state.clone().unwrap_or_default(),
                    group.unwrap_or_default(),
                ],
                None => [
                    function.model.to_string(),
                    "gone".to_owned(),
                    String::new(),
                    String::new(),
                    String::new(),
                ],
            }
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |(function, row): (&FunctionView, &[String; 5])| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let cells: Vec<String> = cells.collect();
        format!("{}  {}", function.address, cells.join("  ")).trim_end().to_owned()
    };
    functions.iter().zip(&rows).map(line).collect()
}

fn ports(ports: &PortsView) -> Option<String> {
    let mut parts = Vec::new();
    if !ports.card.is_empty() {
        parts.push(format!("{} on the card", listed(&ports.card)));
    }
    if !ports.mainboard.is_empty() {
        parts.push(format!("{} of the mainboard", listed(&ports.mainboard)));
    }
    parts.extend(ports.root.map(|root| format!("{root} of the processor")));
    (!parts.is_empty()).then(|| parts.join(", then "))
}

fn iommu(card: &CardView) -> Vec<String> {
    if card.is_without_iommu() {
        let fix = "in no IOMMU group, so no guest can have it: switch the IOMMU on in the firmware (AMD-Vi, VT-d), and \
                    on Intel with intel_iommu=on on the kernel command line";
        return vec![fix.to_owned()];
    }
    let other = |driver: &Option<DriverName>| match driver {
        Some(driver) => format!(" ({driver})"),
        None => String::new(),
    };
    let others = card.group_others.iter();
    others.map(|one| format!("group {} also has {}{}", one.group, one.address, other(&one.driver))).collect()
}

fn health(card: &CardView) -> Vec<String> {
    let link = card.health.link.as_ref().map(|link| format!(", link {link}")).unwrap_or_default();
    let head = match card.health.state {
        HealthState::Answers => format!("answers{link}"),
        HealthState::Doubtful => format!("answers{link}, with this against it:"),
        HealthState::Dead => "does not work:".to_owned(),
        HealthState::Stuck => "hangs the kernel:".to_owned(),
        HealthState::NotAsked => "not asked: the kernel already hangs on it".to_owned(),
    };
    [head].into_iter().chain(card.health.evidence.iter().cloned()).collect()
}

/// What the kernel can do between two guests.
fn reset(functions: &[FunctionView], bus_reset: &BusResetView) -> String {
    let own: Vec<String> = functions
        .iter()
        .filter(|function| !function.reset_methods.is_empty())
        .map(|function| format!("{} by {}", function.address, function.reset_methods.join(", ")))
        .collect();
    let own = own.join("; ");
    let is_none = own.is_empty();
    match bus_reset {
        BusResetView::OnlyTheCard if is_none => "the whole bus, which has nothing but this card".to_owned(),
        BusResetView::OnlyTheCard => format!("{own}; or the whole bus"),
        BusResetView::Others(others) if is_none => {
            format!("none: its bus cannot be reset, as {} would be too", listed(others))
        }
        BusResetView::Others(others) => {
            format!("{own}; not the whole bus, as {} would be reset too", listed(others))
        }
        BusResetView::NoPort if is_none => "none: there is no port above it".to_owned(),
        BusResetView::Unknown if is_none => "none: the kernel no longer has it".to_owned(),
        BusResetView::NoPort | BusResetView::Unknown => own,
    }
}

fn family_rows(family: &FamilyView) -> Vec<String> {
    let mut rows = Vec::new();
    rows.extend(family.resets.as_ref().map(|text| format!("resets: {text}")));
    rows.extend(family.driver_reset.as_ref().map(|text| format!("its driver resets it by {text}")));
    match family.vendor_reset {
        VendorResetView::Unsupported => {}
        VendorResetView::NotLoaded => rows.push("vendor-reset knows it, but is not loaded".to_owned()),
        VendorResetView::Loaded => rows.push("vendor-reset knows it, and is loaded".to_owned()),
    }
    if family.host_driver == Robustness::Fragile {
        rows.push(
            "the host's driver may leave it in disorder after a guest: `return_to: vfio` avoids that"
                .to_owned(),
        );
    }
    rows.extend(family.fails.as_ref().map(|text| format!("fails: {text}")));
    rows.extend(family.note.as_ref().map(|text| format!("note: {text}")));
    rows
}

fn pictures(card: &CardView) -> Vec<String> {
    let drm_cards = card.drm_cards.iter().map(|drm| match drm.monitors.is_empty() {
        true => format!("{}: no monitor", drm.name),
        false => format!("{}: monitors on {}", drm.name, drm.monitors.join(", ")),
    });
    let boot = card.boot_display.then(|| "the firmware showed its picture on it".to_owned());
    drm_cards.chain(boot).collect()
}

fn users(users: &UsersView) -> Vec<String> {
    match users {
        UsersView::Known(processes) if processes.is_empty() => vec!["nobody".to_owned()],
        UsersView::Known(processes) => processes.clone(),
        UsersView::Unknown(reason) => vec![format!("not known: {reason}")],
        UsersView::OnlyRoot => vec!["not known: only root can see that".to_owned()],
    }
}

fn guest(guest: &GuestView) -> String {
    let then = guest.return_to.map(|then| format!("; return_to: {then}")).unwrap_or_default();
    format!("{}: {}, since {}{then}", guest.name, guest.phase, age(guest.since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(reset_methods: &[&str]) -> FunctionView {
        FunctionView {
            address: "0000:03:00.0".parse().unwrap(),
            model: "1002:73bf".parse().unwrap(),
            class: Some("VGA controller".to_owned()),
            driver: None,
            power_state: Some("D0".to_owned()),
            iommu_group: None,
            reset_methods: reset_methods.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn every_way_to_reset_a_card_is_told() {
        let (none, two) = ([function(&[])], [function(&["flr", "pm"])]);
        let others = || BusResetView::Others(vec!["0000:05:00.0".parse().unwrap()]);
        for (functions, bus_reset, words) in [
            (&none, BusResetView::OnlyTheCard, "the whole bus, which has nothing but this card"),
            (&two, BusResetView::OnlyTheCard, "0000:03:00.0 by flr, pm; or the whole bus"),
            (&none, others(), "none: its bus cannot be reset, as 0000:05:00.0 would be too"),
            (
                &two,
                others(),
                "0000:03:00.0 by flr, pm; not the whole bus, as 0000:05:00.0 would be reset too",
            ),
            (&none, BusResetView::NoPort, "none: there is no port above it"),
            (&two, BusResetView::NoPort, "0000:03:00.0 by flr, pm"),
            (&none, BusResetView::Unknown, "none: the kernel no longer has it"),
        ] {
            assert_eq!(reset(functions, &bus_reset), words);
        }
    }

    #[test]
    fn who_cannot_see_users_is_not_told_that_there_are_none() {
        assert_eq!(users(&UsersView::OnlyRoot), ["not known: only root can see that"]);
        assert_eq!(
            users(&UsersView::Unknown("it took too long".to_owned())),
            ["not known: it took too long"]
        );
        assert_eq!(users(&UsersView::Known(Vec::new())), ["nobody"]);
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        assert_eq!(wrapped("short  in  columns"), ["short  in  columns"]);
        let text = "word ".repeat(30);
        let lines = wrapped(text.trim_end());
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH - INDENT), "{lines:?}");
        assert!(lines[1].starts_with("  word"), "{lines:?}");
        let longer_than_a_line = "x".repeat(2 * WIDTH);
        assert_eq!(wrapped(&longer_than_a_line), [longer_than_a_line]);
    }
}
