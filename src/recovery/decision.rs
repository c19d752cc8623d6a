//! What to do about an agent that cannot start.

use crate::recovery::kept::Kept;

/// What is known when it is decided.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The last good program.
    pub kept: Option<&'a Kept>,
    /// The version that is installed, where dpkg tells.
    pub installed: Option<&'a str>,
    /// SHA-256 of the installed program; none where there is no such file.
    pub program: Option<[u8; 32]>,
    /// The agent said that the host configuration is wrong.
    pub blames_configuration: bool,
    /// The kept program finds it wrong, too.
    pub is_configuration_wrong: bool,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it waits for the operator to put its configuration right.
    Wait,
    /// It is the program that has proven itself: something else is wrong, perhaps for a moment.
    StartAgain,
    /// It is the version that has proven itself, but not its bytes.
    PutBack,
    /// It is another version, which never worked here.
    TakeBack,
}

/// Decides.
pub fn decide(facts: &Facts<'_>) -> Verdict {
    let waits = facts.blames_configuration;
    let sound = if waits {
        Verdict::Wait
    } else {
        Verdict::StartAgain
    };
    let Some(kept) = facts.kept else {
        return sound; // there is nothing to go back to
    };
    if facts.program == Some(kept.sha256) || (waits && facts.is_configuration_wrong) {
        return sound;
    }
    match facts.installed {
        Some(installed) if installed != kept.version => Verdict::TakeBack,
        _ => Verdict::PutBack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    const GOOD: [u8; 32] = [1; 32];
    const BAD: [u8; 32] = [2; 32];

    #[test]
    fn only_what_has_not_proven_itself_is_taken_back() {
        let kept = Kept {
            version: "1".to_owned(),
            sha256: GOOD,
            bytes: 1,
            at: Timestamp::UNIX_EPOCH,
        };
        let check = |kept: Option<&Kept>, installed, program, configuration, expected| {
            let (blames_configuration, is_configuration_wrong) = configuration;
            let facts = Facts {
                kept,
                installed,
                program,
                blames_configuration,
                is_configuration_wrong,
            };
            assert_eq!(decide(&facts), expected, "{facts:?}");
        };
        let kept = Some(&kept);
        let fine = (false, false);
        check(kept, Some("2"), Some(BAD), fine, Verdict::TakeBack);
        check(kept, Some("2"), None, fine, Verdict::TakeBack);
        check(kept, Some("1"), Some(BAD), fine, Verdict::PutBack);
        check(kept, Some("1"), None, fine, Verdict::PutBack);
        check(kept, None, Some(BAD), fine, Verdict::PutBack);
        check(kept, Some("1"), Some(GOOD), fine, Verdict::StartAgain);
        // It was put back already.
        check(kept, Some("2"), Some(GOOD), fine, Verdict::StartAgain);
        check(None, Some("2"), Some(BAD), fine, Verdict::StartAgain);
        // A configuration that the older program accepts is no mistake of the operator's.
        check(kept, Some("2"), Some(BAD), (true, false), Verdict::TakeBack);
        check(kept, Some("2"), Some(BAD), (true, true), Verdict::Wait);
        check(kept, Some("1"), Some(GOOD), (true, true), Verdict::Wait);
        check(None, Some("2"), Some(BAD), (true, false), Verdict::Wait);
    }
}
