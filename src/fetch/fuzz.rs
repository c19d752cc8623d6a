//! Entry points for fuzzing what crosses the network, and the socket between the agent and the fetcher.

use std::io::{BufReader, Cursor};

use jiff::Timestamp;

use super::pack_header::PackHeader;
use super::protocol::{self, ObjectAnswer};
use super::{bundle, refs, retry_after, start};
use crate::config::Follow;

/// What the agent asks: requests one after the other, or the line that starts a child.
pub fn request(bytes: &[u8]) {
    let mut input = Cursor::new(bytes);
    let mut line = Vec::new();
    while let Ok(Some(request)) = protocol::read_request(&mut input, &mut line) {
        let mut wire = Vec::new();
        // A request that came in other words may be too long in ours.
        if protocol::write_request(&mut wire, &request).is_ok() {
            let read = protocol::read_request(&mut Cursor::new(wire), &mut line);
            assert_eq!(read.ok().flatten(), Some(request));
        }
    }
    if let Ok(start) = start::read_start(&mut Cursor::new(bytes)) {
        let _ = start.source();
    }
}

/// What the fetcher answers, whom the agent does not trust.
pub fn answer(bytes: &[u8]) {
    let mut line = Vec::new();
    let input = || Cursor::new(bytes);
    if let Ok(answer) = protocol::read_object_answer(&mut input(), &mut line) {
        if let ObjectAnswer::Found(object) = &answer {
            assert!(
                object.data.len() < bytes.len(),
                "no byte comes from nowhere"
            );
        }
        let mut wire = Vec::new();
        protocol::write_object_answer(&mut wire, &answer).expect("memory can be written to");
        let read = protocol::read_object_answer(&mut Cursor::new(wire), &mut line);
        assert_eq!(read.ok(), Some(answer));
    }
    let _ = protocol::read_poll_answer(&mut input(), &mut line);
    let _ = protocol::read_probe_answer(&mut input(), &mut line);
    let _ = protocol::read_artifact_answer(&mut input(), &mut line);
    let _ = protocol::read_sysctls_answer(&mut input(), &mut line, 1);
}

/// What a Git server says before its pack, and the header of a bundle.
pub fn server(bytes: &[u8]) {
    let releases = semver::VersionReq::STAR;
    for follow in [
        Follow::Branch("main".to_owned()),
        Follow::Releases(releases),
    ] {
        server_of(bytes, &follow);
    }
}

fn server_of(bytes: &[u8], follow: &Follow) {
    if let Ok(advertisement) = refs::parse_advertisement(bytes, follow)
        && let refs::Refs::Listed(Some(tip)) = advertisement.refs
    {
        assert!(!tip.id.is_null(), "no ref is at nothing");
    }
    for format in [gix::hash::Kind::Sha1, gix::hash::Kind::Sha256] {
        if let Ok(Some(tip)) = refs::parse_ls_refs_of(bytes, follow, format) {
            assert_eq!(tip.id.kind(), format);
        }
    }
    if let Ok(Some(read)) = refs::read_until_flush(&mut Cursor::new(bytes), 1 << 12) {
        assert!(read.len() <= 1 << 12 && bytes.starts_with(&read) && read.ends_with(b"0000"));
    }
    if let Ok(header) = bundle::read_header(&mut BufReader::new(bytes), follow) {
        let ids = header
            .prerequisites
            .iter()
            .chain(header.tip.as_ref().map(|tip| &tip.id));
        ids.for_each(|id| assert_eq!(id.kind(), header.format));
    }
    let text = String::from_utf8_lossy(bytes);
    let (value, date) = text.split_once('\n').unwrap_or((&text, ""));
    for date in [None, Some(date)] {
        let wait = retry_after::parse(value, date, Timestamp::UNIX_EPOCH);
        assert!(wait.is_none_or(|secs| secs <= 24 * 60 * 60));
    }
}

/// The number of objects in a pack, wherever the network cuts the answer: the first byte says how long its pieces are.
pub fn pack_header(bytes: &[u8]) {
    let Some((length, answer)) = bytes.split_first() else {
        return;
    };
    let whole = PackHeader::default().feed(answer);
    let mut header = PackHeader::default();
    let mut pieces = answer.chunks(usize::from(*length).max(1));
    assert_eq!(pieces.find_map(|piece| header.feed(piece)), whole);
    assert_eq!(pieces.find_map(|piece| header.feed(piece)), None);
}
