//! Amounts of memory with libvirt's units, as `virScaleInteger` in `src/util/virutil.c` reads them.

use super::error::ValueError;
use crate::pages::MemorySize;

/// An amount, in KiB unless a unit is given; rounded up to whole KiB as libvirt stores it.
pub(super) fn amount(number: &str, unit: Option<&str>) -> Result<MemorySize, ValueError> {
    let factor = factor(unit.unwrap_or_default()).ok_or(ValueError::Unit)?;
    let bytes = decimal(number)?.checked_mul(factor).ok_or(ValueError::TooLarge)?;
    Ok(MemorySize::from_kib(bytes.div_ceil(1024)))
}

/// A whole number in decimal digits; blanks around it are allowed, as `strtoull` allows them.
pub(super) fn decimal(text: &str) -> Result<u64, ValueError> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValueError::NotANumber);
    }
    text.parse().map_err(|_| ValueError::TooLarge)
}

/// `k` and `KiB` are 1024, `KB` is 1000; the case does not matter.
fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    let (prefix, base) = match unit.as_str() {
        "" => return Some(1024),
        "b" | "byte" | "bytes" => return Some(1),
        unit => match (unit.strip_suffix("ib"), unit.strip_suffix('b')) {
            (Some(prefix), _) => (prefix, 1024_u64),
            (None, Some(prefix)) => (prefix, 1000),
            (None, None) => (unit, 1024),
        },
    };
    let exponent = match prefix {
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        "e" => 6,
        _ => return None,
    };
    Some(base.pow(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_units_of_libvirt() {
        for (number, unit, bytes) in [
            ("3", None, 3 << 10),
            ("3", Some(""), 3 << 10),
            ("2048", Some("b"), 2048),
            ("2048", Some("Bytes"), 2048),
            ("2048", Some("byte"), 2048),
            ("3", Some("k"), 3 << 10),
            ("3", Some("KiB"), 3 << 10),
            ("128", Some("KB"), 128_000),
            ("128", Some("kb"), 128_000),
            ("3", Some("M"), 3 << 20),
            ("3", Some("mib"), 3 << 20),
            ("128", Some("MB"), 128_000_000),
            ("3", Some("G"), 3 << 30),
            ("3", Some("GIB"), 3 << 30),
            ("128", Some("GB"), 128_000_000_000),
            ("3", Some("T"), 3 << 40),
            ("3", Some("TiB"), 3 << 40),
            ("128", Some("TB"), 128_000_000_000_000),
            ("3", Some("PiB"), 3 << 50),
            ("3", Some("E"), 3 << 60),
            (" 16\n", Some("GiB"), 16 << 30),
            ("0", Some("E"), 0),
        ] {
            assert_eq!(amount(number, unit), Ok(MemorySize::from_bytes(bytes)), "{number} {unit:?}");
        }
    }

    #[test]
    fn rounds_up_to_whole_kib() {
        assert_eq!(amount("1", Some("b")), Ok(MemorySize::from_kib(1)));
        assert_eq!(amount("1", Some("KB")), Ok(MemorySize::from_kib(1)));
        assert_eq!(amount("1025", Some("b")), Ok(MemorySize::from_kib(2)));
    }

    #[test]
    fn refuses_the_rest() {
        for (number, unit, reason) in [
            ("", None, ValueError::NotANumber),
            ("-1", None, ValueError::NotANumber),
            ("+1", None, ValueError::NotANumber),
            ("0x10", None, ValueError::NotANumber),
            ("1.5", Some("GiB"), ValueError::NotANumber),
            ("99999999999999999999", None, ValueError::TooLarge),
            ("16", Some("E"), ValueError::TooLarge),
            ("1", Some("ib"), ValueError::Unit),
            ("1", Some("x"), ValueError::Unit),
            ("1", Some("Kbyte"), ValueError::Unit),
            ("1", Some("kbb"), ValueError::Unit),
            ("1", Some(" KiB"), ValueError::Unit),
            ("1", Some("é"), ValueError::Unit),
        ] {
            assert_eq!(amount(number, unit), Err(reason), "{number} {unit:?}");
        }
    }
}
