//! `vfio-hook test --xml FILE`: what is said of files that are no guest's, and of guests as people write them.

use std::fs;
use std::process::{Command, Output};

/// A name that no guest of this machine has.
const NOBODY: &str = "no-such-guest-1b9d6bcd";

fn test(content: &str, more: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.xml");
    fs::write(&file, content).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-hook"))
        .args(["test", NOBODY, "--xml"])
        .arg(&file)
        .args(more)
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    (output, errors.replace(folder.path().to_str().unwrap(), "FOLDER"))
}

#[test]
fn what_is_no_guest_is_said_to_be_what_it_is() {
    let uuid = "<uuid>c0ffee00-1111-4222-8333-444455556666</uuid>";
    let domain = |elements: &str| format!("<domain>\n<name>a</name>{uuid}{elements}</domain>");
    let mut told = Vec::new();
    for xml in [
        "<network>\n  <name>default</name>\n</network>\n",
        "<network>\n  <name>default</name>\n  <forw",
        "<domainsnapshot><name>before</name><domain/></domainsnapshot>",
        "<domstatus state='running'><domain/></domstatus>",
        "<!DOCTYPE html>\n<html lang='en'>\n<p>404<br>\n",
        "<domain type='kvm'>\n  <name>a</name>\n  <devi",
        "isolate_cpus: {}\n",
        "",
        "<!DOCTYPE d [<!ENTITY a 'b'>]>\n<domain/>",
        "<domain><name>a</name></domian>",
        &domain(""),
        &domain("<memory>1</memory><vcpu cpuset='aaa'>1</vcpu>"),
        &domain("<memory>1</memory><vcpu cpuset='16384'>1</vcpu>"),
        &domain("<memory>1</memory><numatune><memory nodeset='0,^0'/></numatune>"),
        &domain("<memory>1</memory><vcpus><vcpu id='0' enabled='no'/></vcpus>"),
        &domain("<memory>1</memory><devices><interface type='hostdev'/></devices>"),
    ] {
        let (output, errors) = test(xml, &[]);
        assert_eq!(output.status.code(), Some(1), "{xml}");
        assert_eq!(errors.lines().count(), 2, "{errors}");
        told.push(errors.trim_end().to_owned());
    }
    insta::assert_snapshot!(told.join("\n\n"));
}

#[test]
fn a_guest_is_shown_as_it_was_read() {
    let xml = "<!DOCTYPE domain>\n<domain type='kvm'><name>no-such-guest-1b9d6bcd</name><memory unit='GiB'>8</memory>\
               <vcpu current='2'>4</vcpu><cputune><vcpupin vcpu='0' cpuset='8,'/><vcpupin vcpu='1' cpuset='^0,24'/>\
               </cputune><devices><interface type='hostdev'><source><address type='pci' domain='0xffff' bus='0x66'/>\
               </source></interface></devices><qemu:commandline/></domain>";
    let (output, errors) = test(xml, &[]);
    // Whether libvirt reaches the hook depends on the machine, and is told on standard error.
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    // What comes after it depends on the machine.
    let read: Vec<&str> = text.lines().take_while(|line| !line.contains(", prepare:")).collect();
    insta::assert_snapshot!(read.join("\n"));

    let (output, _) = test(xml, &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["read"]["vcpus"]["running"], 2);
    assert_eq!(json["read"]["vcpus"]["most"], 4);
    assert_eq!(json["read"]["vcpus"]["cpus"], "8,24");
    assert_eq!(json["read"]["devices"][0]["address"], "ffff:66:00.0");
    let notes: Vec<&str> =
        json["notes"].as_array().unwrap().iter().filter_map(|note| note["text"].as_str()).collect();
    assert!(notes[0].contains("has no <uuid>") && notes[1].contains("declared nowhere"), "{notes:?}");
}
