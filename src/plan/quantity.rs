//! Sizes as Kubernetes writes them (`10Gi`, `1500M`, `1e9`), as bytes.

/// None for what is no quantity.
pub fn bytes(text: &str) -> Option<u128> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (times, tens): (u128, i32) = match suffix {
        "" => (1, 0),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        exponent => (1, exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|tens: &i32| tens.abs() < 19)?),
    };
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let tens = tens - i32::try_from(fraction.len()).ok()?;
    let power = 10_u128.checked_pow(tens.unsigned_abs())?;
    let product = digits.checked_mul(times)?;
    // A part of a byte counts as one.
    if tens < 0 { Some(product.div_ceil(power)) } else { product.checked_mul(power) }
}

/// Whether `one` is more than `other`; what cannot be read is not more.
pub fn exceeds(one: &str, other: &str) -> bool {
    bytes(one).zip(bytes(other)).is_some_and(|(one, other)| one > other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_every_notation() {
        for (text, wanted) in [
            ("0", 0),
            ("1024", 1024),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("2G", 2_000_000_000),
            ("1e9", 1_000_000_000),
            ("12E3", 12_000),
            ("1500m", 2),
            ("0.1", 1),
        ] {
            assert_eq!(bytes(text), Some(wanted), "{text}");
        }
        for text in ["", "Gi", "1Gb", "1 Gi", "-1", "1e99"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert!(exceeds("1Gi", "1G") && !exceeds("1Gi", "1024Mi") && !exceeds("x", "1"));
    }
}
