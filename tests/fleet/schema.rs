//! The JSON Schemas that editors use, held to what the program reads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::tree::{FLEET, WorkTree};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn schema(name: &str) -> Value {
    let path = root().join(format!("config/schema/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn read_toml(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

/// A schema of draft 7, as far as ours go; a word that is not known here is a mistake, so that nothing is skipped.
struct Validator(Value);

fn validator(name: &str) -> Validator {
    Validator(schema(name))
}

impl Validator {
    fn is_valid(&self, instance: &Value) -> bool {
        self.errors(&self.0, instance, "").is_empty()
    }

    fn errors(&self, schema: &Value, instance: &Value, at: &str) -> Vec<String> {
        let mut errors = Vec::new();
        for (word, argument) in schema.as_object().unwrap() {
            errors.extend(self.errors_by(word, argument, schema, instance, at));
        }
        errors
    }

    fn errors_by(
        &self,
        word: &str,
        argument: &Value,
        schema: &Value,
        instance: &Value,
        at: &str,
    ) -> Vec<String> {
        let accepts = |schema: &Value| self.errors(schema, instance, at).is_empty();
        let schemas = || argument.as_array().unwrap().iter();
        let text = instance.as_str();
        let items = || instance.as_array().into_iter().flatten().enumerate();
        let object = instance.as_object();
        let entries = || object.into_iter().flatten();
        let is_fine = match word {
            "$schema" | "title" | "description" | "definitions" => true,
            "$ref" => {
                let pointer = argument.as_str().unwrap().strip_prefix('#').unwrap();
                return self.errors(self.0.pointer(pointer).unwrap(), instance, at);
            }
            "type" => match argument.as_str().unwrap() {
                "object" => instance.is_object(),
                "array" => instance.is_array(),
                "string" => instance.is_string(),
                "boolean" => instance.is_boolean(),
                "integer" => instance.is_i64(),
                other => panic!("type {other}"),
            },
            "const" => instance == argument,
            "enum" => argument.as_array().unwrap().contains(instance),
            "anyOf" => schemas().any(accepts),
            "allOf" => {
                return schemas()
                    .flat_map(|schema| self.errors(schema, instance, at))
                    .collect();
            }
            "not" => !accepts(argument),
            "pattern" => text.is_none_or(|text| {
                regex_lite::Regex::new(argument.as_str().unwrap())
                    .unwrap()
                    .is_match(text)
            }),
            "minLength" => text.is_none_or(|text| text.len() as u64 >= argument.as_u64().unwrap()),
            "minimum" => instance
                .as_i64()
                .is_none_or(|number| number >= argument.as_i64().unwrap()),
            "minItems" => instance
                .as_array()
                .is_none_or(|array| array.len() as u64 >= argument.as_u64().unwrap()),
            "minProperties" => {
                object.is_none_or(|object| object.len() as u64 >= argument.as_u64().unwrap())
            }
            "required" => object.is_none_or(|object| {
                schemas().all(|key| object.contains_key(key.as_str().unwrap()))
            }),
            "contains" => instance.as_array().is_none_or(|array| {
                array
                    .iter()
                    .any(|item| self.errors(argument, item, at).is_empty())
            }),
            "items" => {
                return items()
                    .flat_map(|(index, item)| self.errors(argument, item, &format!("{at}/{index}")))
                    .collect();
            }
            "propertyNames" => {
                return entries()
                    .flat_map(|(key, _)| self.errors(argument, &Value::from(key.as_str()), at))
                    .collect();
            }
            "properties" => {
                let known = argument.as_object().unwrap();
                return entries()
                    .filter_map(|(key, value)| Some((key, known.get(key)?, value)))
                    .flat_map(|(key, schema, value)| {
                        self.errors(schema, value, &format!("{at}/{key}"))
                    })
                    .collect();
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let more: Vec<_> = entries()
                    .filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)))
                    .collect();
                if argument == &Value::Bool(false) {
                    return more
                        .into_iter()
                        .map(|(key, _)| format!("{at}: unknown key {key}"))
                        .collect();
                }
                return more
                    .into_iter()
                    .flat_map(|(key, value)| self.errors(argument, value, &format!("{at}/{key}")))
                    .collect();
            }
            other => panic!("the word '{other}' is not known to this test"),
        };
        if is_fine {
            Vec::new()
        } else {
            vec![format!("{at}: {word} {argument}")]
        }
    }
}

