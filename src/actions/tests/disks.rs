//! The section `disks`.

use super::*;

#[test]
fn an_empty_section_checks_all() {
    let config = parse("disks: {}").unwrap().disks.unwrap();
    assert_eq!(config, Disks::default());
    assert_eq!(config.in_use, InUse::Refuse);
}

#[test]
fn one_drive_needs_no_list() {
    let names = |yaml: &str| -> Vec<String> {
        let disks = parse(yaml).unwrap().disks.unwrap();
        disks.expect.into_iter().map(|drive| drive.name).collect()
    };
    assert_eq!(names("disks: {expect: S5GX}"), ["S5GX"]);
    assert_eq!(
        names("disks: {expect: [\"0123\", /dev/disk/by-id/nvme-x]}"),
        ["0123", "/dev/disk/by-id/nvme-x"]
    );
}

#[test]
fn what_people_write_instead_is_told() {
    insta::assert_snapshot!(
        mistakes(
            "disks:\n  in_use: ignore\n  expect: [0123, /dev/sda, \"\", S5GX, S5GX, {serial: x}]\n  umount: [/games]\n  unmount: [/, games, /games/, /games, /usr, ~/x]\n  timeout: 2min\n"
        )
        .join("\n")
    );
    insta::assert_snapshot!(mistakes("disks: {expect: []}").join("\n"));
    assert_eq!(
        mistakes("disks: {timeout: 5s}"),
        ["1:18: `disks.timeout`: has no effect without `unmount` (remove it)"]
    );
    insta::assert_snapshot!(mistakes("disks: [/dev/sda]").join("\n"));
}
