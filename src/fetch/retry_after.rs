//! How long a server asks to be left alone: `Retry-After` (RFC 9110 section 10.2.3).

use jiff::Timestamp;

/// The longest wait that is honoured, in seconds: a server that asks for a year made a mistake.
const MAX_SECS: u64 = 24 * 60 * 60;

/// The time now. The fetcher is another process, and has a clock of its own.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Reads `value`, which is a number of seconds or a date; a date is relative to the server's own `date`, because one of the two
/// clocks may be wrong, and to `now` where the server says none. `None` when it makes no sense. A date that is past is no wait.
pub fn parse(value: &str, date: Option<&str>, now: Timestamp) -> Option<u64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are many seconds all the same.
        return Some(value.parse().unwrap_or(u64::MAX).min(MAX_SECS));
    }
    let until = parse_date(value)?;
    let from = date.and_then(parse_date).unwrap_or(now);
    let secs = until.as_second().saturating_sub(from.as_second());
    Some(u64::try_from(secs).unwrap_or(0).min(MAX_SECS))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`: the only form that servers may still send.
fn parse_date(text: &str) -> Option<Timestamp> {
    let text = text.trim().strip_suffix(" GMT")?;
    let time = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", text).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_bounded() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let check = |value: &str, date: Option<&str>| parse(value, date, now);
        assert_eq!(check("120", None), Some(120));
        assert_eq!(check(" 0 ", None), Some(0));
        assert_eq!(check("86401", None), Some(86_400));
        assert_eq!(check("99999999999999999999999", None), Some(86_400));
        assert_eq!(check("Sat, 21 Nov 2026 12:01:30 GMT", None), Some(90));
        assert_eq!(check("Sat, 21 Nov 2026 11:00:00 GMT", None), Some(0));
        assert_eq!(check("Sat, 21 Nov 2099 11:00:00 GMT", None), Some(86_400));
        // A host whose clock stands in 1970 waits as long as the server means.
        let server = Some("Wed, 01 Jan 2031 00:00:00 GMT");
        assert_eq!(check("Wed, 01 Jan 2031 00:02:00 GMT", server), Some(120));
        for nonsense in ["", "-1", "1.5", "soon", "Fri, 21 Nov 2026", "2026-11-21"] {
            assert_eq!(check(nonsense, None), None, "{nonsense}");
        }
    }
}
