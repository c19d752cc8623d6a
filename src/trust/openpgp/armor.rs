//! The form of an OpenPGP signature: the armor that git keeps, and the one packet inside (RFC 9580, 4.2 and 6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checksum::crc24;

const BEGIN: &[u8] = b"-----BEGIN PGP SIGNATURE-----";
const END: &[u8] = b"-----END PGP SIGNATURE-----";
/// What GnuPG and sequoia break their lines at.
const WIDTH: usize = 64;

/// Is this the beginning of an OpenPGP signature?
pub(in crate::trust) fn is_armor(armor: &[u8]) -> bool {
    armor.split(|&byte| byte == b'\n').next() == Some(BEGIN)
}

/// The bytes inside the armor, which has no headers, and a checksum that is right where there is one.
pub(super) fn decode(armor: &[u8]) -> Result<Vec<u8>, &'static str> {
    let lines: Vec<&[u8]> = armor.split(|&byte| byte == b'\n').collect();
    let [BEGIN, b"", body @ .., END] = lines.as_slice() else {
        return Err("its armor is not just the two lines and an empty one");
    };
    let (body, checksum) = match body.split_last() {
        Some((last, body)) if last.len() == 5 && last.starts_with(b"=") => (body, Some(&last[1..])),
        _ => (body, None),
    };
    let (last, full) = body.split_last().ok_or("it is empty")?;
    if last.is_empty() || last.len() > WIDTH || full.iter().any(|line| line.len() != WIDTH) {
        return Err("its lines are not of 64 characters");
    }
    let text = body.concat();
    let bytes = STANDARD.decode(&text).map_err(|_| "it is not base64")?;
    if STANDARD.encode(&bytes).as_bytes() != text {
        return Err("it is not base64");
    }
    let expected = STANDARD.encode(crc24(&bytes));
    match checksum.is_none_or(|checksum| checksum == expected.as_bytes()) {
        true => Ok(bytes),
        false => Err("its checksum is wrong"),
    }
}

/// The body of the one packet there is, whose length is written as short as can be.
pub(super) fn only_signature(packet: &[u8]) -> Option<&[u8]> {
    let (length, body): (usize, &[u8]) = match packet {
        // The legacy format, then the present one.
        [0x88, length, body @ ..] => (usize::from(*length), body),
        [0x89, high, low, body @ ..] if *high > 0 => {
            (usize::from(u16::from_be_bytes([*high, *low])), body)
        }
        [0xC2, length @ 0..=191, body @ ..] => (usize::from(*length), body),
        [0xC2, high @ 192..=223, low, body @ ..] => (
            (usize::from(*high) - 192) * 256 + usize::from(*low) + 192,
            body,
        ),
        _ => return None,
    };
    (body.len() == length).then_some(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As git 2.47 keeps what gpg 2.2 signs.
    const REAL: &str = "\
-----BEGIN PGP SIGNATURE-----

iHUEABYIAB0WIQSVhP4HZDphDYYQ1jctzOqvF39uPgUCawmnpQAKCRAtzOqvF39u
PiDDAP9cv8HNDDTe1TiSXDqb56rmw9KGwcSAadlyLimcCupV8AD/YEoojBIrSMxQ
6kvU99G2/7vJmBIATy2nMJ0JcTNmiQo=
=DPGw
-----END PGP SIGNATURE-----";

    #[test]
    fn what_gpg_writes_is_one_packet() {
        let packet = decode(REAL.as_bytes()).unwrap();
        let body = only_signature(&packet).unwrap();
        assert_eq!(body.len(), packet.len() - 2);
        assert_eq!(body[0], 4, "the version");
        assert!(is_armor(REAL.as_bytes()));
    }

    #[test]
    fn there_is_one_text_for_each_form() {
        let refused = |text: &str| decode(text.as_bytes()).err().unwrap_or("taken");
        insta::assert_snapshot!([
            refused(&format!("{REAL}\n")),
            refused(&REAL.replacen("\n\n", "\nComment: hello\n\n", 1)),
            refused(&REAL.replacen("\n\n", "\n\n\n", 1)),
            refused(&REAL.replace('\n', "\r\n")),
            refused(&REAL.replacen("\n=", "\n=A", 1)),
            refused(&REAL.replacen("\ni", "\n", 1)),
        ].join("\n"), @r"
        its armor is not just the two lines and an empty one
        its armor is not just the two lines and an empty one
        its lines are not of 64 characters
        its armor is not just the two lines and an empty one
        its lines are not of 64 characters
        its lines are not of 64 characters
        ");
        let packet = decode(REAL.as_bytes()).unwrap();
        for longer in [
            [packet.as_slice(), &packet].concat(),
            [&packet[..], &[0]].concat(),
        ] {
            assert_eq!(only_signature(&longer), None);
        }
        // The same length in the form for long ones.
        let body = only_signature(&packet).unwrap();
        let length = u8::try_from(body.len()).unwrap();
        let wide = [&[0x89, 0, length][..], body].concat();
        assert_eq!(only_signature(&wide), None);
        let present = [&[0xC2, length][..], body].concat();
        assert_eq!(only_signature(&present), Some(body));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), at in 0usize..400, byte: u8) {
            let _ = decode(&bytes);
            let _ = only_signature(&bytes);
            let mut nearly = REAL.as_bytes().to_owned();
            let at = at % nearly.len();
            nearly[at] = byte;
            let _ = decode(&nearly);
        }
    }
}
