//! What stands between the program and a monitor.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::i2c::{I2cBus, MonitorTrouble};
use crate::monitor::{ConnectorName, EdidIdentity};
use crate::printable::printable;

/// Why a monitor that may be there cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MonitorProblem {
    /// Buses have no device nodes, because `i2c-dev` is not loaded.
    NoI2cDev,
    /// These buses may not be opened.
    NotPermitted(Vec<I2cBus>),
    /// A monitor is connected, but the driver does not tell which bus leads to it, and none was found.
    NoBusKnown {
        /// The connector of the monitor.
        connector: ConnectorName,
        /// Who, as far as the kernel knows.
        monitor: Option<EdidIdentity>,
    },
    /// The kernel does not come back from a transfer.
    Hangs(I2cBus),
    /// Something is connected, but does not say who it is.
    Unknown {
        /// Where: a connector's name.
        connector: ConnectorName,
        /// The reason.
        trouble: MonitorTrouble,
    },
    /// A bus that a monitor is known to be on cannot be used.
    Unusable {
        /// The bus.
        bus: I2cBus,
        /// The reason.
        trouble: MonitorTrouble,
    },
}

impl MonitorProblem {
    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoI2cDev => MonitorTrouble::NoI2cDev.help(),
            Self::NotPermitted(_) => MonitorTrouble::NotPermitted.help(),
            Self::NoBusKnown { .. } => Some(
                "drivers that are not part of the kernel may offer no bus for it; NVIDIA's may need \
                 NVreg_RegistryDwords=RMUseSwI2c=0x01;RMI2cSpeed=100",
            ),
            Self::Hangs(_) => MonitorTrouble::Hangs.help(),
            Self::Unknown { trouble, .. } | Self::Unusable { trouble, .. } => trouble.help(),
        }
    }
}

impl fmt::Display for MonitorProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoI2cDev => {
                f.write_str("no i2c bus can be opened: the kernel module i2c-dev is not loaded")
            }
            Self::NotPermitted(buses) => {
                let nodes: Vec<String> = buses.iter().map(|bus| bus.node().display().to_string()).collect();
                write!(f, "no permission to open {}", nodes.join(", "))
            }
            Self::NoBusKnown { connector, monitor: Some(monitor) } => {
                write!(f, "{monitor} is connected to {connector}, but no i2c bus is known that leads to it")
            }
            Self::NoBusKnown { connector, monitor: None } => {
                write!(f, "a monitor is connected to {connector}, but no i2c bus is known that leads to it")
            }
            Self::Hangs(bus) => write!(f, "{bus} hangs: the kernel does not come back from it"),
            Self::Unknown { connector, trouble } => {
                write!(f, "who is connected to {connector} is not known: {}", printable(&trouble.to_string()))
            }
            Self::Unusable { bus, trouble } => write!(f, "{bus} cannot be used: {trouble}"),
        }
    }
}
