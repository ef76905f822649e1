//! What peers that may take their time said while others had the ledger, so that they are not asked again with it locked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Host;
use super::monitors::MonitorsFound;
use super::service::{ServiceUnit, UnitStatus};
use super::user::User;
use crate::monitor::{MonitorFeature, VcpValue};
use crate::user_name::UserName;

/// The answers, while they are kept.
#[derive(Default)]
pub(super) struct EarlyAnswers(Mutex<Option<Answers>>);

#[derive(Default)]
struct Answers {
    monitors: Option<MonitorsFound>,
    features: BTreeMap<MonitorFeature, VcpValue>,
    paths: BTreeMap<PathBuf, bool>,
    /// Block devices, by their paths: whether they have an exclusive owner.
    held: BTreeMap<PathBuf, bool>,
    units: BTreeMap<ServiceUnit, UnitStatus>,
    directory_users: BTreeMap<String, Option<User>>,
    /// Users whose service manager did not answer in time.
    silent: BTreeSet<UserName>,
}

impl EarlyAnswers {
    fn lock(&self) -> MutexGuard<'_, Option<Answers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get<T>(&self, look: impl FnOnce(&Answers) -> Option<T>) -> Option<T> {
        self.lock().as_ref().and_then(look)
    }

    fn keep(&self, note: impl FnOnce(&mut Answers)) {
        if let Some(answers) = &mut *self.lock() {
            note(answers);
        }
    }

    pub(super) fn monitors(&self) -> Option<MonitorsFound> {
        self.get(|answers| answers.monitors.clone())
    }

    pub(super) fn keep_monitors(&self, found: &MonitorsFound) {
        self.keep(|answers| answers.monitors = Some(found.clone()));
    }

    pub(super) fn feature(&self, feature: &MonitorFeature) -> Option<VcpValue> {
        self.get(|answers| answers.features.get(feature).copied())
    }

    pub(super) fn keep_feature(&self, feature: &MonitorFeature, value: VcpValue) {
        self.keep(|answers| {
            answers.features.insert(feature.clone(), value);
        });
    }

    pub(super) fn path(&self, path: &Path) -> Option<bool> {
        self.get(|answers| answers.paths.get(path).copied())
    }

    pub(super) fn keep_path(&self, path: &Path, is_there: bool) {
        self.keep(|answers| {
            answers.paths.insert(path.to_owned(), is_there);
        });
    }

    pub(super) fn held(&self, device: &Path) -> Option<bool> {
        self.get(|answers| answers.held.get(device).copied())
    }

    pub(super) fn keep_held(&self, device: PathBuf, is_held: bool) {
        self.keep(|answers| {
            answers.held.insert(device, is_held);
        });
    }

    pub(super) fn unit(&self, unit: &ServiceUnit) -> Option<UnitStatus> {
        self.get(|answers| answers.units.get(unit).cloned())
    }

    pub(super) fn keep_unit(&self, unit: &ServiceUnit, status: &UnitStatus) {
        self.keep(|answers| {
            answers.units.insert(unit.clone(), status.clone());
        });
    }

    pub(super) fn directory_user(&self, name: &str) -> Option<Option<User>> {
        self.get(|answers| answers.directory_users.get(name).cloned())
    }

    pub(super) fn keep_directory_user(&self, name: &str, user: Option<&User>) {
        self.keep(|answers| {
            answers.directory_users.insert(name.to_owned(), user.cloned());
        });
    }

    pub(super) fn is_silent(&self, user: &UserName) -> bool {
        self.get(|answers| Some(answers.silent.contains(user))).unwrap_or(false)
    }

    pub(super) fn keep_silent(&self, user: &UserName) {
        self.keep(|answers| {
            answers.silent.insert(user.clone());
        });
    }
}

impl Host {
    /// Keeps what monitors, file systems, drives, directory services and users' service managers say from now on, and says
    /// the same again when it is asked for once more.
    pub(crate) fn keep_answers(&self) {
        *self.early_answers.lock() = Some(Answers::default());
    }

    /// Forgets it: each peer is asked anew.
    pub(crate) fn forget_answers(&self) {
        *self.early_answers.lock() = None;
    }
}
