//! PCI devices of hosts in folders.
