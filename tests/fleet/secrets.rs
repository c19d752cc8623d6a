//! Secrets as authors meet them.

use insta::assert_snapshot;
use limpet::age::{self, Identity};

use crate::tree::{FLEET, WorkTree, limpet};

const PLAIN: &str = "correct horse battery staple";

fn inventory(keys: &[(&str, &Identity)]) -> String {
    keys.iter()
        .map(|(name, key)| {
            format!(
                "[host.{name}]\nage = \"{}\"\nfacts = {{ os = \"debian\", os_version = \"12\" }}\n",
                key.recipient()
            )
        })
        .collect()
}

fn opens(tree: &WorkTree, path: &str, key: &Identity) -> bool {
    let sealed = std::fs::read(tree.path().join(path)).unwrap();
    age::open(&sealed, key).is_ok_and(|plain| &**plain == PLAIN.as_bytes())
}

#[test]
fn a_secret_is_encrypted_for_the_hosts_that_are_named_and_anew_for_those_that_need_it() {
    let [one, two, author] = [(); 3].map(|()| Identity::generate());
    let layer = "[file.\"/etc/app.env\"]\nsource = \"app.env.age\"\ndecrypt = \"age\"\n\
                 [file.\"/etc/app.conf\"]\nsource = \"app.conf.j2\"\ntemplate = true\n";
    let tree = WorkTree::new(&[
        ("fleet.toml", FLEET),
        (
            "inventory/hosts.toml",
            &inventory(&[("one", &one), ("two", &two)]),
        ),
        ("layers/base/base.toml", layer),
        (
            "layers/base/files/app.conf.j2",
            "password = {{ secret(\"db.age\") }}\nname = {{ host.name }}\n",
        ),
        ("plain", PLAIN),
        ("author.key", &author.to_text()),
    ]);
    let encrypt = |arguments: &[&str]| {
        let output = limpet(&[&["secret", "encrypt"], arguments].concat(), tree.path());
        assert!(output.status.success(), "{output:?}");
        let sealed = String::from_utf8(output.stdout).unwrap();
        assert!(!sealed.contains(PLAIN));
        sealed
    };
    let author_key = author.recipient().to_string();
    let sealed = encrypt(&["--host", "one", "two", "plain", "--for", &author_key]);
    tree.write("layers/base/files/db.age", &sealed);
    let sealed = encrypt(&["--for", &author_key, "--host", "one", "plain"]);
    tree.write("layers/base/files/app.env.age", &sealed);
    let [db, env] = ["layers/base/files/db.age", "layers/base/files/app.env.age"];
    assert!(opens(&tree, db, &one) && opens(&tree, db, &two) && opens(&tree, db, &author));
    assert!(opens(&tree, env, &one) && !opens(&tree, env, &two));
    assert!(tree.check().status.success());

    // What is rendered is as encrypted as the repository, and the mode is one that keeps it.
    let rendered = tree.render("one").to_string();
    assert!(
        !rendered.contains(PLAIN) && !rendered.contains("password"),
        "{rendered}"
    );
    assert!(rendered.contains("0600"), "{rendered}");

    // Both hosts need it: rekey sees that.
    let rekey = ["secret", "rekey", "--identity", "author.key"];
    let output = limpet(&rekey, tree.path());
    assert!(output.status.success(), "{output:?}");
    assert!(opens(&tree, env, &one) && opens(&tree, env, &two) && opens(&tree, env, &author));

    // A key that is replaced opens nothing any more.
    let new = Identity::generate();
    tree.write(
        "inventory/hosts.toml",
        &inventory(&[("one", &new), ("two", &two)]),
    );
    assert!(limpet(&rekey, tree.path()).status.success());
    assert!(opens(&tree, env, &new) && !opens(&tree, env, &one));

    // Who can read none of them, or not all, changes none.
    tree.write("other.key", &one.to_text());
    let before = std::fs::read(tree.path().join(db)).unwrap();
    let output = limpet(&["secret", "rekey", "--identity", "other.key"], tree.path());
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert_eq!(std::fs::read(tree.path().join(db)).unwrap(), before);
}

