//! Hosts in a folder: guests come and go, writes fail, programs are killed, an administrator changes things meanwhile,
//! and afterwards the folder is what it was.

mod around_the_guest;
mod cards;
mod failures;
mod give_back;
mod host_file;
mod interleavings;
mod irqbalance;
mod kills;
mod late_interrupts;
mod ledgers;
mod meanwhile;
mod monitors;
mod pages;
mod refusals;
mod support;
