//! Hosts in a folder: guests come and go, writes fail, programs are killed, an administrator changes things meanwhile,
//! and afterwards the folder is what it was.

mod around_the_guest;
mod as_it_runs;
mod cards;
mod checked_later;
mod comeback;
mod commands;
mod conditions;
mod cpu_power;
mod disks;
mod failures;
mod free_memory;
mod give_back;
mod held;
mod hints;
mod host_file;
mod interleavings;
mod irqbalance;
mod kills;
mod late_interrupts;
mod ledgers;
mod meanwhile;
mod monitor_talk;
mod monitors;
mod pages;
mod refusals;
mod schedule;
mod shared_memory;
mod slow_peers;
mod sriov;
mod started_units;
mod support;
mod tune;
mod two_guests;
mod unmount;
mod versions;
