//! What a batch is about to do to contents, for the audit trail.
//!
//! Invariant: bounded in number and in bytes for each walk, so that the first apply of many files is not slowed down by them; a content
//! that not everybody may read yields no diff.

use std::collections::BTreeMap;

use crate::kinds;
use crate::kinds::kind::Contents;
use crate::plan::{Change, Step};
use crate::sys::Host;

/// The longest diff that is kept, in bytes.
const LONGEST_BYTES: usize = 64 << 10;

/// How many bytes of diffs one walk keeps.
const WALK_BYTES: usize = 1 << 20;

/// How many diffs one walk makes.
const WALK_COUNT: usize = 256;

/// The diffs of the batch at hand, and what is left for those to come.
#[derive(Debug)]
pub(super) struct Diffs {
    by_path: BTreeMap<String, String>,
    bytes_left: usize,
    count_left: usize,
}

impl Default for Diffs {
    fn default() -> Self {
        Diffs {
            by_path: BTreeMap::new(),
            bytes_left: WALK_BYTES,
            count_left: WALK_COUNT,
        }
    }
}

impl Diffs {
    /// Compares what `steps` are about to change with what is there now.
    pub fn take<'a>(
        &mut self,
        host: &Host,
        contents: &dyn Contents,
        steps: impl Iterator<Item = &'a Step> + Clone,
    ) {
        self.by_path.clear();
        if self.count_left == 0 || self.bytes_left == 0 {
            return;
        }
        let closing = kinds::file::closing(steps.clone().filter_map(|step| match &step.change {
            Change::Path(change) => Some(change.as_ref()),
            _ => None,
        }));
        for step in steps {
            let Change::Path(change) = &step.change else {
                continue;
            };
            if self.count_left == 0 || self.bytes_left == 0 {
                return;
            }
            // What cannot be compared is not kept: whether it can be changed is for the step itself to say.
            let Ok(Some(diff)) = kinds::file::diff(host, contents, change, &closing) else {
                continue;
            };
            self.count_left -= 1;
            let diff = shortened(diff);
            if diff.len() <= self.bytes_left {
                self.bytes_left -= diff.len();
                self.by_path.insert(change.path.to_string(), diff);
            }
        }
    }

    /// The diff of `step`, which was made.
    pub fn of(&mut self, step: &Step) -> Option<String> {
        match &step.change {
            Change::Path(change) => self.by_path.remove(change.path.as_str()),
            _ => None,
        }
    }
}

/// `diff` up to the last whole line that fits, and how much is missing.
fn shortened(diff: String) -> String {
    if diff.len() <= LONGEST_BYTES {
        return diff;
    }
    let fits = &diff.as_bytes()[..LONGEST_BYTES];
    let end = fits
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let missing = diff[end..].lines().count();
    format!("{}({missing} more lines were not kept)\n", &diff[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_that_is_too_long_ends_with_a_whole_line_and_says_so() {
        let line = "+ä, one of many lines\n";
        let long = line.repeat(5000);
        let short = shortened(long.clone());
        assert!(short.len() < LONGEST_BYTES + 100);
        let kept = short.matches(line).count();
        let end = format!("({} more lines were not kept)\n", 5000 - kept);
        assert!(short.ends_with(&end), "{}", &short[short.len() - 80..]);
        assert_eq!(shortened(line.to_owned()), line);
    }
}
