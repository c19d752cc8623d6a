//! The memory of this program: what it holds and does not need goes back to the system.
//!
//! Most of what an agent at rest would hold is from its work: the code that it ran, which the kernel maps by the megabyte, and the
//! holes between the little that it keeps. The kernel leaves both where they are until memory is short.
//!
//! Invariant: nothing is given back that could be missed. Of mappings only the program's own code is: private, never written, and in
//! its file, from whose pages in the kernel's cache it is mapped again as soon as it runs. The heap is trimmed by its own allocator. This
//! is the one module with `unsafe` in it, and a test holds that.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::with_exposed_provenance_mut;

use nix::libc;

/// Gives back what is not needed now. It costs a fraction of a millisecond, and a little more when the work goes on.
pub fn give_back() {
    trim_heap();
    // Where the kernel does not say what is mapped, nothing is given back.
    if let Some(code) = find_code() {
        code.iter().for_each(let_go);
    }
}

/// The pages between what is in use.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no safe way to ask for it")]
fn trim_heap() {
    // SAFETY: it takes the allocator's own locks, and touches only what is free.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators have no such call.
#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

#[expect(unsafe_code, reason = "there is no safe way to ask for it")]
fn let_go(code: &Range<usize>) {
    // SAFETY: `code` is where the program's own code is mapped from its file, as long as the process lives. It cannot be written, so
    // that every page is as it is in the file, which cannot be written either while it runs: whoever looks next, finds the same.
    unsafe {
        libc::madvise(
            with_exposed_provenance_mut::<c_void>(code.start),
            code.len(),
            libc::MADV_DONTNEED,
        )
    };
}

/// Where the program's code is.
#[allow(clippy::disallowed_methods, reason = "it looks at itself")]
fn find_code() -> Option<Vec<Range<usize>>> {
    let program = std::fs::read_link("/proc/self/exe").ok()?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    Some(code_of(&maps, program.to_str()?))
}

/// Where `maps`, in the format of proc_pid_maps(5), has code of the file at `program`: readable, executable, private, not writable.
fn code_of(maps: &str, program: &str) -> Vec<Range<usize>> {
    let code = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let file = rest.strip_prefix("r-xp ")?.splitn(4, ' ').nth(3)?;
        let (start, end) = range.split_once('-')?;
        let address = |digits| usize::from_str_radix(digits, 16).ok();
        (file.trim_start() == program).then_some(address(start)?..address(end)?)
    };
    maps.lines().filter_map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_code_is_given_back() {
        let maps = "\
55ef6e15b000-55ef6e346000 r--p 00000000 00:29 5696377                    /usr/bin/limpet
55ef6e346000-55ef6ea84000 r-xp 001ea000 00:29 5696377                    /usr/bin/limpet
55ef6ea84000-55ef6eac2000 r--p 00927000 00:29 5696377                    /usr/bin/limpet
55ef6eac2000-55ef6eac8000 rw-p 00964000 00:29 5696377                    /usr/bin/limpet
55ef6eac8000-55ef6eac9000 rw-p 00000000 00:00 0
55ef6eac9000-55ef6eaca000 rwxp 00000000 00:29 5696377                    /usr/bin/limpet
55ef6eaca000-55ef6eacb000 r-xs 00000000 00:29 5696377                    /usr/bin/limpet
55ef8e1d6000-55ef8ee42000 rw-p 00000000 00:00 0                          [heap]
7f9045bcc000-7f9045d22000 r-xp 00026000 00:29 5374542                    /usr/lib/x86_64-linux-gnu/libc.so.6
7f9045d22000-7f9045d23000 r-xp 00000000 00:00 0
7ffd4b5c1000-7ffd4b5c3000 r-xp 00000000 00:00 0                          [vdso]
";
        let code = 0x55ef_6e34_6000..0x55ef_6ea8_4000;
        assert_eq!(code_of(maps, "/usr/bin/limpet"), [code]);
        assert!(code_of(maps, "/usr/bin/limpet (deleted)").is_empty());
        assert!(code_of("", "/usr/bin/limpet").is_empty());
    }

    /// How much of the code of this program is held, in KiB.
    #[allow(
        clippy::disallowed_methods,
        reason = "the test looks from outside of the module"
    )]
    fn held() -> usize {
        let code = find_code().unwrap();
        let all = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = all.lines();
        let mut held = 0;
        for range in code {
            let start = format!("{:x}-{:x} ", range.start, range.end);
            lines.find(|line| line.starts_with(&start)).unwrap();
            let size = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
            held += size
                .trim()
                .trim_end_matches(" kB")
                .parse::<usize>()
                .unwrap();
        }
        held
    }

    #[test]
    fn code_that_is_given_back_is_not_held_and_runs_again() {
        let kept: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let before = held();
        give_back();
        assert!(held() < before, "{} of {before} KiB are held", held());
        assert!(
            kept.iter()
                .zip(0..)
                .all(|(it, number)| *it == number.to_string())
        );
    }
}
