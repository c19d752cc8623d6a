//! Files that are declared by their address and hash.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use crate::scene::Scene;

/// A server that has one file, and may hang up in the middle of it; it writes down from which byte on it was asked.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    pub fn start(file: Vec<u8>, hangs_up_at: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/app.tar.gz", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut from = 0;
                for line in BufReader::new(&stream).lines() {
                    let line = line.unwrap().to_ascii_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        from = range.trim_end_matches('-').parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                let is_first = notes.lock().unwrap().is_empty();
                notes.lock().unwrap().push(from);
                let (status, range) = match from {
                    0 => ("200 OK", String::new()),
                    _ => {
                        let last = file.len() - 1;
                        let range =
                            format!("Content-Range: bytes {from}-{last}/{}\r\n", file.len());
                        ("206 Partial Content", range)
                    }
                };
                let body = &file[from..];
                let sent = if is_first {
                    hangs_up_at.min(body.len())
                } else {
                    body.len()
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}Connection: close\r\n\r\n",
                    body.len()
                );
                // Whoever has enough of it hangs up.
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&body[..sent]));
            }
        });
        Server { url, asked }
    }

    pub fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().clone()
    }
}

pub fn hash(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn file() -> Vec<u8> {
    (0..3_000_000_u32)
        .map(|number| ((number * 31) >> 3) as u8)
        .collect()
}

#[test]
fn a_file_is_fetched_by_its_address_goes_on_where_it_was_cut_off_and_is_in_its_place_only_when_it_is_whole()
 {
    let file = file();
    let server = Server::start(file.clone(), 1_000_000);
    let layer = format!(
        "[file.\"/opt/app.tar.gz\"]\nurl = \"{}\"\nsha256 = \"{}\"\nmode = \"0640\"\n",
        server.url,
        hash(&file)
    );
    let scene = Scene::new(&layer);
    let path = scene.path("opt/app.tar.gz");
    scene
        .apply()
        .expect(75)
        .says(&server.url)
        .says("it goes on from byte");
    assert!(!path.exists());
    scene.apply().expect(0);
    assert!(std::fs::read(&path).unwrap() == file, "the whole file");
    assert_eq!(scene.mode("opt/app.tar.gz"), 0o640);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[1] > 0 && asked[1] <= 1_000_000, "{asked:?}");

    // What is there is not fetched again, and what was fetched once is there to undo drift.
    scene.apply().expect(0).says("converged");
    std::fs::write(&path, "drift").unwrap();
    scene.apply().expect(0);
    assert!(std::fs::read(&path).unwrap() == file);
    assert_eq!(server.asked().len(), 2);

    scene.push_layer("");
    scene.apply().expect(0);
    assert!(!path.exists());
}

#[test]
fn a_file_with_another_hash_is_not_put_in_its_place_and_both_are_named() {
    let (file, declared) = (file(), hash(b"another"));
    let server = Server::start(file.clone(), usize::MAX);
    let scene = Scene::new(
        "[file.\"/opt/app\"]\ncontent = \"before\\n\"\n[file.\"/etc/beside\"]\ncontent = \"\"\n",
    );
    scene.apply().expect(0);
    scene.push_layer(&format!("[file.\"/opt/app\"]\nurl = \"{}\"\nsha256 = \"{declared}\"\n[file.\"/etc/beside\"]\ncontent = \"new\\n\"\n", server.url));
    scene.apply().expect(1).says(&format!(
        "'{}' has SHA-256 {}, not {declared} as declared",
        server.url,
        hash(&file)
    ));
    assert_eq!(scene.get("opt/app").unwrap(), "before\n");
    assert_eq!(scene.get("etc/beside").unwrap(), "new\n");
}
