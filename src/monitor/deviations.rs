//! Monitors that are known to differ from the standard.
//!
//! A deviation is taken without being asked for only where its source names a monitor as its EDID does. Most name what
//! is printed on the box, while many different monitors call themselves `LG ULTRAGEAR`: those are for people to choose.

use super::deviation::{Deviation, ExtraStep, FeatureControl, Reading, SourceAddress};
use super::named::NamedDeviation;
use super::selector::MonitorSelector;
use super::vcp::{VcpFeature, VcpValue};

/// A deviation that has a name.
#[derive(Clone, Copy, Debug)]
struct KnownDeviation {
    /// Its name.
    name: &'static str,
    control: FeatureControl,
    inputs: &'static [(&'static str, u16)],
    /// Names that the standard has a value for and these monitors another one, which is not known.
    not_known: &'static [&'static str],
}

/// The standard's way, as a constant.
const STANDARD: FeatureControl = FeatureControl {
    feature: VcpFeature::INPUT_SOURCE,
    source_address: SourceAddress::HOST,
    read_first: ExtraStep::Skip,
    save_settings: ExtraStep::Skip,
    reading: Reading::Reliable,
};

const KNOWN: [KnownDeviation; 9] = [
    KnownDeviation {
        name: "lg-f4",
        // LG monitors that ignore feature 0x60 but listen to 0xf4, as LG's own programs set it
        // 32QN650-B and 27UN850-W with these values; #626: the first write on a handle is ignored unless a read came
        // before it.
        // https://github.com/rockowitz/ddcutil/issues/100, .../626
        control: FeatureControl {
            feature: VcpFeature(0xf4),
            source_address: SourceAddress(0x50),
            read_first: ExtraStep::Make,
            reading: Reading::WriteOnly,
            ..STANDARD
        },
        inputs: &[("hdmi-1", 0x90), ("hdmi-2", 0x91), ("dp-1", 0xd0), ("dp-2", 0xd1), ("usb-c", 0xd1)],
        not_known: &[],
    },
    KnownDeviation {
        name: "save-settings",
        // monitors that go back to the old input unless they are told to save their settings, such as some iiyama
        // https://github.com/rockowitz/ddcutil/issues/136, .../236
        control: FeatureControl { save_settings: ExtraStep::Make, ..STANDARD },
        inputs: &[],
        not_known: &[],
    },
    KnownDeviation {
        name: "samsung",
        // Samsung monitors with numbers of their own for HDMI, which may also tell another input than is shown. Those of
        // DisplayPort differ from model to model: 0x0f, 0x03, 0x09 (see below), so none is claimed
        // https://github.com/rockowitz/ddcutil/issues/343
        control: FeatureControl { reading: Reading::Unreliable, ..STANDARD },
        inputs: &[("hdmi-1", 0x05), ("hdmi-2", 0x06)],
        not_known: &["dp-1", "dp-2"],
    },
    KnownDeviation {
        name: "samsung-u32h750",
        // ddcutil's author of his own monitor
        // https://github.com/rockowitz/ddcutil/issues/343, .../226
        control: FeatureControl { reading: Reading::Unreliable, ..STANDARD },
        inputs: &[("hdmi-1", 0x05), ("hdmi-2", 0x06), ("dp-1", 0x0f)],
        not_known: &["dp-2"],
    },
    KnownDeviation {
        name: "samsung-g95nc",
        // Odyssey Neo G9, 57 inches: HDMI-3 cannot be reached, and the same is read whatever input is shown
        // https://github.com/fiddyschmitt/SimpleKVM/issues/28, https://github.com/rockowitz/ddcutil/issues/397
        control: FeatureControl { reading: Reading::Unreliable, ..STANDARD },
        inputs: &[("hdmi-1", 0x05), ("hdmi-2", 0x06), ("dp-1", 0x0f)],
        not_known: &["dp-2"],
    },
    KnownDeviation {
        name: "samsung-c49rg9",
        // CRG9, C49RG90 and C49RG94: what is read makes no sense
        // https://github.com/rockowitz/ddcutil/issues/226, https://github.com/ddccontrol/ddccontrol-db/pull/196
        control: FeatureControl { reading: Reading::WriteOnly, ..STANDARD },
        inputs: &[("hdmi-1", 0x06), ("dp-1", 0x09), ("dp-2", 0x03)],
        not_known: &["hdmi-2"],
    },
    KnownDeviation {
        name: "samsung-odyssey-g7",
        // https://github.com/rockowitz/ddcutil/issues/388; what its EDID says is not told there
        control: FeatureControl { reading: Reading::Unreliable, ..STANDARD },
        inputs: &[("hdmi-1", 0x06), ("dp-1", 0x03), ("dp-2", 0x09)],
        not_known: &["hdmi-2"],
    },
    KnownDeviation {
        name: "hp-z27n",
        // the host's input is read whatever input is shown
        // https://github.com/rockowitz/ddcutil/issues/549
        control: FeatureControl { reading: Reading::Unreliable, ..STANDARD },
        inputs: &[],
        not_known: &[],
    },
    KnownDeviation {
        name: "dell-swap",
        // Dell monitors that show two inputs side by side: swaps them, and tells nothing
        // https://github.com/rockowitz/ddcutil/issues/268, .../328
        control: FeatureControl { feature: VcpFeature(0xe5), reading: Reading::WriteOnly, ..STANDARD },
        inputs: &[("swap", 0xf000)],
        not_known: &[],
    },
];

