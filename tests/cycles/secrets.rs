//! Secrets on a machine: they are in their files, and nowhere else.

use std::path::Path;

use limpet::age::{self, Identity};

use crate::scene::{Run, Scene};

const FIRST: &str = "correct-horse-battery-staple";
const SECOND: &str = "another-horse-another-staple";

/// What is declared, and what needs it.
const LAYER: &str = r#"
[file."/etc/app.env"]
source  = "app.env.age"
decrypt = "age"

[file."/etc/app.conf"]
source   = "app.conf.j2"
template = true
mode     = "0640"

[file."/etc/after"]
content = "after\n"
needs   = ["file:/etc/app.env"]

[file."/etc/beside"]
content = "beside\n"
"#;

struct Sealed {
    scene: Scene,
    key: Identity,
}

impl Sealed {
    fn new() -> Self {
        let sealed = Sealed {
            scene: Scene::new(""),
            key: Identity::generate(),
        };
        sealed.scene.repository.write(
            "layers/base/files/app.conf.j2",
            "name = {{ host.name }}\npassword = {{ secret('db.age') }}\n",
        );
        sealed.write(FIRST);
        sealed
    }

    fn write(&self, secret: &str) {
        let env = format!("PASSWORD={secret}\n");
        for (name, plain) in [("app.env.age", env.as_str()), ("db.age", secret)] {
            let text = age::seal(plain.as_bytes(), &[self.key.recipient()]).unwrap();
            self.scene
                .repository
                .write(&format!("layers/base/files/{name}"), &text);
        }
    }

    fn give_key(&self, key: &Identity) {
        self.scene.put("etc/limpet/age.key", &key.to_text());
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.scene.path("etc/limpet/age.key"), mode).unwrap();
    }

    #[track_caller]
    fn expect(&self, secret: Option<&str>) {
        let env = secret.map(|secret| format!("PASSWORD={secret}\n"));
        assert_eq!(self.scene.get("etc/app.env"), env);
        let conf = secret.map(|secret| format!("name = gw-1\npassword = {secret}"));
        assert_eq!(self.scene.get("etc/app.conf"), conf.map(|conf| conf + "\n"));
    }

    /// The secret is in no other file of the machine, plain or as a hash that anybody can reckon.
    #[track_caller]
    fn is_nowhere_else(&self, secret: &str, runs: &[&Run]) {
        let env = format!("PASSWORD={secret}\n");
        let conf = format!("name = gw-1\npassword = {secret}\n");
        let mut needles = vec![secret.as_bytes().to_vec()];
        for plain in [secret, &env, &conf] {
            let hash = ring::digest::digest(&ring::digest::SHA256, plain.as_bytes());
            let hex: String = hash
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            needles.push(hash.as_ref().to_vec());
            needles.push(hex.into_bytes());
        }
        let holds = |bytes: &[u8]| {
            needles
                .iter()
                .any(|needle| bytes.windows(needle.len()).any(|part| part == &needle[..]))
        };
        for run in runs {
            assert!(
                !holds(run.stdout.as_bytes()) && !holds(run.stderr.as_bytes()),
                "{run:?}"
            );
        }
        let mut pending = vec![self.scene.path("")];
        let mut looked_at = 0;
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let relative = path.strip_prefix(self.scene.path("")).unwrap();
                if path.is_dir() {
                    pending.push(path);
                } else if path.is_file()
                    && relative != Path::new("etc/app.env")
                    && relative != Path::new("etc/app.conf")
                {
                    looked_at += 1;
                    assert!(
                        !holds(&std::fs::read(&path).unwrap()),
                        "{}",
                        relative.display()
                    );
                }
            }
        }
        assert!(looked_at > 5);
    }
}

