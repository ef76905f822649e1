//! Sessions of users at a display, and what ends them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::host::service::{ServiceUnit, UnitActivity};
use crate::host::{Holder, HolderUnit, Host, HostError};
use crate::serde_as_text::serde_as_text;
use crate::unit_file_name::UnitFileName;
use crate::user_name::UserName;

/// Where an administrator's and the distribution's links to units are, first come first (`systemd.unit(5)`).
const UNIT_FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The name under which the display manager starts, whichever it is (`systemd.special(7)`).
const DISPLAY_MANAGER: &str = "display-manager.service";

/// What a user's graphical session consists of, in the user's own manager (`systemd.special(7)`).
const GRAPHICAL_SESSION: &str = "graphical-session.target";

/// How long the look through all processes may take.
const LOOK: Duration = Duration::from_secs(5);

/// A session of logind, by its name: `2`, `c1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

/// A login, as logind has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSession {
    /// logind's identity of the session.
    pub id: SessionId,
    /// Whose, by number.
    pub uid: u32,
    /// Whose, by name.
    pub user: String,
    /// The seat, such as `seat0`; none for a login over the network.
    pub seat: Option<String>,
    /// What it shows.
    pub session_type: SessionType,
    /// What it is for.
    pub class: SessionClass,
    /// Whether its seat shows it now.
    pub activity: SessionActivity,
    /// The process that it was opened by, such as the display manager's worker.
    pub leader: u32,
    /// The unit its processes are in: `session-2.scope`.
    pub scope: String,
}

/// `Type` of a session (`org.freedesktop.login1(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionType {
    /// An X server's.
    X11,
    /// A Wayland compositor's.
    Wayland,
    /// A Mir server's.
    Mir,
    /// Text, or nothing said. A compositor that was started from a text console is here too: logind does not learn of
    /// it.
    Other,
}

/// `Class` of a session (`org.freedesktop.login1(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionClass {
    /// A user's (`user`, `user-early`).
    User,
    /// A display manager's own, with the login screen.
    Greeter,
    /// Another one, such as a lock screen's or a user manager's.
    Other,
}

/// `Active` of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionActivity {
    /// Its seat shows it.
    Active,
    /// Another session is shown.
    Inactive,
}

impl SessionId {
    /// The unit that its processes are in (`session_start_scope` in `src/login/logind-session.c`).
    #[must_use]
    pub fn scope(&self) -> String {
        format!("session-{}.scope", self.0)
    }

    /// As logind has it: `2` or `c1`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = String;

    /// Letters and digits, as in `session_id_valid` (`src/shared/login-util.c`).
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let is_valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_valid { Ok(Self(name.to_owned())) } else { Err(format!("`{name}` is no session")) }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(SessionId);

impl SessionType {
    /// What the property means.
    #[must_use]
    pub fn from_property(word: &str) -> Self {
        match word {
            "x11" => Self::X11,
            "wayland" => Self::Wayland,
            "mir" => Self::Mir,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for SessionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X11 => "X11",
            Self::Wayland => "Wayland",
            Self::Mir => "Mir",
            Self::Other => "text",
        })
    }
}

impl SessionClass {
    /// What the property means.
    #[must_use]
    pub fn from_property(word: &str) -> Self {
        match word {
            "user" | "user-early" => Self::User,
            "greeter" => Self::Greeter,
            _ => Self::Other,
        }
    }
}

impl LoginSession {
    /// Whether it shows a picture on a seat, as far as logind knows: a text console may show one too
    /// ([`Host::graphical_sessions`]).
    #[must_use]
    pub fn is_graphical(&self) -> bool {
        self.is_at_seat() && self.session_type != SessionType::Other
    }

    /// Whether it is a user's on a seat, whatever it shows.
    fn is_at_seat(&self) -> bool {
        self.seat.is_some() && self.class != SessionClass::Other
    }
}

impl fmt::Display for LoginSession {
    /// `Wayland session 2 of anna on seat0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} session {} of {}", self.session_type, self.id, self.user)?;
        match &self.seat {
            Some(seat) => write!(f, " on {seat}"),
            None => Ok(()),
        }
    }
}

impl Host {
    /// The sessions that show a picture on a seat, those of login screens included, and those on a text console whose
    /// processes have the display of a card open: a compositor or an X server that was started there. None where
    /// neither logind nor elogind runs.
    ///
    /// # Errors
    /// logind is there but does not answer; where a user is logged in on a text console, as [`Self::holders_of`].
    pub fn graphical_sessions(&self, deadline: Deadline) -> Result<Vec<LoginSession>, HostError> {
        let mut sessions = self.logind.sessions(deadline)?;
        let is_text = |session: &LoginSession| session.is_at_seat() && !session.is_graphical();
        let drawing = match sessions.iter().any(is_text) {
            true => self.sessions_with_displays(deadline.earlier(Deadline::after(LOOK)))?,
            // The look through all processes takes longer than all the rest.
            false => BTreeSet::new(),
        };
        sessions.retain(|session| {
            session.is_graphical() || (session.is_at_seat() && drawing.contains(&session.id))
        });
        Ok(sessions)
    }

    /// The sessions whose own processes have the display of a card open.
    fn sessions_with_displays(&self, deadline: Deadline) -> Result<BTreeSet<SessionId>, HostError> {
        let session = |holder: Holder| match holder.unit {
            Some(HolderUnit::Session { id, .. }) => Some(id),
            _ => None,
        };
        Ok(self.holders_of_displays(deadline)?.into_iter().filter_map(session).collect())
    }

    /// `TerminateSession`, and waits until the session is gone with all its processes. What a user's own manager runs
    /// stays; a display manager that still runs opens a new session. One that is gone already is no error.
    ///
    /// # Errors
    /// logind refuses, or it takes longer than there is time.
    pub fn terminate_session(&mut self, id: &SessionId, deadline: Deadline) -> Result<(), HostError> {
        self.logind.terminate_session(id, deadline)
    }

    /// The unit that `display-manager.service` stands for, whether it runs or not: the link of that name leads to it.
    /// None where there is no such link, or it is masked.
    #[must_use]
    pub fn display_manager_unit(&self) -> Option<UnitFileName> {
        let links = UNIT_FOLDERS.map(|folder| Path::new(folder).join(DISPLAY_MANAGER));
        let link = links.into_iter().find(|link| {
            // A link may lead to a folder that is not mounted yet, and still says the name.
            self.files.link_target(link).is_ok_and(|target| target.is_some()) || self.is_present(link)
        })?;
        let name = self.link_name(&link).ok().flatten().unwrap_or_else(|| DISPLAY_MANAGER.to_owned());
        UnitFileName::new(&name).ok()
    }

    /// Stops `graphical-session.target` in a user's own manager, and waits until it has stopped. The services of the
    /// session are a part of it and stop then, one after the other: [`Self::holders_of`] tells when they have let go.
    ///
    /// # Errors
    /// As [`Self::set_unit_activity`]; the user does not exist or has no manager now: then there is nothing to stop.
    pub fn stop_graphical_session_target(
        &mut self,
        user: &UserName,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let unit = UnitFileName::new(GRAPHICAL_SESSION)
            .map_err(|error| HostError::call("StopUnit", GRAPHICAL_SESSION, error))?;
        let unit = ServiceUnit { unit, user: Some(user.clone()) };
        self.set_unit_activity(&unit, UnitActivity::Stopped, deadline)
    }
}
