//! Values of the kernel that a file names, each with another one than the file wants.

use std::io;
use std::path::Path;

use super::make_file;
use crate::actions::Tune;
use crate::ledger::{Accepts, Attribute, AttributeRow, Codec};

/// The schedulers that the kernel has for disks.
const SCHEDULERS: [&str; 4] = ["none", "mq-deadline", "kyber", "bfq"];

/// A processor's device with two kinds of cores.
const X3D_DEVICE: &str = "AMDI0101:00";

/// What of a section the host does not have, made on it; in words.
pub(super) fn make(tune: &Tune, root: &Path) -> io::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut value = |path: &Path, text: String| -> io::Result<()> {
        if make_file(root, path, &text)? {
            words.push(format!("{}, which holds `{text}`", path.display()));
        }
        Ok(())
    };
    for (row, wanted) in &tune.values {
        value(row.path.as_ref(), of_row(row, wanted.as_str()))?;
    }
    for (path, wanted) in &tune.files {
        value(path, of_file(path, wanted))?;
    }
    if let Some(wanted) = tune.x3d_mode {
        let now = if wanted == "cache" { "frequency" } else { "cache" };
        value(&Attribute::x3d_mode(X3D_DEVICE).path(), now.to_owned())?;
    }
    for (disk, tuning) in &tune.disks {
        let usual = if disk.starts_with("nvme") { "none" } else { "mq-deadline" };
        let is_usual = tuning.scheduler.as_deref() == Some(usual);
        let now = SCHEDULERS.into_iter().find(|name| !is_usual || *name != usual).unwrap_or(usual);
        let now = if is_usual { now } else { usual };
        let all = SCHEDULERS.map(|name| if name == now { format!("[{name}]") } else { name.to_owned() });
        let kib = tuning.read_ahead.map(|size| size.bytes() / 1024);
        let read_ahead = if kib == Some(128) { 256 } else { 128 };
        let is_new = make_file(root, &Attribute::disk_scheduler(disk).path(), &all.join(" "))?;
        make_file(root, &Attribute::disk_read_ahead(disk).path(), &read_ahead.to_string())?;
        words.extend(is_new.then(|| format!("disk {disk}")));
    }
    for (light, _) in &tune.backlight {
        let path = Attribute::backlight(light).path();
        let is_new = make_file(root, &path, "19393")?;
        make_file(root, &path.with_file_name("max_brightness"), "96000")?;
        words.extend(is_new.then(|| format!("light {light}")));
    }
    Ok(words)
}

/// A value of a row of the table that its file may have.
fn of_row(row: &AttributeRow, wanted: &str) -> String {
    match (row.tunable.map(|tunable| tunable.accepts), row.codec) {
        (Some(Accepts::Words(words)), Codec::Bracketed) => {
            let now = words.iter().find(|word| **word != wanted);
            let shown = words
                .iter()
                .map(|word| if Some(word) == now { format!("[{word}]") } else { (*word).to_owned() });
            shown.collect::<Vec<_>>().join(" ")
        }
        (Some(Accepts::Words(words)), _) => {
            words.iter().find(|word| **word != wanted).copied().unwrap_or_default().to_owned()
        }
        (Some(Accepts::Numbers(least, _)), _) if wanted == least.to_string() => (least + 1).to_string(),
        (Some(Accepts::Numbers(least, _)), _) => least.to_string(),
        (Some(Accepts::Bytes(_)) | None, _) => "0".to_owned(),
    }
}

/// A value of a file of which nothing but its place is known.
fn of_file(path: &Path, wanted: &str) -> String {
    let is_of_module = path.starts_with("/sys/module");
    let words: Vec<&str> = wanted.split_whitespace().collect();
    if words.iter().all(|word| word.parse::<i64>().is_ok()) {
        return words.iter().map(|word| if *word == "0" { "1" } else { "0" }).collect::<Vec<_>>().join(" ");
    }
    match wanted {
        "Y" | "y" | "on" | "true" if is_of_module => "N".to_owned(),
        "N" | "n" | "off" | "false" if is_of_module => "Y".to_owned(),
        "default" => "other".to_owned(),
        // The kernel shows words to choose from below /sys.
        word if words.len() == 1 && path.starts_with("/sys") => format!("[default] {word}"),
        _ => "default".to_owned(),
    }
}
