//! A comparison as a comment on a pull request.
//!
//! Invariant: whatever the repository says stands in code spans and fences that it cannot close, and the whole is never longer than
//! asked for.

use std::fmt::Write;

use super::content::Shown;
use super::counted;
use super::hosts::{Comparison, Group};
use super::text::{mark, removal_warning, some_of, summary, title, told_fields, words_for_fate};
use crate::document::single_line;
use crate::fleet::compare::{ChangeKind, Difference};

/// What fits in a comment on a forge (65,536 characters), with room for a line or two around it.
pub(super) const LIMIT_CHARACTERS: usize = 65_000;

/// Longer diffs are cut: nobody reads them in a comment.
const LIMIT_LINES: usize = 200;

/// The comparison as Markdown of at most `limit` characters.
pub(super) fn report(comparison: &Comparison, limit: usize) -> String {
    let mut page = Page {
        text: format!(
            "### limpet: {}\n\n{} → {}\n",
            summary(comparison),
            code(&comparison.before),
            code(&comparison.after)
        ),
        // What is left out is told in the end.
        left: 0,
        limit: limit.saturating_sub(300),
        left_out: 0,
    };
    page.left = page.limit.saturating_sub(page.text.chars().count());
    mistakes(&mut page, comparison);
    for group in &comparison.groups {
        let heading = heading(group);
        page.add(&heading);
        for (difference, shown) in &group.differences {
            if !page.add(&change(difference, shown.as_ref())) {
                page.left_out += 1;
            }
        }
        page.add(&consequences(group));
    }
    if page.left_out > 0 {
        let _ = write!(
            page.text,
            "\n**{} not shown here, for want of room.** Run `limpet diff` to see all.\n",
            match page.left_out {
                1 => "1 change is".to_owned(),
                number => format!("{number} changes are"),
            }
        );
    }
    page.text
}

/// A text that may not grow beyond its limit. Once a block did not fit, nothing more is added.
struct Page {
    text: String,
    limit: usize,
    left: usize,
    left_out: usize,
}

impl Page {
    /// Adds `block` if there is room, and tells whether there was.
    fn add(&mut self, block: &str) -> bool {
        let length = block.chars().count();
        if length > self.left {
            self.left = 0;
            return block.is_empty();
        }
        self.left -= length;
        self.text.push_str(block);
        true
    }
}

fn mistakes(page: &mut Page, comparison: &Comparison) {
    for (side, mistakes) in [
        (&comparison.after, &comparison.mistakes_after),
        (&comparison.before, &comparison.mistakes_before),
    ] {
        if mistakes.is_empty() {
            continue;
        }
        page.add(&format!(
            "\n#### {} in {}\n\n",
            counted(mistakes.len(), "mistake"),
            code(side)
        ));
        for mistake in mistakes {
            page.add(&format!("- {}\n", code(&mistake.to_string())));
        }
    }
}

fn heading(group: &Group) -> String {
    let names: Vec<&str> = group.hosts.iter().map(|host| host.name.as_str()).collect();
    let spans: Vec<String> = some_of(&names)
        .into_iter()
        .map(|name| {
            if name == "…" {
                name.to_owned()
            } else {
                code(name)
            }
        })
        .collect();
    let mut text = format!(
        "\n#### {}: {}\n",
        counted(names.len(), "host"),
        spans.join(", ")
    );
    if let Some(words) = words_for_fate(group) {
        let _ = write!(text, "\n{words}\n");
    }
    text
}

fn change(difference: &Difference, shown: Option<&Shown>) -> String {
    let word = match difference.change {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Changed => "changed",
    };
    let mut text = format!(
        "\n{} {} **{word}**",
        code(&mark(difference.change).to_string()),
        code(&title(difference))
    );
    let fields = told_fields(difference);
    if difference.change == ChangeKind::Removed {
        let _ = write!(text, " ({})", fields.join(", "));
    } else {
        let spans: Vec<String> = fields.iter().map(|field| code(field)).collect();
        if !spans.is_empty() {
            let _ = write!(text, " {}", spans.join(", "));
        }
    }
    text.push('\n');
    match shown {
        Some(Shown::Diff(diff)) => text.push_str(&fence(diff)),
        Some(Shown::Words(words)) => {
            let _ = write!(text, "\ncontent: {words}\n");
        }
        None => {}
    }
    text
}

fn consequences(group: &Group) -> String {
    let mut text = String::new();
    for implied in &group.implied {
        let because: Vec<String> = implied
            .because
            .iter()
            .map(|id| code(&id.to_string()))
            .collect();
        let _ = write!(
            text,
            "\n**{}** {} if it is active, because of {}\n",
            implied.action,
            code(&implied.unit.to_string()),
            because.join(", ")
        );
    }
    if let Some(warning) = removal_warning(group) {
        let _ = write!(text, "\n**Warning:** {warning}\n");
    }
    text
}

/// A code span with `text`, whatever it holds.
fn code(text: &str) -> String {
    let text = single_line(text);
    let ticks = "`".repeat(longest_run(&text) + 1);
    // A space that touches a backtick, or is alone, would not be seen.
    let pad = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) || text.is_empty() {
        " "
    } else {
        ""
    };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

/// A fenced block with the lines of `diff`.
fn fence(diff: &str) -> String {
    let fence = "`".repeat(longest_run(diff).max(2) + 1);
    let lines: Vec<&str> = diff.lines().collect();
    let shown = lines.len().min(LIMIT_LINES);
    let mut text = format!("\n{fence}diff\n");
    for line in &lines[..shown] {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&fence);
    text.push('\n');
    if lines.len() > shown {
        let _ = write!(text, "\n… {} more\n", counted(lines.len() - shown, "line"));
    }
    text
}

/// The length of the longest run of backticks.
fn longest_run(text: &str) -> usize {
    text.split(|character| character != '`')
        .map(str::len)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_code_span_cannot_be_closed_from_within() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(code(text), expected);
        }
        check("file:/etc/motd", "`file:/etc/motd`");
        check("a`b", "``a`b``");
        check("``", "``` `` ```");
        check("a\n\n# b", "`a\\n\\n# b`");
        check("", "`  `");
    }

    proptest! {
        #[test]
        fn a_fence_is_closed_by_its_last_line_alone(diff in "[`a \n~]{0,60}") {
            let block = fence(&diff);
            let mut lines = block.trim_start_matches('\n').lines();
            let opening = lines.next().unwrap().trim_end_matches("diff").to_owned();
            let body: Vec<&str> = lines.collect();
            let closing = body.iter().position(|line| line.trim().starts_with(&opening));
            prop_assert_eq!(closing, Some(body.len() - 1));
        }
    }
}
