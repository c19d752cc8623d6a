//! What a unit's declared files say about it: just enough to refuse what can never converge.

/// Does a service with these texts (its file, then its drop-ins) end by itself and count as inactive then, so that keeping it running
/// would start it again and again.
pub(super) fn never_stays_active<'a>(texts: impl IntoIterator<Item = &'a str>) -> bool {
    let mut is_oneshot = false;
    let mut remains = false;
    for text in texts {
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            match (section, key.trim()) {
                ("[Service]", "Type") => is_oneshot = value.trim() == "oneshot",
                ("[Service]", "RemainAfterExit") => {
                    // The words systemd takes for true, systemd.syntax(7).
                    remains = ["1", "yes", "y", "true", "t", "on"]
                        .iter()
                        .any(|word| value.trim().eq_ignore_ascii_case(word));
                }
                _ => {}
            }
        }
    }
    is_oneshot && !remains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(texts: &[&str], expected: bool) {
        assert_eq!(never_stays_active(texts.iter().copied()), expected);
    }

    #[test]
    fn a_oneshot_that_does_not_remain_never_stays_active() {
        check(&["[Service]\nType=oneshot\nExecStart=/bin/true\n"], true);
        check(&["[Service]\nType = oneshot\nRemainAfterExit=yes\n"], false);
        check(&["[Service]\nExecStart=/bin/true\n"], false);
        check(&["[Unit]\nType=oneshot\n"], false);
        check(
            &["[Service]\nType=oneshot\n", "[Service]\nRemainAfterExit=on"],
            false,
        );
        check(
            &["[Service]\nType=oneshot\n", "[Service]\nType=exec"],
            false,
        );
    }
}
