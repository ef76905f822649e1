//! A monitor as lines of a manifest: what sysfs shows of it, and the state machine behind its bus.

use std::fmt::Write;

use super::i2c::digits;
use crate::host::i2c::I2cBus;
use crate::monitor::{ConnectorName, EdidIdentity, VcpValue, make_edid};
use crate::pci::PciAddress;

/// A monitor to be laid out on a host in a folder. The host also needs `/sys/module/i2c_dev/initstate = live`.
#[derive(Clone, Debug)]
pub struct SimulatedMonitor {
    /// The identity that its EDID gives.
    pub identity: EdidIdentity,
    /// The graphics card.
    pub card: PciAddress,
    /// The connector; none for an adapter that belongs to none, as NVIDIA's driver has them.
    pub connector: Option<ConnectorName>,
    /// The bus.
    pub bus: I2cBus,
    /// The adapter's name.
    pub adapter: String,
    /// The value of feature 0x60.
    pub input: VcpValue,
}

impl SimulatedMonitor {
    /// An LG on a connector of an AMD card, on a bus: `("0000:03:00.0", "DP-1", 7)`.
    ///
    /// # Panics
    /// A text is no address or no connector's name.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test's own constants")]
    pub fn lg(card: &str, connector: &str, bus: u32) -> Self {
        Self {
            identity: EdidIdentity {
                manufacturer: "GSM".parse().expect("three letters"),
                product: 0x5bbf,
                serial_number: 91_347,
                model: Some("LG ULTRAGEAR".to_owned()),
                serial: Some("104NTAB1X234".to_owned()),
            },
            card: card.parse().expect("a PCI address"),
            connector: Some(connector.parse().expect("a connector")),
            bus: I2cBus(bus),
            adapter: format!("AMDGPU DM aux hw bus {bus}"),
            input: VcpValue(0x0f),
        }
    }

    /// The lines of a manifest.
    #[must_use]
    pub fn manifest(&self) -> String {
        let Self { card, bus, adapter, input, .. } = self;
        let edid = digits(&make_edid(&self.identity));
        let device = format!("devices/pci0000:00/{card}");
        let mut text = format!(
            "/sys/bus/pci/devices/{card}/class = 0x030000\n\
             /sys/{device}/{bus}/name = {adapter}\n\
             /sys/bus/i2c/devices/{bus} -> ../../../{device}/{bus}\n\
             /simulated/i2c/{bus}/edid = {edid}\n\
             /simulated/i2c/{bus}/features/0x60 = {input}\n"
        );
        if let Some(connector) = &self.connector {
            let name = format!("card{}-{connector}", card.bus());
            let folder = format!("{device}/drm/card{}/{name}", card.bus());
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "/sys/{folder}/status = connected\n\
                 /sys/{folder}/edid = {edid}\n\
                 /sys/{folder}/ddc -> ../../../{bus}\n\
                 /sys/class/drm/{name} -> ../../{folder}\n"
            );
        }
        text
    }
}
