//! What a function's registers say of its health (PCI Express base specification, chapter 7; `pci_regs.h`).
//!
//! Reading them wakes a sleeping function up and waits for it, at worst for a minute, so only a child does it. A
//! function that is off the bus reads as ones.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::pci::PciId;

/// `PCI_COMMAND` and `PCI_STATUS`, one after the other.
const COMMAND_AND_STATUS: u64 = 0x04;
/// Status: there is a list of capabilities.
const STATUS_CAP_LIST: u16 = 0x10;
const HEADER_TYPE: u64 = 0x0e;
/// Where the first capability is.
const CAPABILITY_LIST: u64 = 0x34;
/// The part that every function has (`PCI_STD_HEADER_SIZEOF`).
const HEADER_LENGTH: u64 = 64;
/// More capabilities than fit: the list is a loop (`PCI_FIND_CAP_TTL`).
const MOST_CAPABILITIES: usize = 48;
const CAP_ID_PM: u8 = 0x01;
/// Control and status of power management, in its capability.
const PM_CTRL: u64 = 4;
const CAP_ID_EXP: u8 = 0x10;
/// Flags, link capabilities and link status, in the capability of PCI Express.
const EXP_FLAGS: u64 = 0x02;
const EXP_LNKCAP: u64 = 0x0c;
const EXP_LNKSTA: u64 = 0x12;
/// The port says whether its link is up (`PCI_EXP_LNKCAP_DLLLARC`).
const LNKCAP_DLLLARC: u32 = 1 << 20;
/// It is up (`PCI_EXP_LNKSTA_DLLLA`).
const LNKSTA_DLLLA: u16 = 1 << 13;
/// Types of ports that lead away from the processor: root port, and a switch's port on that side.
const DOWNSTREAM_TYPES: [u16; 2] = [4, 6];

/// How fast the link to a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Generation of PCI Express, from 1.
    pub generation: u8,
    /// Lanes.
    pub width: u8,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let speed = match self.generation {
            1 => "2.5 GT/s",
            2 => "5 GT/s",
            3 => "8 GT/s",
            4 => "16 GT/s",
            5 => "32 GT/s",
            6 => "64 GT/s",
            _ => "unknown speed",
        };
        write!(f, "{speed} x{}", self.width)
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A port.
    Port,
    /// A function of this model.
    Function(PciId),
    /// A virtual function, whose model is ones in its own registers and known to the kernel from its physical function.
    VirtualFunction,
}

/// What the registers said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// All that was asked makes sense.
    Well(Option<Link>),
    /// So it does, but it is a port that reports its link as down. Only what is below it tells whether that is so: some
    /// ports, QEMU's among them, never report it as up.
    LinkDown(Option<Link>),
    /// Something does not: what, in words that follow the address.
    Dead(String),
}

/// Looks at a function through `read`, which fills a buffer from a place on and says how far.
pub(super) fn look(kind: Kind, read: impl Fn(u64, &mut [u8]) -> io::Result<usize>) -> io::Result<Said> {
    let registers = Registers { read };
    match registers.look(kind) {
        Ok((link, LinkReport::Down)) => Ok(Said::LinkDown(link)),
        Ok((link, LinkReport::UpOrNone)) => Ok(Said::Well(link)),
        Err(Silence::Dead(evidence)) => Ok(Said::Dead(evidence)),
        Err(Silence::Withheld) => Ok(Said::Well(None)),
        Err(Silence::Io(error)) => Err(error),
    }
}

/// What a port reports of the link below it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkReport {
    UpOrNone,
    Down,
}

/// Why nothing more is asked.
enum Silence {
    Dead(String),
    /// The kernel shows no more than the header to who is not root (`pci_read_config`).
    Withheld,
    Io(io::Error),
}

impl From<io::Error> for Silence {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn dead<T>(evidence: impl Into<String>) -> Result<T, Silence> {
    Err(Silence::Dead(evidence.into()))
}

struct Registers<R> {
    read: R,
}

impl<R: Fn(u64, &mut [u8]) -> io::Result<usize>> Registers<R> {
    fn bytes<const N: usize>(&self, offset: u64) -> Result<[u8; N], Silence> {
        let mut bytes = [0; N];
        match (self.read)(offset, &mut bytes)? {
            0 if offset >= HEADER_LENGTH => Err(Silence::Withheld),
            read if read == N => Ok(bytes),
            _ => dead(format!("config space ends before byte {}", offset + N as u64)),
        }
    }

