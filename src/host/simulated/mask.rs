//! Sets of CPUs as the kernel takes and prints them.

use std::io;

use nix::errno::Errno;

use crate::cpuset::CpuSet;

/// A list in the kernel's spelling; no interrupt goes to no CPU.
pub(super) fn as_list(value: &str) -> io::Result<String> {
    let cpus: CpuSet = value.parse().map_err(|_| Errno::EINVAL)?;
    if cpus.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    Ok(cpus.to_string())
}

/// A mask with as many digits as the kernel has CPUs, which is as many as it printed before.
pub(super) fn as_wide_as(before: &str, value: &str) -> io::Result<String> {
    let cpus = CpuSet::from_mask(value).map_err(|_| Errno::EINVAL)?;
    if cpus.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    let count = |text: &str| text.chars().filter(char::is_ascii_hexdigit).count();
    let digits: String = cpus.to_mask().chars().filter(char::is_ascii_hexdigit).collect();
    let digits = format!("{digits:0>width$}", width = count(before));
    let first = (digits.len() - 1) % 8 + 1;
    let mut mask = digits[..first].to_owned();
    for word in digits.as_bytes()[first..].chunks(8) {
        mask.push(',');
        mask.extend(word.iter().map(|byte| char::from(*byte)));
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_their_width() {
        assert_eq!(as_wide_as("ffff", "f0").unwrap(), "00f0");
        assert_eq!(as_wide_as("ffffffff,ffffffff", "3").unwrap(), "00000000,00000003");
        assert_eq!(as_wide_as("3,ffffffff", "1,00000000").unwrap(), "1,00000000");
        assert!(as_wide_as("ff", "0").is_err());
    }
}