#[track_caller]
fn assert_valid(validator: &Validator, name: &str, text: &str) {
    let errors = validator.errors(&validator.0, &read_toml(text), "");
    assert!(errors.is_empty(), "{name}: {}", errors.join("\n"));
}

/// Every TOML file below `directory`, as a path from there.
fn toml_files(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory.join(prefix)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            toml_files(directory, &format!("{name}/"), found);
        } else if name.ends_with(".toml") {
            found.push(name);
        }
    }
}

#[test]
fn what_is_shipped_is_valid() {
    for fleet in ["config/example-fleet", "config/starter"] {
        let directory = root().join(fleet);
        let mut files = Vec::new();
        toml_files(&directory, "", &mut files);
        assert!(files.len() >= 3);
        for file in files {
            let name = match file.split('/').next().unwrap() {
                "fleet.toml" => "fleet",
                "inventory" => "inventory",
                "layers" | "hosts" => "layer",
                _ => continue,
            };
            let text = std::fs::read_to_string(directory.join(&file)).unwrap();
            let text = text.replace("@FLEET@", "test").replace("@MINIMUM@", "0.1");
            assert_valid(&validator(name), &file, &text);
        }
    }
    let config = std::fs::read_to_string(root().join("config/limpet.toml")).unwrap();
    assert_valid(&validator("limpet"), "limpet.toml", &config);
}

/// The keys that the program names when it meets one that it does not know.
#[track_caller]
fn known_keys(said: &str) -> BTreeSet<String> {
    let list = said
        .lines()
        .find_map(|line| line.strip_prefix("hint: known here: "))
        .unwrap_or_else(|| panic!("no list of keys in: {said}"));
    list.split(", ").map(str::to_owned).collect()
}

fn schema_keys(schema: &Value, pointer: &str) -> BTreeSet<String> {
    let properties = schema.pointer(&format!("{pointer}/properties"));
    let properties = properties.unwrap_or_else(|| panic!("no properties at {pointer}"));
    properties.as_object().unwrap().keys().cloned().collect()
}

/// A key that nothing resembles.
const UNKNOWN: &str = "qqqqqqqqqqqqqqqq = 1\n";

#[test]
fn the_keys_of_a_layer_are_those_that_the_program_reads() {
    let schema = schema("layer");
    for (table, pointer) in [
        ("[layer]", "/properties/layer"),
        ("[package.x]", "/definitions/package"),
        ("[directory.\"/x\"]", "/definitions/directory"),
        ("[file.\"/x\"]", "/definitions/file"),
        ("[symlink.\"/x\"]", "/definitions/symlink"),
        ("[sysctl.\"vm.x\"]", "/definitions/sysctl"),
        ("[command.x]", "/definitions/command"),
        ("[unit.\"x.service\"]", "/definitions/unit"),
        ("[unit.\"x.service\".dropin.y]", "/definitions/dropin"),
    ] {
        let tree = WorkTree::new(&[("layers/base/base.toml", &format!("{table}\n{UNKNOWN}"))]);
        assert_eq!(
            known_keys(&tree.mistakes()),
            schema_keys(&schema, pointer),
            "{table}"
        );
    }
    let tree = WorkTree::new(&[("layers/base/base.toml", "[qqqqqqqqqqqqqqqq]\n")]);
    let said = tree.mistakes();
    let line = said
        .lines()
        .find(|line| line.starts_with("hint: "))
        .unwrap();
    for section in schema_keys(&schema, "") {
        assert!(line.contains(&section), "{section}: {line}");
    }
    let kinds = line.split("the kinds ").nth(1).unwrap().split(", ");
    let kinds: BTreeSet<String> = kinds
        .map(str::to_owned)
        .chain(["layer", "defaults", "vars"].map(str::to_owned))
        .collect();
    assert_eq!(kinds, schema_keys(&schema, ""));
}

