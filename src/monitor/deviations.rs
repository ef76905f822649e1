//! Monitors that are known to differ from the standard.
//!
//! A deviation is taken without being asked for only where its source names a monitor as its EDID does. Most name what
//! is printed on the box, while many different monitors call themselves `LG ULTRAGEAR`: those are for people to choose.

use super::deviation::{Deviation, ExtraStep, FeatureControl, Reading, SourceAddress};
use super::identity::EdidIdentity;
use super::vcp::{VcpFeature, VcpValue};

/// A deviation that has a name.
#[derive(Clone, Copy, Debug)]
pub struct KnownDeviation {
    /// Its name.
    pub name: &'static str,
    /// What it is about, for people.
    pub about: &'static str,
    /// Where it was seen.
    pub source: &'static str,
    control: FeatureControl,
    inputs: &'static [(&'static str, u16)],
}

/// The standard's way, as a constant.
const STANDARD: FeatureControl = FeatureControl {
    feature: VcpFeature::INPUT_SOURCE,
    source_address: SourceAddress::HOST,
    read_first: ExtraStep::Skip,
    save_settings: ExtraStep::Skip,
    reading: Reading::Reliable,
};

const KNOWN: [KnownDeviation; 4] = [
    KnownDeviation {
        name: "lg-f4",
        about: "LG monitors that ignore feature 0x60 but listen to 0xf4, as LG's own programs set it",
        // 32QN650-B and 27UN850-W with these values; #626: the first write on a handle is ignored unless a read came
        // before it.
        source: "https://github.com/rockowitz/ddcutil/issues/100, .../626",
        control: FeatureControl {
            feature: VcpFeature(0xf4),
            source_address: SourceAddress(0x50),
            read_first: ExtraStep::Make,
            reading: Reading::WriteOnly,
            ..STANDARD
        },
        inputs: &[("hdmi-1", 0x90), ("hdmi-2", 0x91), ("dp-1", 0xd0), ("dp-2", 0xd1), ("usb-c", 0xd1)],
    },
    KnownDeviation {
        name: "save-settings",
        about: "monitors that go back to the old input unless they are told to save their settings, such as some iiyama",
        source: "https://github.com/rockowitz/ddcutil/issues/136, .../236",
        control: FeatureControl { save_settings: ExtraStep::Make, ..STANDARD },
        inputs: &[],
    },
    KnownDeviation {
        name: "samsung",
        about: "Samsung monitors with numbers of their own for HDMI, which may also tell another input than is shown",
        source: "https://github.com/rockowitz/ddcutil/issues/343",
        control: FeatureControl { reading: Reading::Unreliable, ..STANDARD },
        inputs: &[("hdmi-1", 0x05), ("hdmi-2", 0x06), ("dp-1", 0x0f)],
    },
    KnownDeviation {
        name: "dell-swap",
        about: "Dell monitors that show two inputs side by side: swaps them, and tells nothing",
        source: "https://github.com/rockowitz/ddcutil/issues/268, .../328",
        control: FeatureControl { feature: VcpFeature(0xe5), reading: Reading::WriteOnly, ..STANDARD },
        inputs: &[("swap", 0xf000)],
    },
];

/// Maker and model as the EDID has them, and the name of the deviation.
const AUTOMATIC: [(&str, &str, &str); 1] = [
    // ddcutil's author of his own monitor, in #343.
    ("SAM", "U32H750", "samsung"),
];

impl KnownDeviation {
    /// What it changes.
    #[must_use]
    pub fn deviation(&self) -> Deviation {
        let inputs =
            self.inputs.iter().filter_map(|(name, value)| Some((name.parse().ok()?, VcpValue(*value))));
        Deviation { control: self.control, inputs: inputs.collect() }
    }
}

/// All that have a name.
#[must_use]
pub fn known_deviations() -> &'static [KnownDeviation] {
    &KNOWN
}

/// The deviation of this name.
#[must_use]
pub fn deviation_named(name: &str) -> Option<Deviation> {
    KNOWN.iter().find(|known| known.name == name).map(KnownDeviation::deviation)
}

/// How a monitor differs from the standard, as far as that is known without being told. The one place to ask.
#[must_use]
pub fn deviation_of(identity: &EdidIdentity) -> Deviation {
    let maker = identity.manufacturer.to_string();
    let known = AUTOMATIC
        .iter()
        .find(|(manufacturer, model, _)| maker == *manufacturer && identity.model.as_deref() == Some(*model));
    known.and_then(|(_, _, name)| deviation_named(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::InputName;

    #[test]
    fn names_are_unique_and_lead_somewhere() {
        for known in known_deviations() {
            let deviation = deviation_named(known.name).unwrap();
            assert_eq!(deviation.inputs.len(), known.inputs.len(), "{}: an input is no name", known.name);
            assert_eq!(known_deviations().iter().filter(|other| other.name == known.name).count(), 1);
            assert!(known.source.starts_with("https://") && !known.about.is_empty());
        }
        assert!(AUTOMATIC.iter().all(|(.., name)| deviation_named(name).is_some()));
        assert_eq!(deviation_named("no-such"), None);
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
        let samsung = deviation_of(&identity("SAM", "U32H750"));
        let hdmi: InputName = "hdmi-1".parse().unwrap();
        assert_eq!(samsung.value_of(&hdmi), Some(VcpValue(0x05)));
        assert_eq!(samsung.name_of(VcpValue(0x05)).as_deref(), Some("hdmi-1"));
        assert_eq!(samsung.name_of(VcpValue(0x11)), None, "its number for HDMI is another one");
        assert_eq!(samsung.name_of(VcpValue(0x10)).as_deref(), Some("dp-2"));
        for other in [identity("SAM", "U32H751"), identity("GSM", "U32H750"), identity("GSM", "LG ULTRAGEAR")]
        {
            assert_eq!(deviation_of(&other), Deviation::default());
        }
    }

    #[test]
    fn values_of_a_makers_feature_have_no_standard_names() {
        let lg = deviation_named("lg-f4").unwrap();
        assert_eq!(lg.name_of(VcpValue(0x0f)), None);
        assert_eq!(lg.name_of(VcpValue(0xd1)).as_deref(), Some("dp-2"));
    }
}