#[test]
fn what_cannot_be_encrypted_is_told() {
    let one = Identity::generate();
    let tree = WorkTree::new(&[
        (
            "inventory/hosts.toml",
            &format!("{}[host.bare]\n", inventory(&[("one", &one)])),
        ),
        ("layers/base/base.toml", ""),
        ("plain", PLAIN),
    ]);
    let said = |arguments: &[&str]| {
        let output = limpet(&[&["secret", "encrypt"], arguments].concat(), tree.path());
        assert_eq!(output.status.code(), Some(65), "{output:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_snapshot!(said(&["--host", "bare", "gone", "plain"]), @r#"
    error: the inventory has no key for host 'bare'
    hint: run 'limpet secret identity --create' on it, and write what it prints: [host.bare] age = "age1…"
    error: the fleet has no host 'gone'
    "#);
    assert_snapshot!(said(&["--host", "one", "missing"]), @r#"
    error: failed to read 'missing': No such file or directory (os error 2)
    "#);
    assert_snapshot!(said(&["--host", "one"]), @r#"
    error: which file is to be encrypted is missing
    hint: limpet secret encrypt --host NAME FILE > layers/LAYER/files/NAME.age
    "#);
    assert_snapshot!(said(&["--host", "one", "plain", "--for", "AGE-SECRET-KEY-1"]), @r#"
    error: what follows '--for' is no public key
    hint: a public key is age1…
    "#);
}

#[test]
fn what_would_not_stay_secret_is_a_mistake() {
    let one = Identity::generate();
    let sealed = age::seal(PLAIN.as_bytes(), &[one.recipient()]).unwrap();
    let mistakes = |layer: &str, template: &str| {
        let tree = WorkTree::new(&[
            ("layers/base/base.toml", layer),
            ("layers/base/files/plain", PLAIN),
            ("layers/base/files/db.age", &sealed),
            ("layers/base/files/x.j2", template),
        ]);
        tree.mistakes()
    };
    let layer = "[file.\"/a\"]\nsource = \"plain\"\ndecrypt = \"age\"\n\
        [file.\"/b\"]\ncontent = \"x\"\ndecrypt = \"age\"\n\
        [file.\"/c\"]\nsource = \"db.age\"\ndecrypt = \"age\"\nmode = \"0644\"\n\
        [file.\"/d\"]\nsource = \"db.age\"\ndecrypt = \"age\"\ntemplate = true\n\
        [file.\"/e\"]\nsource = \"gone.age\"\ndecrypt = \"age\"\n\
        ";
    assert_snapshot!(mistakes(layer, ""), @r#"
    error: layers/base/base.toml:2:10: 'plain' of file:/a is no secret
      |
    2 | source = "plain"
      |          ^^^^^^^ it is not encrypted in the format of age
      |
    hint: encrypt it: limpet secret encrypt --host NAME FILE; and replace what it was, because everybody with the repository has read it
    error: layers/base/base.toml:6:11: file:/b decrypts nothing: it has no `source`
      |
    6 | decrypt = "age"
      |           ^^^^^
      |
    hint: name an encrypted file below files/ of this layer: source = "app.env.age"
    error: layers/base/base.toml:10:8: file:/c has a secret, and mode 0644 lets everybody at it
       |
    10 | mode = "0644"
       |        ^^^^^^
       |
    hint: leave `mode` out, which means "0600", or let a group read it: mode = "0640"
    error: layers/base/base.toml:13:11: file:/d is both decrypted and rendered
       |
    13 | decrypt = "age"
       |           ^^^^^
       |
    hint: keep one of them; a template says where a secret stands: {{ secret("db.age") }}
    error: layers/base/base.toml:16:10: source 'gone.age' of file:/e is missing
       |
    16 | source = "gone.age"
       |          ^^^^^^^^^^ no file 'layers/base/files/gone.age'
    "#);
    let layer = "[file.\"/f\"]\nsource = \"db.age\"\ndecrypt = \"gpg\"\n";
    assert_snapshot!(mistakes(layer, ""), @r#"
    error: layers/base/base.toml:3:11: unknown value `gpg`, expected `age` for `decrypt` in file:/f
      |
    3 | decrypt = "gpg"
      |           ^^^^^
    "#);
    let layer = "[file.\"/a\"]\nsource = \"x.j2\"\ntemplate = true\n\
        [unit.\"a.service\"]\nsource = \"x.j2\"\ntemplate = true\n\
        [symlink.\"/c\"]\ntarget = \"{{ secret('db.age') }}\"\ntemplate = true\n";
    assert_snapshot!(mistakes(layer, "{{ secret('db.age') | upper }}\n"), @r#"
    error: layers/base/base.toml:2:10: template of file:/a: a secret was changed on its way
      |
    2 | source = "x.j2"
      |          ^^^^^^
      |
    hint: it is decrypted on the host alone; print it as it is: {{ secret("db.age") }}
    error: layers/base/base.toml:5:10: template of unit:a.service: a secret was changed on its way
      |
    5 | source = "x.j2"
      |          ^^^^^^
      |
    hint: it is decrypted on the host alone; print it as it is: {{ secret("db.age") }}
    error: layers/base/base.toml:8:10: a secret can stand in no value
      |
    8 | target = "{{ secret('db.age') }}"
      |          ^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: write it into a file: [file."…"] with source and template = true
    "#);
    let layer = "[unit.\"a.service\"]\nsource = \"x.j2\"\ntemplate = true\n\
        [file.\"/a\"]\nsource = \"x.j2\"\ntemplate = true\nmode = \"0644\"\n";
    assert_snapshot!(mistakes(layer, "{{ secret('db.age') }}\n"), @r#"
    error: layers/base/base.toml:2:10: unit:a.service has a secret, and everybody may read what a unit says
      |
    2 | source = "x.j2"
      |          ^^^^^^
      |
    hint: write the secret to a file of its own, and name that: EnvironmentFile=, or LoadCredential=
    error: layers/base/base.toml:7:8: file:/a has a secret, and mode 0644 lets everybody at it
      |
    7 | mode = "0644"
      |        ^^^^^^
      |
    hint: leave `mode` out, which means "0600", or let a group read it: mode = "0640"
    "#);
    let layer = "[file.\"/a\"]\nsource = \"x.j2\"\ntemplate = true\n";
    assert_snapshot!(mistakes(layer, "{{ secret('gone.age') }}\n"), @r#"
    error: layers/base/files/x.j2:1:12: source 'gone.age' of file:/a is missing
      |
    1 | {{ secret('gone.age') }}
      |            ^^^^^^^^ no file 'layers/base/files/gone.age'
    "#);
    let tree = WorkTree::new(&[
        (
            "inventory/hosts.toml",
            &format!("[host.gw]\nage = \"{}\"\n", *one.to_text()),
        ),
        ("layers/base/base.toml", ""),
    ]);
    assert_snapshot!(tree.mistakes().replace(&**one.to_text(), "AGE-SECRET-KEY-1…"), @r#"
    error: inventory/hosts.toml:2:7: `age` of host.gw is no public key
      |
    2 | age = "AGE-SECRET-KEY-1…"
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: this is a private key, and whoever reads the repository has it now: make another, and name what 'limpet secret identity' prints
    "#);
}
