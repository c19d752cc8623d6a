use proptest::prelude::*;

use super::*;

/// Made by `age-keygen` 1.1.1, and what `age` 1.1.1 made of "hunter2\n" for it.
const KEY: &str = "AGE-SECRET-KEY-18DLR83SR2AM8R6VREY0ZWH4JRFTRFSUPN5EKMNFAFP36VZR7WKFQJ63J9C";
const RECIPIENT: &str = "age1flhqeaqcha4sgelzta3vwgry0hslggm6q5m3el8t2k4ccz7fkdvqtzk4tr";
const SEALED: &str = "-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSB0TkNVYnBiM2lDdlJOUHEw\nUHMwalFzcE9VV1h0bHVCaWJycmlPTlY4QjM0CmJUenkwZ0NzM1hZWk9WZXFWcmNi\nK2kxZkhIOHdKb01RSUlOczhqRFBIY1UKLS0tIGFRYzVhRGV1K2ZaUkkxNEFhNDJK\nWmwxMEFETW1reGNBUjd2WGdKY05hN2cKMd8O49sAMZT+Er2TAuUd6u/cBXauWE9m\n2HpBLGdjlGpSDVOHI9k3VQ==\n-----END AGE ENCRYPTED FILE-----\n";

fn without_letters(sealed: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = ArmoredReader::new(sealed.as_bytes()).read_to_end(&mut bytes);
    read.unwrap();
    bytes
}

#[test]
fn what_age_itself_sealed_is_opened() {
    let identity = Identity::parse(KEY).unwrap();
    assert_eq!(identity.recipient().to_string(), RECIPIENT);
    assert_eq!(*identity.to_text(), KEY.trim());
    assert_eq!(&**open(SEALED.as_bytes(), &identity).unwrap(), b"hunter2\n");
    let bytes = without_letters(SEALED);
    assert_eq!(&**open(&bytes, &identity).unwrap(), b"hunter2\n");
}

#[test]
fn a_key_that_is_mistyped_is_no_key() {
    assert!(RECIPIENT.parse::<Recipient>().is_ok());
    for index in 0..RECIPIENT.len() {
        let mut wrong = RECIPIENT.to_owned();
        let other = if &wrong[index..=index] == "q" {
            "p"
        } else {
            "q"
        };
        wrong.replace_range(index..=index, other);
        assert!(wrong.parse::<Recipient>().is_err(), "{wrong}");
    }
    for wrong in ["", "age1", "ssh-ed25519 AAAA", &RECIPIENT.to_uppercase()] {
        assert!(wrong.parse::<Recipient>().is_err(), "{wrong}");
    }
    for wrong in [
        "",
        "# nothing",
        &KEY.to_lowercase(),
        &format!("{KEY}\n{KEY}"),
    ] {
        assert!(Identity::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn who_is_no_recipient_opens_nothing() {
    let (ours, theirs) = (Identity::generate(), Identity::generate());
    let sealed = seal(b"secret", &[theirs.recipient()]).unwrap();
    assert_eq!(
        open(sealed.as_bytes(), &ours).unwrap_err(),
        Closed::ForOthers
    );
    let both = seal(b"secret", &[theirs.recipient(), ours.recipient()]).unwrap();
    assert_eq!(&**open(both.as_bytes(), &ours).unwrap(), b"secret");
    assert_eq!(&**open(both.as_bytes(), &theirs).unwrap(), b"secret");
    assert!(seal(b"secret", &[]).is_err());
}

#[test]
fn nothing_of_it_can_be_changed_or_cut_off() {
    let identity = Identity::generate();
    let plain = vec![7; 3 * (64 << 10)];
    let sealed = without_letters(&seal(&plain, &[identity.recipient()]).unwrap());
    assert_eq!(&**open(&sealed, &identity).unwrap(), &plain);
    let header = sealed.len() - 3 * ((64 << 10) + 16) - 16;
    let chunk = (64 << 10) + 16;
    for length in [
        header,
        header + 16,
        header + 16 + chunk,
        header + 16 + 2 * chunk,
        sealed.len() - 1,
    ] {
        assert!(open(&sealed[..length], &identity).is_err(), "{length}");
    }
    for index in (0..header + 40).chain([sealed.len() - 1]) {
        let mut changed = sealed.clone();
        changed[index] ^= 1;
        assert!(open(&changed, &identity).is_err(), "byte {index}");
    }
    let mut longer = sealed.clone();
    longer.push(0);
    assert!(open(&longer, &identity).is_err());
    // Two chunks in another order.
    let mut exchanged = sealed[..header + 16].to_vec();
    exchanged.extend_from_slice(&sealed[header + 16 + chunk..header + 16 + 2 * chunk]);
    exchanged.extend_from_slice(&sealed[header + 16..header + 16 + chunk]);
    exchanged.extend_from_slice(&sealed[header + 16 + 2 * chunk..]);
    assert!(open(&exchanged, &identity).is_err());
}

#[test]
fn a_passphrase_is_not_asked_for() {
    let identity = Identity::generate();
    let sealed = "age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw 18\nZV/AhotwSGqaPCU43cepl4WYUouAa17a3xpu4G2yi5k\n--- fgMiVLJHMlg9fW7CVG/hPS5EAU4Zeg19LyCP7SoH5nA\n0123456789abcdef0123456789abcdef";
    assert_eq!(
        open(sealed.as_bytes(), &identity).unwrap_err(),
        Closed::ForOthers
    );
}

#[test]
fn keys_and_secrets_are_not_shown() {
    let identity = Identity::parse(KEY).unwrap();
    assert_eq!(format!("{identity:?}"), "[redacted]");
    let other = Identity::generate();
    assert_eq!(identity.keyed_hash(b"1234"), identity.keyed_hash(b"1234"));
    assert_ne!(identity.keyed_hash(b"1234"), identity.keyed_hash(b"1235"));
    assert_ne!(identity.keyed_hash(b"1234"), other.keyed_hash(b"1234"));
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(plain in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let identity = Identity::parse(&Identity::generate().to_text()).unwrap();
        let sealed = seal(&plain, &[identity.recipient()]).unwrap();
        prop_assert!(is_sealed(sealed.as_bytes()));
        prop_assert_eq!(&**open(sealed.as_bytes(), &identity).unwrap(), &plain);
    }

    #[test]
    fn no_bytes_whatsoever_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "(-> |--- |X25519 |[A-Za-z0-9+/]{0,64}|\n){0,12}") {
        let identity = Identity::parse(KEY).unwrap();
        prop_assert!(open(&bytes, &identity).is_err());
        let framed = format!("age-encryption.org/v1\n{text}");
        prop_assert!(open(framed.as_bytes(), &identity).is_err());
        let armored = format!("-----BEGIN AGE ENCRYPTED FILE-----\n{text}");
        prop_assert!(open(armored.as_bytes(), &identity).is_err());
        prop_assert!(Identity::parse(&text).is_err());
        prop_assert!(text.parse::<Recipient>().is_err());
    }
}
