//! Which monitor a person means.

use std::fmt;

use super::identity::{ConnectorName, EdidIdentity, ManufacturerId, MonitorPlace};

/// What is known of a monitor; whatever is given must fit. At least one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonitorSelector {
    /// Its maker.
    pub manufacturer: Option<ManufacturerId>,
    /// The model's name, whatever its case.
    pub model: Option<String>,
    /// The serial number: the printed one, or the other in decimal.
    pub serial: Option<String>,
    /// Where it is connected.
    pub connector: Option<ConnectorName>,
}

impl MonitorSelector {
    /// Whether a monitor fits.
    #[must_use]
    pub fn fits(&self, identity: &EdidIdentity, place: &MonitorPlace) -> bool {
        let has_serial = |serial: &String| {
            identity.serial.as_ref() == Some(serial)
                || (identity.serial_number != 0 && identity.serial_number.to_string() == *serial)
        };
        let has_model = |model: &String| {
            identity.model.as_ref().is_some_and(|own| own.trim().eq_ignore_ascii_case(model.trim()))
        };
        self.manufacturer.is_none_or(|manufacturer| identity.manufacturer == manufacturer)
            && self.model.as_ref().is_none_or(has_model)
            && self.serial.as_ref().is_none_or(has_serial)
            && self.connector.as_ref().is_none_or(|connector| place.connector.as_ref() == Some(connector))
    }
}

impl MonitorSelector {
    /// Whether another one says the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let model = |selector: &Self| selector.model.as_ref().map(|model| model.trim().to_ascii_lowercase());
        model(self) == model(other)
            && (self.manufacturer, &self.serial, &self.connector)
                == (other.manufacturer, &other.serial, &other.connector)
    }
}

impl fmt::Display for MonitorSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.manufacturer.map(|id| format!("manufacturer {id}")),
            self.model.as_ref().map(|model| format!("model {model}")),
            self.serial.as_ref().map(|serial| format!("serial {serial}")),
            self.connector.as_ref().map(|connector| format!("connector {connector}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        f.write_str(&words.join(", "))
    }
}