    fn word(&self, offset: u64) -> Result<u16, Silence> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    /// Two words that are one question: the device is asked for four bytes at a time.
    fn two_words(&self, offset: u64) -> Result<[u16; 2], Silence> {
        let both = u32::from_le_bytes(self.bytes(offset)?);
        Ok([(both & 0xffff) as u16, (both >> 16) as u16])
    }

    fn look(&self, kind: Kind) -> Result<(Option<Link>, LinkReport), Silence> {
        let [vendor, device] = self.two_words(0)?;
        if kind != Kind::VirtualFunction && vendor == 0xffff {
            return dead("config space reads ff");
        }
        if let Kind::Function(expected) = kind {
            let id = PciId { vendor, device };
            if id != expected {
                return dead(format!("it says it is {id}, not {expected}"));
            }
        }
        let [command, status] = self.two_words(COMMAND_AND_STATUS)?;
        if command == 0xffff {
            return dead("its command register reads ff");
        }
        let [header] = self.bytes(HEADER_TYPE)?;
        let expected = if kind == Kind::Port { 1 } else { 0 };
        match header & 0x7f {
            0x7f => return dead("its header type reads 7f"),
            header if header != expected => {
                return dead(format!("its header type is {header:x}, not {expected}"));
            }
            _ => {}
        }
        if status & STATUS_CAP_LIST == 0 {
            return Ok((None, LinkReport::UpOrNone));
        }
        self.look_at_capabilities(kind)
    }

    fn look_at_capabilities(&self, kind: Kind) -> Result<(Option<Link>, LinkReport), Silence> {
        let [mut place] = self.bytes(CAPABILITY_LIST)?;
        let mut link = (None, LinkReport::UpOrNone);
        for _ in 0..MOST_CAPABILITIES {
            if place == 0xff {
                return dead("its list of capabilities reads ff");
            }
            // The lowest two bits have no meaning.
            place &= 0xfc;
            if place == 0 {
                return Ok(link);
            }
            if place < 0x40 {
                return dead(format!("its list of capabilities leads to {place:#04x}"));
            }
            let at = u64::from(place);
            let [id, next] = self.bytes(at)?;
            match id {
                0xff => return dead("its list of capabilities reads ff"),
                CAP_ID_PM if self.word(at + PM_CTRL)? == 0xffff => {
                    return dead("its power management reads ff");
                }
                CAP_ID_EXP => link = self.look_at_link(at, kind)?,
                _ => {}
            }
            place = next;
        }
        dead("its list of capabilities does not end")
    }

    fn look_at_link(&self, capability: u64, kind: Kind) -> Result<(Option<Link>, LinkReport), Silence> {
        let port_type = self.word(capability + EXP_FLAGS)? >> 4 & 0xf;
        let capabilities = u32::from_le_bytes(self.bytes(capability + EXP_LNKCAP)?);
        let status = self.word(capability + EXP_LNKSTA)?;
        let reports = capabilities & LNKCAP_DLLLARC != 0 && DOWNSTREAM_TYPES.contains(&port_type);
        let is_down = kind == Kind::Port && reports && status & LNKSTA_DLLLA == 0;
        let report = if is_down { LinkReport::Down } else { LinkReport::UpOrNone };
        let link = Link { generation: (status & 0xf) as u8, width: (status >> 4 & 0x3f) as u8 };
        // What sits in the processor itself has no link.
        Ok(((link.width > 0).then_some(link), report))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const NAVI: PciId = PciId { vendor: 0x1002, device: 0x73bf };

    /// A function with power management at 0x50 and PCI Express at 0x64, generation 4 with 16 lanes.
    fn endpoint() -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[..4].copy_from_slice(&[0x02, 0x10, 0xbf, 0x73]);
        bytes[4..8].copy_from_slice(&[0x07, 0x04, 0x10, 0x08]);
        bytes[0x0e] = 0x80;
        bytes[0x34] = 0x50;
        bytes[0x50..0x52].copy_from_slice(&[CAP_ID_PM, 0x64]);
        bytes[0x64..0x68].copy_from_slice(&[CAP_ID_EXP, 0x00, 0x12, 0x00]);
        bytes[0x76..0x78].copy_from_slice(&[0x04, 0x11]);
        bytes
    }

