//! Monitors: who they are, what of them can be set over DDC/CI, and how some differ from the standard. Nothing here
//! touches a machine; that is [`crate::host`]'s.

pub mod ddc_ci;
mod deviation;
mod deviations;
mod edid;
mod identity;
mod input;
mod named;
mod selector;
mod vcp;

pub use deviation::{Deviation, ExtraStep, FeatureControl, MonitorFeature, Reading, SourceAddress};
pub use deviations::built_in_deviations;
pub use edid::{EDID_BLOCK, EdidError, make_edid, parse_edid};
pub use identity::{ConnectorName, EdidIdentity, ManufacturerId, MonitorKey, MonitorPlace};
pub use input::{HexadecimalInput, InputName, hexadecimal_input, input_name, standard_inputs};
pub use named::{DeviationName, MonitorName, NamedDeviation};
pub use selector::MonitorSelector;
pub use vcp::{ParseVcpError, VcpFeature, VcpValue};
