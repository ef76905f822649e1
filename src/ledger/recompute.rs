//! What an event leads to at one setting: it is set again, given back, or computed anew.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::any_entry::AnyEntry;
use super::claim::{Claim, ClaimTerms};
use super::entry::{Change, Entry};
use super::error::LedgerError;
use super::plan::{Note, On, Plan};
use super::rule::{Basis, Rule};
use super::setting::{Absence, Afterwards, Occasion, ReadBack, Reconciling, Traits};
use super::settings::Listed;
use crate::guest::GuestUuid;
use crate::host::HostError;

/// `cpufreq_show` answers so for a CPU that is offline.
fn is_busy(error: &HostError) -> bool {
    error.raw_os_error() == Some(Errno::EBUSY as i32)
}

/// A value that CPUs which went or came may have led to.
#[derive(Clone, Copy)]
enum MovedWithCpus {
    /// The kernel moved it, and none of its CPUs is online: until one is, it cannot be set again.
    Away,
    /// The kernel moved it, and one of its CPUs is online again.
    Back,
    /// A driver chose it for the CPUs that there are. It does so anew whenever a CPU comes or goes
    /// (`virtnet_cpu_online` and `virtnet_cpu_dead` in `drivers/net/virtio_net.c`).
    ByDriver,
    /// Whether a CPU has led to it, the CPU's announcement will tell: the kernel makes it some time after.
    Undecided,
}

