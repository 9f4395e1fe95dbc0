//! The interval of `@every`: a duration as Go writes it, such as `1h30m`, `1.5h` or `90s`.
//!
//! Must agree with CronJob to the second, also where that is odd: less than a second, or less than nothing, is a
//! second, and what is above whole seconds is cut off.

const SECOND: u64 = 1_000_000_000;
/// Go's durations are 64 bits of nanoseconds with a sign.
const MOST: u64 = 1 << 63;

/// Whole seconds, at least one.
pub(super) fn seconds(text: &str) -> Result<i64, String> {
    let (minus, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return Err("the interval is missing".into());
    }
    let mut total = 0_u64;
    while rest != "0" && !rest.is_empty() {
        let (nanoseconds, left) = part(rest)?;
        total = total.checked_add(nanoseconds).filter(|total| *total <= MOST).ok_or_else(too_long)?;
        rest = left;
        // A lone 0 needs no unit, but only when nothing else was said.
        if rest == "0" {
            return Err("\"0\" has no unit".into());
        }
    }
    if minus {
        return Ok(1);
    }
    if total == MOST {
        return Err(too_long());
    }
    Ok(i64::try_from(total / SECOND).unwrap_or(i64::MAX).max(1))
}

fn too_long() -> String {
    "the interval is longer than 292 years".into()
}

/// A number with its unit, in nanoseconds, and what follows.
fn part(text: &str) -> Result<(u64, &str), String> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    if whole.is_empty() && fraction.is_empty() {
        return Err(format!("{text:?} does not begin with a number"));
    }
    let nanoseconds = match unit {
        "ns" => 1,
        // MICRO SIGN, GREEK SMALL LETTER MU
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        "" => return Err(format!("{text:?} has no unit")),
        _ => return Err(format!("{unit:?} is no unit; units are h, m, s, ms, us and ns")),
    };
    let number: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long())? };
    let sum = number.checked_mul(nanoseconds).and_then(|sum| sum.checked_add(part_of(fraction, nanoseconds)));
    sum.filter(|sum| *sum <= MOST).map(|sum| (sum, rest)).ok_or_else(too_long)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The digits behind the point, as a part of the unit; computed as Go does, so that rounding is the same.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn part_of(fraction: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1_f64);
    for digit in fraction.bytes().map(|byte| u64::from(byte - b'0')) {
        // Further digits would not change anything that is kept.
        let Some(more) = value.checked_mul(10).map(|tens| tens + digit).filter(|more| *more < MOST) else { break };
        (value, scale) = (more, scale * 10.0);
    }
    (value as f64 * (unit as f64 / scale)) as u64
}