#[test]
fn the_keys_of_fleet_toml_and_the_inventory_are_those_that_the_program_reads() {
    let check = |path: &str, text: &str| {
        known_keys(&WorkTree::new(&[("layers/base/base.toml", ""), (path, text)]).mistakes())
    };
    let fleet = schema("fleet");
    assert_eq!(
        check("fleet.toml", &format!("{UNKNOWN}{FLEET}")),
        schema_keys(&fleet, "")
    );
    assert_eq!(
        check("fleet.toml", &format!("{FLEET}{UNKNOWN}")),
        schema_keys(&fleet, "/definitions/rule")
    );
    let inventory = schema("inventory");
    assert_eq!(
        check("inventory/hosts.toml", UNKNOWN),
        schema_keys(&inventory, "")
    );
    assert_eq!(
        check("inventory/hosts.toml", &format!("[host.gw]\n{UNKNOWN}")),
        schema_keys(&inventory, "/definitions/host")
    );
}

#[test]
fn the_keys_of_limpet_toml_are_those_that_the_program_reads() {
    let schema = schema("limpet");
    for (table, pointer) in [
        ("", ""),
        ("[source]\n", "/properties/source"),
        ("[trust]\n", "/properties/trust"),
        ("[trust.anchor]\n", "/properties/trust/properties/anchor"),
        ("[host]\n", "/properties/host"),
        ("[apply]\n", "/properties/apply"),
    ] {
        let failures =
            limpet::config::Config::parse(&[("limpet.toml".into(), format!("{table}{UNKNOWN}"))])
                .unwrap_err();
        let told: Vec<String> = failures
            .into_iter()
            .filter_map(|failure| failure.rendered)
            .collect();
        assert_eq!(
            known_keys(&told.join("\n")),
            schema_keys(&schema, pointer),
            "{table}"
        );
    }
}

/// Everything of it has a description, because editors show it.
#[test]
fn every_key_is_described() {
    fn check(schema: &Value, root: &Value, path: &str) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (key, property) in properties {
                let path = format!("{path}.{key}");
                let target = property
                    .get("$ref")
                    .and_then(Value::as_str)
                    .map(|pointer| root.pointer(&pointer[1..]).unwrap());
                // A condition of a rule says nothing new.
                if path.contains("anyOf") {
                    continue;
                }
                let described = [Some(property), target]
                    .into_iter()
                    .flatten()
                    .any(|part| part.get("description").is_some());
                assert!(described, "{path} has no description");
                check(property, root, &path);
            }
        }
    }
    for name in ["fleet", "inventory", "layer", "limpet"] {
        let schema = schema(name);
        check(&schema, &schema, name);
        for (definition, part) in schema
            .get("definitions")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            check(part, &schema, &format!("{name}:{definition}"));
        }
    }
}

