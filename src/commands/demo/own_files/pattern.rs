//! Functions of the manifest that others are made after.

use crate::pci::PciAddress;

/// Where Intel's processors have their graphics.
pub(super) const INTELS: &str = "0000:00:02.0";

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Graphics,
    Drive,
    Network,
    Usb,
    /// Anything: nobody gets it.
    Required,
}

/// A function of the manifest, and the port above it.
pub(super) struct Pattern {
    pub(super) function: &'static str,
    pub(super) port: &'static str,
    pub(super) group: &'static str,
    /// Its numbers, and those of what is made after it: vendor, device and class as `config`, `modalias` and their own
    /// files have them, and the driver.
    pub(super) numbers: &'static [(&'static str, &'static str)],
    pub(super) driver: &'static str,
    /// What its driver takes.
    takes: &'static str,
}

const GRAPHICS: Pattern = Pattern {
    function: "0000:0e:00.0",
    port: "0000:00:08.1",
    group: "iommu_groups/28",
    numbers: &[],
    driver: "amdgpu",
    takes: "",
};

/// The processor's graphics, made a card of NVIDIA's: what a reboot of the guest does to it is no question.
static NVIDIA: Pattern = Pattern {
    numbers: &[
        ("vendor = 0x1002", "vendor = 0x10de"),
        ("device = 0x164e", "device = 0x2684"),
        ("v00001002d0000164E", "v000010DEd00002684"),
        ("config = 02104e16", "config = de108426"),
        ("boot_vga = 1", "boot_vga = 0"),
        ("drivers/amdgpu", "drivers/nvidia"),
    ],
    driver: "nvidia",
    takes: "10de:2684",
    ..GRAPHICS
};

/// The same, made Intel's.
static INTEL: Pattern = Pattern {
    numbers: &[
        ("vendor = 0x1002", "vendor = 0x8086"),
        ("device = 0x164e", "device = 0xa780"),
        ("v00001002d0000164E", "v00008086d0000A780"),
        ("config = 02104e16", "config = 868080a7"),
        ("boot_vga = 1", "boot_vga = 0"),
        ("drivers/amdgpu", "drivers/i915"),
    ],
    driver: "i915",
    takes: "8086:a780",
    ..GRAPHICS
};

static SOUND: Pattern = Pattern {
    function: "0000:0e:00.1",
    port: "0000:00:08.1",
    group: "iommu_groups/29",
    numbers: &[],
    driver: "snd_hda_intel",
    takes: "class 0403",
};

const CONTROLLER: Pattern = Pattern {
    function: "0000:0f:00.3",
    port: "0000:00:08.3",
    group: "iommu_groups/33",
    numbers: &[],
    driver: "xhci_hcd",
    takes: "class 0c03",
};

static USB: Pattern = CONTROLLER;

static DRIVE: Pattern = Pattern {
    numbers: &[
        ("vendor = 0x1022", "vendor = 0x144d"),
        ("device = 0x15b7", "device = 0xa80a"),
        ("class = 0x0c0330", "class = 0x010802"),
        ("v00001022d000015B7", "v0000144Dd0000A80A"),
        ("bc0Csc03i30", "bc01sc08i02"),
        ("config = 2210b71507041000c130030c", "config = 4d140aa807041000c1020801"),
        ("drivers/xhci_hcd", "drivers/nvme"),
    ],
    driver: "nvme",
    takes: "class 0108",
    ..CONTROLLER
};

static NETWORK: Pattern = Pattern {
    numbers: &[
        ("vendor = 0x1022", "vendor = 0x8086"),
        ("device = 0x15b7", "device = 0x1521"),
        ("class = 0x0c0330", "class = 0x020000"),
        ("v00001022d000015B7", "v00008086d00001521"),
        ("bc0Csc03i30", "bc02sc00i00"),
        ("config = 2210b71507041000c130030c", "config = 8680211507041000c1000002"),
        ("drivers/xhci_hcd", "drivers/igb"),
    ],
    driver: "igb",
    takes: "class 0200",
    ..CONTROLLER
};

impl Kind {
    /// What a function of such a device is made after: the first one that there is, and others.
    pub(super) fn pattern(self, index: usize, function: PciAddress) -> &'static Pattern {
        match (self, index, function.function()) {
            (Self::Graphics, 0, _) if function.to_string() == INTELS => &INTEL,
            (Self::Graphics, 0, _) => &NVIDIA,
            (Self::Graphics, _, 1) => &SOUND,
            (Self::Drive, ..) => &DRIVE,
            (Self::Network, ..) => &NETWORK,
            (Self::Graphics | Self::Usb | Self::Required, ..) => &USB,
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Graphics => "a graphics card",
            Self::Drive => "an NVMe drive",
            Self::Network => "a network card",
            Self::Usb | Self::Required => "a USB controller",
        }
    }
}

impl Pattern {
    /// Its driver, as lines of a manifest.
    pub(super) fn driver_lines(&self) -> String {
        let Self { driver, takes, .. } = self;
        format!(
            "/sys/bus/pci/drivers/{driver}/bind =\n/sys/bus/pci/drivers/{driver}/unbind =\n\
             /simulated/pci/drivers/{driver} = {takes}"
        )
    }
}
