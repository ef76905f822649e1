//! What a guest's own reboot does to its card, and whether its XML fits.

use std::fs;

use vfio_hook::gpu::GuestReboot;
use vfio_hook::lifecycle::HOST_FILE;

use super::{CARD, machine, player};

#[test]
fn the_xml_has_to_do_what_the_file_says() {
    let mut told = Vec::new();
    for family in ["fragile", "fine"] {
        let machine = machine();
        if family == "fine" {
            let path = machine.path(HOST_FILE);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "gpu_families: {mine: {ids: \"1002:73bf\", reboot: fine}}\n").unwrap();
        }
        let before = machine.files();
        for asked in [None, Some(GuestReboot::Refuse), Some(GuestReboot::Restart), Some(GuestReboot::Allow)] {
            for action in ["destroy", "restart", "preserve", "rename-restart"] {
                let yaml = asked
                    .map_or_else(|| "gpu: {}".to_owned(), |asked| format!("gpu: {{guest_reboot: {asked}}}"));
                let xml = format!("<memory unit='MiB'>512</memory><on_reboot>{action}</on_reboot>");
                let life = player(1, &CARD, &xml, &yaml);
                let by_family = if family == "fine" { GuestReboot::Allow } else { GuestReboot::Restart };
                let wanted = asked.unwrap_or(by_family);
                let fits = wanted == GuestReboot::Allow || action == "destroy";
                let context = format!("{family}, {yaml}, {action}");
                match machine.prepare(&life) {
                    Ok(_) => {
                        assert!(fits, "{context}");
                        let lease = machine.record().unwrap().leases[&life.guest.uuid].clone();
                        assert_eq!(
                            lease.guest_reboot,
                            Some(wanted).filter(|wanted| *wanted != GuestReboot::Allow),
                            "{context}"
                        );
                        machine.release(&life).unwrap();
                    }
                    Err(error) => {
                        assert!(!fits, "{context}: {error}");
                        told.push(format!("{context}\n{error}"));
                    }
                }
                machine.assert_is(&before, &context);
            }
        }
    }
    insta::assert_snapshot!("reboots", told.join("\n\n"));
}
