//! How many objects a pack says it holds, read off the answer to a fetch while it passes by.
//!
//! A pack begins with `PACK`, its version and the number of its objects, and travels in packet lines of side-band 1
//! (gitprotocol-pack(5)). Who unpacks it reserves memory by that number, so it is looked at before anybody else sees it.

use super::Trouble;
use super::attempt::Attempt;

/// What has passed by of one answer.
#[derive(Debug, Default)]
pub struct PackHeader {
    state: State,
    /// The beginning of the pack, so far; a server may send it in as many pieces as it likes.
    header: [u8; 12],
    filled: usize,
}

#[derive(Debug)]
enum State {
    /// So much of the four digits before a packet.
    Length([u8; 4], usize),
    /// The next byte says what the packet is, and so many are to come.
    Start(usize),
    /// So many bytes of the pack are to come in this packet.
    Pack(usize),
    /// So many bytes of another packet are to come.
    Other(usize),
    /// A pack without packets around it.
    Bare,
    /// It has been seen, or there is none.
    Done,
}

impl Default for State {
    fn default() -> Self {
        State::Length([0; 4], 0)
    }
}

impl PackHeader {
    /// Looks at the next `bytes`, and refuses a pack of too many objects.
    pub fn check(&mut self, attempt: &Attempt, bytes: &[u8]) -> Result<(), Trouble> {
        match self.feed(bytes) {
            Some(count) => attempt.count_objects(count),
            None => Ok(()),
        }
    }

    /// The number of objects, when these bytes complete it.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<u32> {
        for byte in bytes {
            if matches!(self.state, State::Done) {
                return None;
            }
            self.step(*byte);
            if self.filled == self.header.len() {
                self.state = State::Done;
                self.filled = 0;
                return count(&self.header);
            }
        }
        None
    }

    fn step(&mut self, byte: u8) {
        let state = std::mem::replace(&mut self.state, State::Done);
        self.state = match state {
            State::Done => State::Done,
            State::Length(mut digits, filled) => {
                digits[filled] = byte;
                match filled {
                    3 => self.after_length(digits),
                    _ => State::Length(digits, filled + 1),
                }
            }
            State::Start(left) if byte == 1 => State::Pack(left - 1),
            State::Start(left) | State::Other(left) => State::Other(left - 1),
            State::Pack(left) => {
                self.keep(byte);
                State::Pack(left - 1)
            }
            State::Bare => {
                self.keep(byte);
                State::Bare
            }
        };
        if let State::Pack(0) | State::Other(0) = self.state {
            self.state = State::default();
        }
    }

    fn keep(&mut self, byte: u8) {
        self.header[self.filled] = byte;
        self.filled += 1;
    }

    fn after_length(&mut self, digits: [u8; 4]) -> State {
        if &digits == b"PACK" && self.filled == 0 {
            digits.into_iter().for_each(|byte| self.keep(byte));
            return State::Bare;
        }
        let length = std::str::from_utf8(&digits)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        match length {
            Some(0..=4) => State::default(),
            Some(length) => State::Start(length - 4),
            None => State::Done,
        }
    }
}

/// The number of objects that a pack's first twelve bytes name.
pub fn count(header: &[u8; 12]) -> Option<u32> {
    let [b'P', b'A', b'C', b'K', _, _, _, _, a, b, c, d] = header else {
        return None;
    };
    Some(u32::from_be_bytes([*a, *b, *c, *d]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(data: &[u8]) -> Vec<u8> {
        [format!("{:04x}", data.len() + 4).as_bytes(), data].concat()
    }

    fn answer() -> Vec<u8> {
        let pack = b"\x01PACK\0\0\0\x02\0\x01\0\x03and the rest";
        let parts = [packet(b"packfile\n"), packet(b"\x02progress"), packet(pack)];
        [parts.concat(), b"0000".to_vec()].concat()
    }

    #[test]
    fn the_number_is_found_wherever_the_answer_is_cut() {
        let answer = answer();
        for size in [1, 2, 3, 7, answer.len()] {
            let mut header = PackHeader::default();
            let found = answer
                .chunks(size)
                .filter_map(|bytes| header.feed(bytes))
                .collect::<Vec<_>>();
            assert_eq!(found, [0x0001_0003], "{size}");
        }
        let pieces = b"\x01PACK\0\0\0\x02\0\0\0\x07"[1..].iter();
        let pieces: Vec<u8> = pieces.flat_map(|byte| packet(&[1, *byte])).collect();
        assert_eq!(PackHeader::default().feed(&pieces), Some(7));
        let bare = [packet(b"NAK\n"), b"PACK\0\0\0\x02\0\0\0\x09".to_vec()].concat();
        assert_eq!(PackHeader::default().feed(&bare), Some(9));
        assert_eq!(PackHeader::default().feed(b"0000"), None);
        assert_eq!(PackHeader::default().feed(b"<html>"), None);
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in any::<Vec<u8>>(), cut in 1usize..50) {
            let mut header = PackHeader::default();
            for bytes in answer()[..cut].iter().chain(&bytes).copied().collect::<Vec<u8>>().chunks(cut) {
                let _ = header.feed(bytes);
            }
        }
    }
}