#[test]
fn what_a_schema_can_see_is_refused_by_both() {
    let layer = validator("layer");
    for text in [
        "[file.\"/etc/motd\"]\nowmer = \"root\"\n",
        "[fiel.\"/etc/motd\"]\ncontent = \"\"\n",
        "[file.\"/etc/motd\"]\nmode = 644\n",
        "[file.\"/etc/motd\"]\nmode = \"rw\"\n",
        "[file.\"/etc/motd\"]\ncontent = \"\"\nsource = \"x\"\n",
        "[file.\"/etc/motd\"]\nvalidate = \"nginx -t\"\n",
        "[file.\"/etc/motd\"]\ncontent = \"\"\nvalidate = [\"visudo\", \"-c\"]\n",
        "[file.\"etc/motd\"]\ncontent = \"\"\n",
        "[file.\"/etc/../motd\"]\ncontent = \"\"\n",
        "[file.\"/etc//motd\"]\ncontent = \"\"\n",
        "[file.\"/etc/motd/\"]\ncontent = \"\"\n",
        "[file.\"/etc/motd\"]\nstate = \"gone\"\n",
        "[file.\"/etc/motd\"]\ncontent = \"\"\non_removal = \"purge\"\n",
        "[package]\ncurl = \"present\"\n",
        "[package]\ncurl = \"latest\"\n",
        "[package]\ncurl = true\n",
        "[package]\n\"--purge\" = \"installed\"\n",
        "[package]\n\"curl-\" = \"installed\"\n",
        "[package]\ncurl = { version = \"1 *\" }\n",
        "[package]\ncurl = { hold = \"yes\", version = \"1\" }\n",
        "[unit.c]\nenabled = true\n",
        "[unit.\"c.servce\"]\nenabled = true\n",
        "[unit.\"c.service\"]\nenabled = \"true\"\n",
        "[unit.\"c.service\"]\nrestart = \"by hand\"\nrunning = true\n",
        "[unit.\"c.service\".dropin.\"x.conf\"]\ncontent = \"\"\n",
        "[file.\"/etc/motd\"]\ncontent = \"\"\nneeds = [\"chrony\"]\n",
        "[file.\"/etc/motd\"]\ncontent = \"\"\nneeds = \"package:chrony\"\n",
        "[user.deploy]\nuid = \"1\"\n",
        "[user.Deploy]\nuid = 1\n",
        "[user.deploy]\nshell = \"bash\"\n",
        "[group.ops]\ngid = -1\n",
        "[tree.\"/etc/app\"]\nsource = \"\"\n",
        "[repository.\"a b\"]\napt = { uris = [\"https://a\"], suites = [\"./\"] }\n",
        "[repository.a]\napt = { uris = \"https://a\" }\n",
        "[repository.a]\napt = { url = \"https://a\" }\n",
        "[repository.a]\napt = { uris = [\"ftp://a\"], suites = [\"./\"], key = \"a.asc\" }\n",
        "[repository.a]\napt = { uris = [\"https://a [trusted=yes]\"], suites = [\"./\"], key = \"a.asc\" }\n",
        "[file.\"/etc/x\"]\nsource = \"x\"\ndecrypt = \"gpg\"\n",
        "[file.\"/x\"]\nurl = \"ftp://a/b\"\nsha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n",
        "[file.\"/x\"]\nurl = \"https://a/b\"\nsha256 = \"9F\"\n",
        "[file.\"/x\"]\nurl = \"https://a/b\"\nunpack = \"yes\"\n",
        "[sysctl]\n\"net.ipv4.ip_forward\" = true\n",
        "[sysctl]\n\"net/ipv4/ip_forward\" = 1\n",
        "[sysctl]\nswappiness = 1\n",
        "[sysctl]\n\"vm.swappiness\" = \"\"\n",
        "[mount.\"/srv\"]\noptions = [\"a,b\"]\n",
        "[layer]\nuse = [\"layers/a\"]\n",
        "[vars]\nhost = 1\n",
    ] {
        assert!(
            !layer.is_valid(&read_toml(text)),
            "the schema accepts {text}"
        );
        let tree = WorkTree::new(&[("layers/base/base.toml", text)]);
        assert_eq!(
            tree.check().status.code(),
            Some(65),
            "the program accepts {text}"
        );
    }
    let fleet = validator("fleet");
    for text in [
        "fleet = \"x\"\n",
        "format = 2\nfleet = \"x\"\n",
        "format = 1\nfleet = \"a b\"\n",
        "format = 1\nfleet = \"x\"\nmin_limpet = \"new\"\n",
        "format = 1\nfleet = \"x\"\n[[match]]\nlayers = [\"base\"]\n",
        "format = 1\nfleet = \"x\"\n[[match]]\nhosts = [\"*\"]\n",
        "format = 1\nfleet = \"x\"\n[[match]]\nfacts = { kernel = \"6\" }\nlayers = [\"base\"]\n",
        "format = 1\nfleet = \"x\"\n[[match]]\nhosts = [\"*\"]\nlayers = \"base\"\n",
    ] {
        assert!(
            !fleet.is_valid(&read_toml(text)),
            "the schema accepts {text}"
        );
        let tree = WorkTree::new(&[("layers/base/base.toml", ""), ("fleet.toml", text)]);
        assert_eq!(
            tree.check().status.code(),
            Some(65),
            "the program accepts {text}"
        );
    }
    let inventory = validator("inventory");
    for text in [
        "[host.\"../x\"]\n",
        "[host.gw]\nlabel = {}\n",
        "[host.gw]\nfacts = { os_version = 12 }\n",
        "[host.gw]\nmachine_id = \"x\"\n",
        "[host.gw]\nage = \"age1x\"\n",
        "[host.gw]\nvars = { hosts = 1 }\n",
        "[hosts.gw]\n",
    ] {
        assert!(
            !inventory.is_valid(&read_toml(text)),
            "the schema accepts {text}"
        );
        let tree = WorkTree::new(&[
            ("layers/base/base.toml", ""),
            ("inventory/hosts.toml", text),
        ]);
        assert_eq!(
            tree.check().status.code(),
            Some(65),
            "the program accepts {text}"
        );
    }
}