/// Maker and model as the EDID has them, and the name of the deviation.
const AUTOMATIC: [(&str, &str, &str); 4] = [
    // ddcutil's author of his own monitor, in #343
    ("SAM", "U32H750", "samsung-u32h750"),
    // hyprctl and BetterDisplay of several owners, and ddccontrol-db's SAM7476
    ("SAM", "Odyssey G95NC", "samsung-g95nc"),
    // SAM0F99 and SAM0F9C of ddccontrol-db and of linux-hardware.org
    ("SAM", "C49RG9x", "samsung-c49rg9"),
    // the monitors.xml of GNOME; a Z27n G2 calls itself so
    ("HWP", "HP Z27n", "hp-z27n"),
];

impl KnownDeviation {
    fn named(&self) -> Option<NamedDeviation> {
        let inputs =
            self.inputs.iter().filter_map(|(name, value)| Some((name.parse().ok()?, VcpValue(*value))));
        let automatic = AUTOMATIC.iter().filter(|(.., name)| *name == self.name);
        let monitors = automatic.filter_map(|(manufacturer, model, _)| {
            Some(MonitorSelector {
                manufacturer: Some(manufacturer.parse().ok()?),
                model: Some((*model).to_owned()),
                ..MonitorSelector::default()
            })
        });
        Some(NamedDeviation {
            name: self.name.parse().ok()?,
            monitors: monitors.collect(),
            deviation: Deviation {
                control: self.control,
                inputs: inputs.collect(),
                not_known: self.not_known.iter().filter_map(|name| name.parse().ok()).collect(),
            },
        })
    }
}

/// What is known without the host's file.
#[must_use]
pub fn built_in_deviations() -> Vec<NamedDeviation> {
    KNOWN.iter().filter_map(KnownDeviation::named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{EdidIdentity, InputName, MonitorPlace};

    #[test]
    fn names_are_unique_and_lead_somewhere() {
        let built_in = built_in_deviations();
        assert_eq!(built_in.len(), KNOWN.len());
        for (known, named) in KNOWN.iter().zip(&built_in) {
            assert_eq!(
                named.deviation.inputs.len(),
                known.inputs.len(),
                "{}: an input is no name",
                known.name
            );
            assert_eq!(named.deviation.not_known.len(), known.not_known.len(), "{}", known.name);
            assert_eq!(KNOWN.iter().filter(|other| other.name == known.name).count(), 1);
        }
        let automatic: usize = built_in.iter().map(|named| named.monitors.len()).sum();
        assert_eq!(automatic, AUTOMATIC.len());
    }

    #[test]
    fn only_monitors_known_by_their_own_name_deviate_by_themselves() {
        let identity = |maker: &str, model: &str| EdidIdentity {
            manufacturer: maker.parse().unwrap(),
            product: 1,
            serial_number: 0,
            model: Some(model.to_owned()),
            serial: None,
        };
        let place = MonitorPlace { card: None, connector: None, adapter: "adapter".to_owned() };
        let built_in = built_in_deviations();
        let found = |identity: &EdidIdentity| {
            built_in.iter().find(|named| named.applies_to(identity, &place)).map(|named| &named.deviation)
        };
        let samsung = found(&identity("SAM", "U32H750")).unwrap();
        let hdmi: InputName = "hdmi-1".parse().unwrap();
        assert_eq!(samsung.value_of(&hdmi), Some(VcpValue(0x05)));
        assert_eq!(samsung.name_of(VcpValue(0x05)).as_deref(), Some("hdmi-1"));
        assert_eq!(samsung.name_of(VcpValue(0x11)), None, "its number for HDMI is another one");
        assert_eq!(samsung.name_of(VcpValue(0x10)), None, "no input of it is known to have this number");
        let crg9 = found(&identity("SAM", "C49RG9x")).unwrap();
        let g95nc = found(&identity("SAM", "Odyssey G95NC")).unwrap();
        let dp: InputName = "dp-1".parse().unwrap();
        assert_eq!((crg9.value_of(&dp), g95nc.value_of(&dp)), (Some(VcpValue(0x09)), Some(VcpValue(0x0f))));
        assert_eq!(found(&identity("HWP", "HP Z27n")).unwrap().control.reading, Reading::Unreliable);
        for other in [
            identity("SAM", "U32H751"),
            identity("GSM", "U32H750"),
            identity("GSM", "LG ULTRAGEAR"),
            identity("GSM", "45GX950A"),
            identity("SAM", "LC32G7xT"),
            identity("SAM", "Odyssey G7"),
            identity("HWP", "HP Z27n G2"),
        ] {
            assert_eq!(found(&other), None);
        }
    }

    #[test]
    fn where_models_of_a_maker_differ_no_value_is_claimed() {
        let built_in = built_in_deviations();
        let named = |name: &str| {
            let named = built_in.iter().find(|named| named.name.as_str() == name).unwrap();
            named.deviation.clone()
        };
        let input = |name: &str| -> InputName { name.parse().unwrap() };
        let samsung = named("samsung");
        assert_eq!(samsung.value_of(&input("hdmi-1")), Some(VcpValue(0x05)));
        for dp in ["dp-1", "dp-2"] {
            assert_eq!(samsung.value_of(&input(dp)), None, "{dp}");
        }
        let g7 = named("samsung-odyssey-g7");
        for (name, value) in [("hdmi-1", 0x06), ("dp-1", 0x03), ("dp-2", 0x09)] {
            assert_eq!(g7.value_of(&input(name)), Some(VcpValue(value)));
            assert_eq!(g7.name_of(VcpValue(value)).as_deref(), Some(name));
        }
        assert_eq!(g7.value_of(&input("vga-1")), Some(VcpValue(0x01)));
    }

    #[test]
    fn values_of_a_makers_feature_have_no_standard_names() {
        let lg = &built_in_deviations()[0].deviation;
        assert_eq!(lg.name_of(VcpValue(0x0f)), None);
        assert_eq!(lg.name_of(VcpValue(0xd1)).as_deref(), Some("dp-2"));
    }
}
