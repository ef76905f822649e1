//! What a guest gives to QEMU past libvirt: `<qemu:commandline>`.

use super::error::GuestError;
use super::hostdev::{HostdevPlace, Managed, PciHostdev};
use super::xml::Element;
use crate::pci::PciAddress;

/// The namespace of `<qemu:commandline>` (`docs/drvqemu.rst` of libvirt).
pub(super) const NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// The names that QEMU has for the device (`hw/vfio/pci.c`).
const VFIO_PCI: [&str; 2] = ["vfio-pci", "vfio-pci-nohotplug"];

/// The host's PCI devices that an argument `-device vfio-pci,host=…` hands over. Any other argument, and one that QEMU
/// would not take, is passed over.
pub(super) fn vfio_devices(domain: &Element<'_>) -> Result<Vec<PciHostdev>, GuestError> {
    let lists = domain.children_in(NAMESPACE, "commandline");
    let arguments = lists.flat_map(|list| list.children_in(NAMESPACE, "arg").collect::<Vec<_>>());
    let values: Vec<&str> =
        arguments.map(|argument| argument.attribute("value").unwrap_or_default()).collect();
    let devices = values.windows(2).filter_map(|pair| match pair {
        ["-device" | "--device", device] => host_device(device),
        _ => None,
    });
    let place = HostdevPlace::QemuArgument;
    Ok(devices.map(|address| PciHostdev { address, managed: Managed::No, place }).collect())
}

fn host_device(device: &str) -> Option<PciAddress> {
    let options = if device.trim_start().starts_with('{') { of_json(device)? } else { of_text(device) };
    let option =
        |name: &str| options.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if !VFIO_PCI.contains(&option("driver")?) {
        return None;
    }
    match option("host") {
        Some(host) => address(host),
        None => option("sysfsdev")?.rsplit('/').find(|name| !name.is_empty())?.parse().ok(),
    }
}

/// `{"driver": "vfio-pci", "host": "0000:03:00.0"}`; what is no text is none of the options that count here.
fn of_json(device: &str) -> Option<Vec<(String, String)>> {
    let options: serde_json::Map<String, serde_json::Value> = serde_json::from_str(device).ok()?;
    let texts = options.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())));
    Some(texts.collect())
}

/// `vfio-pci,host=03:00.0,x-vga=on`: the first option may leave out `driver=`, and `,,` is a comma in a value.
fn of_text(device: &str) -> Vec<(String, String)> {
    const COMMA: &str = "\0";
    let text = device.replace(",,", COMMA);
    let option = |(number, part): (usize, &str)| {
        let (key, value) = match part.split_once('=') {
            Some(pair) => pair,
            None if number == 0 => ("driver", part),
            None => (part, "on"),
        };
        (key.to_owned(), value.replace(COMMA, ","))
    };
    text.split(',').enumerate().map(option).collect()
}

/// `[DOMAIN:]BUS:SLOT.FUNCTION` in hexadecimal digits, as many as there are (`set_pci_host_devaddr` in QEMU's
/// `hw/core/qdev-properties-system.c`).
fn address(text: &str) -> Option<PciAddress> {
    let (slot, function) = text.rsplit_once('.')?;
    let mut parts = slot.rsplit(':');
    let number = |digits: &str| {
        let is_plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let (slot, bus) = (number(parts.next()?)?, number(parts.next()?)?);
    let domain = parts.next().map_or(Some(0), number)?;
    let part = |number: u32| u8::try_from(number).ok();
    match parts.next() {
        None => PciAddress::new(domain, part(bus)?, part(slot)?, part(number(function)?)?),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Guest;

    fn devices(arguments: &[&str]) -> Vec<String> {
        let arguments: String = arguments
            .iter()
            .map(|value| format!("<q:arg value='{}'/>", value.replace('&', "&amp;")))
            .collect();
        let xml = format!(
            "<domain xmlns:q='{NAMESPACE}'><name>a</name><uuid>c0ffee00-1111-4222-8333-444455556666</uuid>\
             <memory>1</memory><q:commandline>{arguments}</q:commandline></domain>"
        );
        let guest = Guest::parse(xml.as_bytes()).unwrap();
        guest.pci_hostdevs.iter().map(|device| device.address.to_string()).collect()
    }

    #[test]
    fn finds_the_devices_in_every_form() {
        for (value, address) in [
            ("vfio-pci,host=03:00.0,x-vga=on", "0000:03:00.0"),
            ("vfio-pci,id=a,,b,host=0000:0b:00.1,multifunction=on", "0000:0b:00.1"),
            ("driver=vfio-pci,host=3:0.0", "0000:03:00.0"),
            ("vfio-pci-nohotplug,host=10000:e1:1f.7", "10000:e1:1f.7"),
            ("vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:03:00.0/", "0000:03:00.0"),
            (r#"{"driver": "vfio-pci", "host": "0000:03:00.0", "multifunction": true}"#, "0000:03:00.0"),
            (r#" {"host":"03:00.1","driver":"vfio-pci"}"#, "0000:03:00.1"),
        ] {
            assert_eq!(devices(&["-device", value]), [address], "{value}");
        }
        assert_eq!(
            devices(&[
                "-device",
                "vfio-pci,host=01:00.0",
                "--device",
                "vfio-pci,host=01:00.1",
                "-cpu",
                "host"
            ]),
            ["0000:01:00.0", "0000:01:00.1"]
        );
    }

    #[test]
    fn passes_over_what_is_no_such_device() {
        for arguments in [
            &["-device"][..],
            &["vfio-pci,host=03:00.0"],
            &["-device", "ivshmem-plain,memdev=vfio-pci,host=03:00.0"],
            &["-device", "vfio-pci"],
            &["-device", "vfio-pci,host=03:00"],
            &["-device", "vfio-pci,host=03:20.0"],
            &["-device", "vfio-pci,host=1:2:03:00.0"],
            &["-device", "vfio-pci,host=+3:00.0"],
            &["-device", "vfio-pci,sysfsdev=/sys/bus/mdev/devices/c0ffee00-1111-4222-8333-444455556666"],
            &["-device", r#"{"driver": "vfio-pci", "host": 3}"#],
            &["-device", r#"{"driver": "vfio-pci", "host":"#],
            &["-set", "device.hostdev0.x-pci-vendor-id=0x10de"],
            &["-set", "device.hostdev0.host=03:00.0"],
        ] {
            assert_eq!(devices(arguments), [] as [String; 0], "{arguments:?}");
        }
    }
}
