use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};
use tempfile::TempDir;

use super::error::untrusted;
use super::owners::name;
use super::{Owners, Purpose, TrustError, check_trusted_program, read_trusted};

const FILE: &str = "/etc/vfio-hook/hooks.d/win11.yaml";

struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.path("/etc/vfio-hook/hooks.d")).unwrap();
        for folder in ["/etc", "/etc/vfio-hook", "/etc/vfio-hook/hooks.d"] {
            host.chmod(folder, 0o755);
        }
        host
    }

    fn with_file() -> Self {
        let host = Self::new();
        host.write(FILE, "hugepages: {}\n");
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
        self.chmod(path, 0o644);
    }

    fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    fn read(&self) -> Result<Option<Vec<u8>>, String> {
        self.read_for(Uid::effective())
    }

    fn read_for(&self, owner: Uid) -> Result<Option<Vec<u8>>, String> {
        let text = |error: TrustError| {
            format!("{error}\n{}", error.help()).replace(&*self.0.path().to_string_lossy(), "")
        };
        let me = format!("owner {}", name(Uid::effective()));
        read_trusted(self.0.path(), Path::new(FILE), owner)
            .map_err(text)
            .map_err(|text| text.replace(&me, "owner ME"))
    }
}

#[test]
fn reads_what_only_the_owner_can_have_written() {
    assert_eq!(Host::with_file().read(), Ok(Some(b"hugepages: {}\n".to_vec())));
}

#[test]
fn no_file_is_no_error_even_in_a_folder_of_others() {
    let host = Host::new();
    assert_eq!(host.read(), Ok(None));
    host.chmod("/etc/vfio-hook", 0o777);
    assert_eq!(host.read(), Ok(None));
    fs::remove_dir_all(host.path("/etc")).unwrap();
    assert_eq!(host.read(), Ok(None));
}

#[test]
fn refuses_what_others_can_write() {
    for (path, mode, complaint) in [
        (FILE, 0o664, "can be written by its group (owner ME, mode 0664)"),
        (FILE, 0o646, "can be written by everybody (owner ME, mode 0646)"),
        (
            "/etc/vfio-hook/hooks.d",
            0o1777,
            "can be written by its group and everybody else (owner ME, mode 1777)",
        ),
        ("/etc/vfio-hook", 0o775, "can be written by its group (owner ME, mode 0775)"),
        ("/etc", 0o777, "can be written by its group and everybody else (owner ME, mode 0777)"),
    ] {
        let host = Host::with_file();
        host.chmod(path, mode);
        let expected = format!("{path} {complaint}, and it decides what root runs\nchmod go-w {path}");
        assert_eq!(host.read(), Err(expected));
    }
}

#[test]
fn refuses_another_owner() {
    let host = Host::with_file();
    host.chmod("/etc", 0o775);
    let other = Uid::from_raw(Uid::effective().as_raw() + 4711);
    let error = host.read_for(other).unwrap_err();
    assert!(error.starts_with("/etc belongs to "), "{error}");
    assert!(error.ends_with(&format!("chown {other} /etc && chmod go-w /etc")), "{error}");
    let path = Path::new("/etc/it's mine");
    let owners = Owners::from(Uid::from_raw(0));
    let (message, help) = untrusted(path, Uid::from_raw(1000), 0o644, &owners, Purpose::Configuration);
    assert_eq!(
        message,
        "/etc/it's mine belongs to uid 1000, not to root (owner uid 1000, mode 0644), and it decides what root runs"
    );
    assert_eq!(help, r"chown root:root '/etc/it'\''s mine'");
}

#[test]
fn follows_links_and_checks_where_they_lead() {
    let host = Host::new();
    fs::create_dir_all(host.path("/srv/vm")).unwrap();
    host.chmod("/srv", 0o755);
    host.chmod("/srv/vm", 0o755);
    host.write("/srv/vm/real.yaml", "x");
    symlink("/srv/vm", host.path("/srv/link")).unwrap();
    symlink("../../../srv/link/./real.yaml", host.path(FILE)).unwrap();
    assert_eq!(host.read(), Ok(Some(b"x".to_vec())));

    host.chmod("/srv", 0o775);
    assert!(host.read().unwrap_err().starts_with("/srv can be written by its group"));

    fs::remove_dir_all(host.path("/srv")).unwrap();
    assert_eq!(
        host.read().unwrap_err(),
        format!(
            "/srv does not exist, and a symbolic link leads there\ncreate it, or remove the link at {FILE}"
        )
    );
    fs::remove_file(host.path(FILE)).unwrap();
    symlink("win11.yaml", host.path(FILE)).unwrap();
    assert!(host.read().unwrap_err().contains("more than 40 symbolic links"));
    fs::remove_file(host.path(FILE)).unwrap();
    symlink("/../../..", host.path(FILE)).unwrap();
    assert!(host.read().unwrap_err().contains(" is a folder, not a regular file"));
}

#[test]
fn other_kinds_of_files_neither_block_nor_count() {
    let host = Host::new();
    mkfifo(&host.path(FILE), Mode::from_bits_truncate(0o644)).unwrap();
    let expected = format!(
        "{FILE} is a named pipe, not a regular file\nremove it or move it away: mv {FILE} {FILE}.old"
    );
    assert_eq!(host.read(), Err(expected));
    fs::remove_file(host.path(FILE)).unwrap();
    fs::remove_dir(host.path("/etc/vfio-hook/hooks.d")).unwrap();
    host.write("/etc/vfio-hook/hooks.d", "");
    assert!(host.read().unwrap_err().starts_with("/etc/vfio-hook/hooks.d is a regular file, not a folder\n"));
}