    /// A port whose link is up and that says so.
    fn port() -> Vec<u8> {
        let mut bytes = endpoint();
        bytes[0x0e] = 0x01;
        bytes[0x66] = 0x42;
        bytes[0x70..0x74].copy_from_slice(&[0x04, 0x0d, 0x70, 0x00]);
        bytes[0x77] |= 0x20;
        bytes
    }

    fn said(kind: Kind, bytes: &[u8]) -> Said {
        look(kind, |offset, buffer| bytes.get(offset as usize..).unwrap_or_default().read(buffer)).unwrap()
    }

    fn evidence(kind: Kind, bytes: &[u8]) -> String {
        match said(kind, bytes) {
            Said::Dead(evidence) => evidence,
            well => panic!("{well:?}"),
        }
    }

    #[test]
    fn one_that_is_well_tells_its_link() {
        let link = Link { generation: 4, width: 16 };
        assert_eq!(said(Kind::Function(NAVI), &endpoint()), Said::Well(Some(link)));
        assert_eq!(link.to_string(), "16 GT/s x16");
        assert_eq!(said(Kind::Port, &port()), Said::Well(Some(link)));
        let mut integrated = endpoint();
        integrated[0x76..0x78].fill(0);
        assert_eq!(said(Kind::Function(NAVI), &integrated), Said::Well(None));
        let mut plain = endpoint();
        plain[6] = 0;
        assert_eq!(said(Kind::Function(NAVI), &plain), Said::Well(None));
        let seen_without_root = &endpoint()[..64];
        assert_eq!(said(Kind::Function(NAVI), seen_without_root), Said::Well(None));
    }

    #[test]
    fn a_virtual_function_has_no_model_of_its_own() {
        let mut bytes = endpoint();
        bytes[..4].fill(0xff);
        assert_eq!(evidence(Kind::Function(NAVI), &bytes), "config space reads ff");
        assert!(matches!(said(Kind::VirtualFunction, &bytes), Said::Well(_)));
        bytes.fill(0xff);
        assert_eq!(evidence(Kind::VirtualFunction, &bytes), "its command register reads ff");
    }

    #[test]
    fn a_port_may_report_its_link_as_down() {
        let mut bytes = port();
        bytes[0x77] = 0x01;
        assert!(matches!(said(Kind::Port, &bytes), Said::LinkDown(Some(_))));
        // One that reports nothing of it.
        bytes[0x72] = 0;
        assert!(matches!(said(Kind::Port, &bytes), Said::Well(Some(_))));
    }

    #[test]
    fn each_defect_has_its_own_words() {
        let broken = |bytes: Vec<u8>, at: usize, with: &[u8]| {
            let mut bytes = bytes;
            bytes[at..at + with.len()].copy_from_slice(with);
            bytes
        };
        let function = Kind::Function(NAVI);
        for (kind, bytes, words) in [
            (function, vec![0xff; 256], "config space reads ff"),
            (function, broken(endpoint(), 2, &[0xaf]), "it says it is 1002:73af, not 1002:73bf"),
            (function, broken(endpoint(), 4, &[0xff, 0xff]), "its command register reads ff"),
            (function, broken(endpoint(), 0x0e, &[0xff]), "its header type reads 7f"),
            (function, port(), "its header type is 1, not 0"),
            (function, broken(endpoint(), 0x34, &[0xff]), "its list of capabilities reads ff"),
            (function, broken(endpoint(), 0x34, &[0x04]), "its list of capabilities leads to 0x04"),
            (function, broken(endpoint(), 0x50, &[0xff, 0xff]), "its list of capabilities reads ff"),
            (function, broken(endpoint(), 0x54, &[0xff, 0xff]), "its power management reads ff"),
            (function, broken(endpoint(), 0x65, &[0x50]), "its list of capabilities does not end"),
            (function, endpoint()[..6].to_vec(), "config space ends before byte 8"),
        ] {
            assert_eq!(evidence(kind, &bytes), words);
        }
    }
}
