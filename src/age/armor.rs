//! Sealed bytes as letters: strict PEM with the label of age.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
const COLUMNS: usize = 64;

/// Does it begin as such letters do.
pub fn is_armored(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(BEGIN.as_bytes())
}

/// `bytes` as letters.
pub fn write(bytes: &[u8]) -> String {
    let letters = STANDARD.encode(bytes);
    let mut text = format!("{BEGIN}\n");
    let mut rest = letters.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(COLUMNS));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// The bytes that `text` stands for.
pub fn read(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no text")?;
    let mut lines = text.trim().lines();
    if lines.next() != Some(BEGIN) {
        return Err("its first line is another than age's");
    }
    let mut letters = String::with_capacity(text.len());
    let mut was_short = false;
    loop {
        match lines.next() {
            Some(END) => break,
            Some(line) if was_short || line.is_empty() || line.len() > COLUMNS => {
                return Err("its lines are not 64 letters long");
            }
            Some(line) => {
                was_short = line.len() < COLUMNS;
                letters.push_str(line);
            }
            None => return Err("its last line is missing"),
        }
    }
    if lines.next().is_some() {
        return Err("something follows its last line");
    }
    STANDARD
        .decode(letters)
        .map_err(|_| "its letters are no base64")
}