#[test]
fn a_huge_file_is_not_read() {
    let host = Host::with_file();
    let file = File::options().write(true).open(host.path(FILE)).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(host.read().unwrap_err().starts_with(&format!("{FILE} is larger than 1048576 bytes\n")));
}

#[test]
fn the_real_root_is_judged_too() {
    let nobody = Uid::from_raw(Uid::effective().as_raw() + 4711);
    match read_trusted(Path::new("/"), Path::new("/etc/passwd"), nobody) {
        Err(TrustError::Untrusted { path, .. }) => assert_eq!(path, Path::new("/")),
        other => panic!("{other:?}"),
    }
}

const PROGRAM: &str = "/usr/bin/notify";

fn check(host: &Host, owners: &Owners) -> Result<(), String> {
    let root = host.0.path();
    check_trusted_program(root, Path::new(PROGRAM), owners)
        .map_err(|error| format!("{error}\n{}", error.help()).replace(&*root.to_string_lossy(), ""))
}

#[test]
fn a_program_is_trusted_like_a_file_and_can_be_executed() {
    let host = Host::new();
    let me = Owners::from(Uid::effective());
    assert_eq!(
        check(&host, &me),
        Err(format!("{PROGRAM} does not exist\nlook for it with: ls -l {PROGRAM}"))
    );
    for folder in ["/usr", "/usr/lib", "/usr/lib/bin"] {
        fs::create_dir_all(host.path(folder)).unwrap();
        host.chmod(folder, 0o755);
    }
    // As where /bin and /usr/bin were merged.
    symlink("lib/bin", host.path("/usr/bin")).unwrap();
    symlink("/usr/bin/notify.real", host.path(PROGRAM)).unwrap();
    let real = "/usr/lib/bin/notify.real";
    host.write(real, "#!/bin/sh\n");
    assert_eq!(
        check(&host, &me),
        Err(format!("{real} is not executable (mode 0644)\nif it is a program: chmod +x {real}"))
    );
    host.chmod(real, 0o755);
    assert_eq!(check(&host, &me), Ok(()));
    host.chmod(real, 0o111);
    assert_eq!(check(&host, &me), Ok(()), "it need not be read");

    host.chmod(real, 0o775);
    assert!(check(&host, &me).unwrap_err().starts_with(&format!("{real} can be written by its group")));
    host.chmod(real, 0o755);
    host.chmod("/usr/lib/bin", 0o777);
    assert!(check(&host, &me).unwrap_err().starts_with("/usr/lib/bin can be written by"));
    host.chmod("/usr/lib/bin", 0o755);
    fs::remove_file(host.path(real)).unwrap();
    fs::create_dir(host.path(real)).unwrap();
    assert!(check(&host, &me).unwrap_err().contains(" is a folder, not a regular file"));
}

/// Nothing of the host is taken away or shut for a path that was only named as a program.
#[test]
fn what_is_said_of_a_program_breaks_nothing_else() {
    let host = Host::new();
    let me = Owners::from(Uid::effective());
    let said = |path: &str| {
        let error = check_trusted_program(host.0.path(), Path::new(path), &me).unwrap_err();
        error.help().replace(&*host.0.path().to_string_lossy(), "")
    };
    fs::create_dir_all(host.path("/tmp/mine")).unwrap();
    fs::create_dir_all(host.path("/srv")).unwrap();
    host.write("/tmp/mine/x", "");
    host.write("/srv/x", "");
    host.chmod("/tmp", 0o1777);
    host.chmod("/srv", 0o755);
    mkfifo(&host.path("/srv/pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    for (path, help) in [
        ("/srv", "name the program in it: `ls /srv` shows what is there"),
        ("/tmp", "name the program in it: `ls /tmp` shows what is there"),
        ("/srv/pipe", "name a program: for example `/usr/bin/logger`"),
        ("/srv/x/y", "name a program: for example `/usr/bin/logger`"),
        ("/tmp/mine/x", "put the program somewhere else, for example /usr/local/bin"),
    ] {
        assert_eq!(said(path), help, "{path}");
    }
    symlink("/tmp/mine", host.path("/etc/vfio-hook/hooks.d/links")).unwrap();
    let path = Path::new("/etc/vfio-hook/hooks.d/links/x");
    let error = read_trusted(host.0.path(), path, Uid::effective()).unwrap_err();
    assert_eq!(error.help(), "put the file itself there instead of a link");

    mkfifo(&host.path("/srv/null"), Mode::from_bits_truncate(0o600)).unwrap();
    symlink("/srv/null", host.path(FILE)).unwrap();
    let error = read_trusted(host.0.path(), Path::new(FILE), Uid::effective()).unwrap_err();
    assert_eq!(error.help(), "remove the link that leads there, or have it lead to a file");
}

#[test]
fn a_program_may_belong_to_the_user_who_runs_it() {
    let host = Host::new();
    fs::create_dir_all(host.path("/usr/bin")).unwrap();
    host.chmod("/usr", 0o755);
    host.chmod("/usr/bin", 0o755);
    host.write(PROGRAM, "");
    host.chmod(PROGRAM, 0o755);
    let me = Uid::effective();
    let (other, third) = (Uid::from_raw(me.as_raw() + 4711), Uid::from_raw(me.as_raw() + 4712));
    assert_eq!(check(&host, &Owners::from(other).or(me)), Ok(()));
    assert_eq!(check(&host, &Owners::from(me).or(other)), Ok(()));
    assert_eq!(
        check(&host, &Owners::from(other).or(third)),
        Err(format!(
            "/usr belongs to {me}, not to uid {other} or uid {third} (owner {me}, mode 0755), and uid {third} would \
             run it\nput the program somewhere else, for example /usr/local/bin",
            me = name(me)
        ))
    );
}
