//! The fleet's name in a revision: the one value of fleet.toml that trust reads.

/// Where the name stands, below the directory of the fleet.
pub(super) const FILE: &str = "fleet.toml";
/// The largest fleet.toml that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// The name in the text of a fleet.toml; None when it has none.
///
/// Where the file is no TOML, the line that sets the name is looked for: a typo elsewhere in the file is the author's mistake, to be
/// reported with its line by whoever renders it, and must not look like an attack.
pub(super) fn parse(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.len() <= MAX_BYTES)?;
    let name = match text.parse::<toml::Table>() {
        Ok(table) => table.get("fleet")?.as_str()?.to_owned(),
        Err(_) => text
            .lines()
            .take_while(|line| !line.trim_start().starts_with('['))
            .filter_map(|line| line.parse::<toml::Table>().ok())
            .find_map(|table| Some(table.get("fleet")?.as_str()?.to_owned()))?,
    };
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_even_beside_a_typo() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(parse(text.as_bytes()).as_deref(), expected, "{text}");
        }
        check("format = 1\nfleet = \"acme\"\n", Some("acme"));
        check(
            "fleet = \"acme\"\n[[match]]\nhosts = [\"*\"\n",
            Some("acme"),
        );
        check("format = = 1\nfleet = \"acme\" # ours\n", Some("acme"));
        check("[match]\nfleet = \"acme\"\n", None);
        check("[match\nfleet = \"acme\"\n", None);
        check("fleet = 7\n", None);
        check("fleet = \"\"\n", None);
        check("", None);
        assert_eq!(parse(b"fleet = \"\xff\"\n"), None);
    }
}