impl<S: Listed> Entry<S> {
    /// Sets it again for a guest, where it is found changed, or where it would be another with the CPUs that came back.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn plan_reconciling(
        &self,
        uuid: GuestUuid,
        occasion: Occasion,
        plan: &mut Plan,
        on: &On<'_>,
    ) -> Result<(), LedgerError> {
        let Some(want) = self.claims.get(&uuid) else { return Ok(()) };
        let Traits { reconciling, absence, .. } = self.setting.traits();
        let now = self.setting.read(on.host, on.deadline);
        let changed = now.as_ref().ok().filter(|now| !S::is_same(now, &self.written));
        let moved = changed.and_then(|now| self.moved_with_cpus(now, occasion, on));
        match (now, moved) {
            (Ok(now), _) if S::is_same(&now, &self.written) && !self.may_grow(occasion) => {}
            (Ok(now), _) if reconciling == Reconciling::Noticed => {
                let note = plan.record.entry_mut(&self.setting).map(|entry| entry.take_as_chosen(&now));
                plan.notes.extend(note.map(Note::warning));
            }
            (Ok(now), Some(MovedWithCpus::Back)) => plan.set_again(uuid, self, &now),
            (Ok(_), Some(MovedWithCpus::Away)) => {}
            (Ok(_), Some(MovedWithCpus::Undecided)) => plan.undecided += 1,
            (Ok(now), None) if reconciling.leaves_others() && !self.is_ours(&now, on.online) => {
                let entry = plan.record.entry_mut(&self.setting);
                let note = entry.and_then(|entry| S::Rule::adopt(entry, &now, on.online));
                plan.notes.extend(note.map(Note::warning));
            }
            (Ok(now), None | Some(MovedWithCpus::ByDriver)) => {
                let terms = ClaimTerms::default();
                let claim =
                    Claim { setting: self.setting.clone(), want: want.clone(), now: Some(now), terms };
                let noted = plan.notes.len();
                plan.claim(uuid, &claim, on)?;
                // A driver's choice is the new baseline, but nothing to tell.
                if moved.is_some() {
                    plan.notes.truncate(noted);
                }
            }
            (Err(error), _) if error.is_absent() => match absence {
                // Should a device make it anew, it is another interrupt, and taken in as such.
                Absence::Forgotten | Absence::Expected => {
                    plan.record.remove(&self.key());
                }
                // It is set again once it is there, or its keeper answers.
                Absence::Told | Absence::EndsWithKeeper => {}
            },
            // A CPU that is offline says nothing of its own, and announces itself when it is back.
            (Err(error), _) if reconciling == Reconciling::OldValuesOfCpus && is_busy(&error) => {}
            (Err(error), _) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether it would be another with the CPUs that came back. A value that an administrator has chosen is left alone.
    fn may_grow(&self, occasion: Occasion) -> bool {
        occasion == Occasion::CpusCameBack && !S::is_same(&self.baseline, &self.written)
    }

    /// Whether the value is the kernel's or a driver's choice, since CPUs went or came. What the kernel chose is no
    /// baseline.
    fn moved_with_cpus(&self, now: &S::Value, occasion: Occasion, on: &On<'_>) -> Option<MovedWithCpus> {
        let (needed, cpus) = (S::needs_one_of(&self.written)?, S::needs_one_of(now)?);
        // Looked at after the value: they may have gone since the plan was begun.
        let online = on.host.online_cpus().ok()?;
        if !needed.intersects(cpus) {
            return match (needed.intersects(&online), occasion) {
                (false, _) => Some(MovedWithCpus::Away),
                (true, Occasion::CpusCameBack) => Some(MovedWithCpus::Back),
                (true, Occasion::Usual) => Some(MovedWithCpus::Undecided),
                (true, Occasion::NoCpuCame) => None,
            };
        }
        match occasion {
            _ if self.is_ours(now, &online) => None,
            Occasion::CpusCameBack => Some(MovedWithCpus::ByDriver),
            _ if *cpus == online => Some(MovedWithCpus::ByDriver),
            Occasion::Usual => Some(MovedWithCpus::Undecided),
            Occasion::NoCpuCame => None,
        }
    }

    /// Takes these guests' claims out of it, and settles what a killed process left half done.
    pub(super) fn plan_release(&self, leaving: &BTreeSet<GuestUuid>, plan: &mut Plan, on: &On<'_>) {
        let mut entry = self.clone();
        let owner = self.owner_among(leaving);
        plan.record.remove(&self.key());
        entry.claims.retain(|uuid, _| !leaving.contains(uuid));
        let Traits { read_back, absence, afterwards, .. } = self.setting.traits();
        if afterwards == Afterwards::Nothing {
            if entry.is_claimed() {
                plan.record.put(entry);
            }
            return;
        }
        let now = match self.setting.read(on.host, on.deadline) {
            Ok(now) => now,
            Err(error) if error.is_absent() && absence == Absence::Expected => return,
            Err(error) if error.is_absent() && absence == Absence::EndsWithKeeper => {
                plan.notes.push(Note::info(format!("{} ends with its keeper: {error}", self.setting)));
                return;
            }
            Err(error) if error.is_absent() => {
                let note = format!("{} is gone, nothing to give back: {error}", self.setting);
                plan.notes.push(Note::info(note));
                return;
            }
            Err(error) => {
                plan.failures.push(format!("{} not given back: {error}", self.setting));
                entry.stuck = error.stuck_process();
                // An open write keeps the entry, and has it computed again by the next event.
                let value = S::Rule::combine(&entry.combining(&entry.written, on.online));
                let value = value.unwrap_or_else(|_| entry.written.clone());
                entry.announce(value, owner);
                plan.record.put(entry);
                return;
            }
        };
        if (&entry as &dyn AnyEntry).is_fading() {
            if now != entry.baseline {
                plan.changes.push(Change::of(&self.setting, &now, &entry.baseline));
                entry.announce(entry.baseline.clone(), None);
                plan.record.put(entry);
            }
            return;
        }
        let now = if read_back == ReadBack::Later { entry.written.clone() } else { now };
        plan.notes.extend(S::Rule::adopt(&mut entry, &now, on.online).map(Note::warning));
        // The announced write may have been made before its writer was killed.
        let announced = entry.withdraw();
        let in_doubt = announced.is_some() && read_back == ReadBack::Later;
        let was_made = announced.is_some_and(|pending| S::is_same(&pending.value, &now));
        if was_made || <S::Rule as Rule<S>>::BASIS == Basis::Now {
            entry.found(now.clone());
        }
        // Values cannot conflict when a claim goes away.
        let then = S::Rule::combine(&entry.combining(&now, on.online)).unwrap_or_else(|_| now.clone());
        if !entry.is_claimed()
            && then != now
            && let Some(reason) = self.setting.stays_because(on.host, &then, on.deadline)
        {
            plan.notes.push(Note::warning(format!("{} stays: {reason}", self.setting)));
            return;
        }
        let is_stale = read_back == ReadBack::Untrusted && !S::is_same(&entry.written, &then);
        if is_stale || in_doubt || then != now {
            plan.changes.push(Change::of(&self.setting, &now, &then));
            entry.announce(then, None);
            plan.record.put(entry);
        } else if entry.is_claimed() {
            plan.record.put(entry);
        }
    }

    /// Computes and announces it again for a guest, after others had the ledger: the change that is left to make.
    pub(super) fn announce_anew(
        &mut self,
        uuid: GuestUuid,
        on: &On<'_>,
        notes: &mut Vec<Note>,
    ) -> Option<Change> {
        let announced = self.pending()?.value.clone();
        let now = match self.setting.traits().read_back {
            ReadBack::Later => Ok(self.written.clone()),
            ReadBack::AtOnce | ReadBack::Untrusted => self.setting.read(on.host, on.deadline),
        };
        // A setting that cannot be read now says why when it is written.
        let Ok(now) = now else { return Some(Change::of(&self.setting, &self.written, &announced)) };
        notes.extend(S::Rule::adopt(self, &now, on.online).map(Note::warning));
        // Conflicts were found when each of the guests made its plan.
        let then = S::Rule::combine(&self.combining(&now, on.online)).unwrap_or(announced);
        if S::is_same(&then, &now) {
            self.confirm(now);
            return None;
        }
        let change = Change::of(&self.setting, &now, &then);
        self.announce(then, Some(uuid));
        Some(change)
    }
}
