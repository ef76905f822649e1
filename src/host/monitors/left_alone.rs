//! Adapters that lead to no monitor. Nothing is said on them: a write could reach a memory module, a voltage regulator
//! or the card's lights.

/// Adapters whose name begins so, and what is on them.
struct LeftAlone {
    beginning: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "for who reads the table, and for the test"))]
    on_it: &'static str,
}

const fn row(beginning: &'static str, on_it: &'static str) -> LeftAlone {
    LeftAlone { beginning, on_it }
}

/// Those that ddcutil leaves alone (`ignorable_i2c_device_sysfs_name` in its `src/sysfs/sysfs_base.c`), and further ones.
const LEFT_ALONE: [LeftAlone; 9] = [
    // drivers/i2c/busses/i2c-piix4.c, i2c-i801.c
    row("SMBus", "memory modules and voltage regulators"),
    // drivers/i2c/busses/i2c-designware-*.c; on newer cards of Intel's and AMD's too (drivers/gpu/drm/xe/xe_i2c.c)
    row("Synopsys DesignWare", "touchpads, sensors, a card's own controllers"),
    // drivers/gpu/drm/amd/pm/swsmu: "AMDGPU SMU 0"; a probe hangs an RX 6000
    row("AMDGPU SMU", "the card's power controller"),
    // drivers/gpu/drm/amd/display/amdgpu_dm/amdgpu_dm.c, from Linux 6.15
    row("AMDGPU DM i2c OEM bus", "the card's lights"),
    // drivers/i2c/busses/i2c-nvidia-gpu.c
    row("NVIDIA GPU I2C adapter", "the controller of the card's USB-C port"),
    // drivers/i2c/busses/i2c-powermac.c: a probe of the first hangs a G5
    row("smu", "the power controller of a Macintosh"),
    row("mac-io", "sensors of a Macintosh"),
    row("u4", "the memory controller of a Macintosh"),
    // drivers/gpu/drm/vc4 of a Raspberry Pi
    row("soc:i2cdsi", "a Raspberry Pi's own panel"),
];

/// How nouveau names the buses of connectors (`nvkm_i2c_bus_ctor` and `nvkm_i2c_aux_ctor` in
/// drivers/gpu/drm/nouveau/nvkm/subdev/i2c); any other of its adapters is an internal one. ddcutil has the same rule.
const NOUVEAU: &str = "nouveau";
const OF_NOUVEAUS_CONNECTORS: &str = "nvkm-";

/// Whether an adapter is left alone: its name, and the driver of its graphics card.
pub(super) fn is_left_alone(name: &str, driver: Option<&str>) -> bool {
    LEFT_ALONE.iter().any(|row| name.starts_with(row.beginning))
        || (driver == Some(NOUVEAU) && !name.starts_with(OF_NOUVEAUS_CONNECTORS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_of_use() {
        for (at, row) in LEFT_ALONE.iter().enumerate() {
            assert!(is_left_alone(row.beginning, None) && !row.on_it.is_empty());
            let others = LEFT_ALONE.iter().enumerate().filter(|(other, _)| *other != at);
            for (_, other) in others {
                assert!(!row.beginning.starts_with(other.beginning), "{} is said twice", row.beginning);
            }
        }
    }

    #[test]
    fn names_as_kernels_have_them() {
        for (name, driver, left_alone) in [
            ("SMBus PIIX4 adapter port 2 at 0b00", None, true),
            ("SMBus I801 adapter at efa0", None, true),
            ("Synopsys DesignWare I2C adapter", Some("amdgpu"), true),
            ("AMDGPU SMU 0", Some("amdgpu"), true),
            ("AMDGPU SMU 1", Some("amdgpu"), true),
            ("AMDGPU DM i2c OEM bus", Some("amdgpu"), true),
            ("AMDGPU DM i2c hw bus 0", Some("amdgpu"), false),
            ("AMDGPU DM aux hw bus 1", Some("amdgpu"), false),
            ("NVIDIA GPU I2C adapter", Some("nvidia-gpu"), true),
            ("NVIDIA i2c adapter 3 at 1:00.0", Some("nvidia"), false),
            ("nvkm-0000:01:00.0-bus-0002", Some("nouveau"), false),
            ("nvkm-0000:01:00.0-aux-0007", Some("nouveau"), false),
            ("sor-0002-0f42", Some("nouveau"), true),
            ("i915 gmbus dpb", Some("i915"), false),
            ("mga i2c", Some("mgag200"), false),
            ("DPMST", Some("amdgpu"), false),
            ("smu", None, true),
            ("mac-io 0", None, true),
            ("soc:i2cdsi", None, true),
            ("vh_ddc 0", Some("bochs-drm"), false),
        ] {
            assert_eq!(is_left_alone(name, driver), left_alone, "{name}");
        }
    }
}
