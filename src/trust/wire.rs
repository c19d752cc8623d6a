//! The binary encoding of SSH (RFC 4251, section 5): numbers, strings and big numbers.
//!
//! Invariant: nothing here panics or allocates by a length it was told.

/// The bytes are not what their encoding promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Takes values from the front of a buffer.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.bytes(1)?[0])
    }

    pub(super) fn number(&mut self) -> Result<u32, Malformed> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        self.bytes(length as usize)
    }

    /// A positive big number in its shortest form, without the zero byte that keeps it positive.
    pub(super) fn positive(&mut self) -> Result<&'a [u8], Malformed> {
        let bytes = self.string()?;
        match bytes {
            [] | [0] => Err(Malformed("a number is zero")),
            [0, second, ..] if second & 0x80 == 0 => Err(Malformed("a number has leading zeros")),
            [0, rest @ ..] => Ok(rest),
            [first, ..] if first & 0x80 != 0 => Err(Malformed("a number is negative")),
            _ => Ok(bytes),
        }
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("something follows its end"))
        }
    }
}

/// Appends `value` as a string.
pub(super) fn put_string(out: &mut Vec<u8>, value: &[u8]) {
    let length = u32::try_from(value.len()).expect("no value of ours reaches 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_big_number_has_one_encoding() {
        #[track_caller]
        fn check(bytes: &[u8], expected: Result<&[u8], Malformed>) {
            let mut encoded = Vec::new();
            put_string(&mut encoded, bytes);
            assert_eq!(Reader::new(&encoded).positive(), expected);
        }
        check(&[1], Ok(&[1]));
        check(&[0, 0x80], Ok(&[0x80]));
        check(&[0, 1], Err(Malformed("a number has leading zeros")));
        check(&[0x80], Err(Malformed("a number is negative")));
        check(&[], Err(Malformed("a number is zero")));
        check(&[0], Err(Malformed("a number is zero")));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.string().is_ok() {}
            let _ = Reader::new(&bytes).positive();
        }
    }
}