#[test]
fn a_secret_is_in_its_files_and_nowhere_else_whatever_becomes_of_it() {
    let sealed = Sealed::new();
    let scene = &sealed.scene;
    sealed.give_key(&sealed.key);
    scene.push_layer(LAYER);
    let applied = scene.apply().expect(0);
    sealed.expect(Some(FIRST));
    assert_eq!(scene.mode("etc/app.env"), 0o600);
    assert_eq!(scene.mode("etc/app.conf"), 0o640);
    let again = scene.apply().expect(0).says("converged");
    sealed.is_nowhere_else(FIRST, &[&applied, &again]);

    // Drift is noticed by the keyed hash, whether it has as many bytes or not.
    for other in [
        "PASSWORD=x\n",
        &format!("PASSWORD={}\n", FIRST.replace('c', "k")),
    ] {
        scene.put("etc/app.env", other);
        let corrected = scene.apply().expect(0);
        sealed.expect(Some(FIRST));
        sealed.is_nowhere_else(FIRST, &[&corrected]);
    }

    // A new value, and the old one is gone as well.
    sealed.write(SECOND);
    scene.push_layer(LAYER);
    let changed = scene.apply().expect(0);
    sealed.expect(Some(SECOND));
    sealed.is_nowhere_else(SECOND, &[&changed]);
    sealed.is_nowhere_else(FIRST, &[&changed]);

    // No longer decrypted: what it was is not shown beside what it is.
    scene.push_layer("[file.\"/etc/app.env\"]\ncontent = \"public\\n\"\n");
    let public = scene.apply().expect(0);
    assert_eq!(scene.get("etc/app.env").unwrap(), "public\n");
    assert_eq!(scene.get("etc/app.conf"), None, "no longer declared");
    sealed.is_nowhere_else(SECOND, &[&public]);

    // And back, and away.
    scene.push_layer(LAYER);
    scene.apply().expect(0);
    sealed.expect(Some(SECOND));
    scene.push_layer("");
    let gone = scene.apply().expect(0);
    sealed.expect(None);
    sealed.is_nowhere_else(SECOND, &[&gone]);
}

#[test]
fn a_missing_key_holds_what_needs_it_and_nothing_else() {
    let sealed = Sealed::new();
    let scene = &sealed.scene;
    scene.push_layer(LAYER);
    scene
        .apply()
        .expect(1)
        .says("failed to decrypt file:/etc/app.env: this host has no key: there is no '/etc/limpet/age.key'")
        .says("file:/etc/after");
    sealed.expect(None);
    assert_eq!(scene.get("etc/after"), None);
    assert_eq!(scene.get("etc/beside").unwrap(), "beside\n");

    // One that everybody may read is no key.
    scene.put("etc/limpet/age.key", &sealed.key.to_text());
    scene
        .apply()
        .expect(1)
        .says("refused the key '/etc/limpet/age.key': others than root may read it");
    // Nor is another host's.
    let other = Identity::generate();
    sealed.give_key(&other);
    scene
        .apply()
        .expect(1)
        .says("is not encrypted for this host's key, age1");
    sealed.expect(None);

    sealed.give_key(&sealed.key);
    scene.apply().expect(0);
    sealed.expect(Some(FIRST));
    assert_eq!(scene.get("etc/after").unwrap(), "after\n");

    // Without it what is there stays; nobody can tell whether it is still right, and nobody takes it away.
    std::fs::remove_file(scene.path("etc/limpet/age.key")).unwrap();
    scene.put("etc/app.env", "changed\n");
    scene.apply().expect(1).says("this host has no key");
    assert_eq!(scene.get("etc/app.env").unwrap(), "changed\n");
}

#[test]
fn what_was_there_before_a_secret_comes_back_and_what_was_the_secret_already_is_not_copied() {
    let sealed = Sealed::new();
    let scene = &sealed.scene;
    sealed.give_key(&sealed.key);
    scene.put("etc/app.conf", "before\n");
    scene.put("etc/app.env", &format!("PASSWORD={FIRST}\n"));
    scene.push_layer(LAYER);
    let applied = scene.apply().expect(0);
    sealed.expect(Some(FIRST));
    sealed.is_nowhere_else(FIRST, &[&applied]);
    scene.push_layer("");
    scene.apply().expect(0);
    assert_eq!(scene.get("etc/app.conf").unwrap(), "before\n");
    assert_eq!(
        scene.get("etc/app.env").unwrap(),
        format!("PASSWORD={FIRST}\n")
    );
}

#[test]
fn a_validator_that_quotes_a_secret_is_not_quoted() {
    let sealed = Sealed::new();
    let scene = &sealed.scene;
    sealed.give_key(&sealed.key);
    scene.push_layer(&format!("{LAYER}\n[file.\"/etc/checked\"]\nsource = \"db.age\"\ndecrypt = \"age\"\nvalidate = [\"grep\", \"-v\", \"nothing\", \"{{}}\", \"/nowhere\"]\n"));
    let refused = scene.apply().expect(1).says("what it says is not shown");
    sealed.is_nowhere_else(FIRST, &[&refused]);
}
