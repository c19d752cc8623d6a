//! The key that opens this host's secrets.

use std::collections::BTreeSet;

use crate::age::Identity;
use crate::config::Config;
use crate::cycle::look;
use crate::doctor::Finding;
use crate::kinds::file::{CREDENTIAL, KEY_FILE, open_sealed, read_identity};
use crate::kinds::kind::Sealed;
use crate::model::{Failure, ResourceId};
use crate::sys::Host;

const CHECK: &str = "age key";

/// Is there a key, and does it open what is declared here.
pub(super) fn age_key(host: &Host, config: &Config, is_root: bool) -> Finding {
    if !is_root {
        return Finding::unknown(CHECK, "only root may read the key and what it is for");
    }
    let is_there = [CREDENTIAL, KEY_FILE]
        .iter()
        .any(|path| host.exists(path).unwrap_or(true));
    let identity = is_there.then(|| read_identity(host));
    match look::secrets_in_force(host, config) {
        Ok(secrets) => judge(identity, &secrets),
        Err(failure) => {
            Finding::unknown(CHECK, format!("what it is to open is not known: {failure}"))
        }
    }
}

/// What is to be said of the key, where `secrets` are declared.
fn judge(identity: Option<Result<Identity, Failure>>, secrets: &[(ResourceId, Sealed)]) -> Finding {
    let number = |count: usize| match count {
        1 => "1 secret".to_owned(),
        count => format!("{count} secrets"),
    };
    let needed: BTreeSet<&ResourceId> = secrets.iter().map(|(id, _)| id).collect();
    let identity = match identity {
        None if needed.is_empty() => {
            return Finding::ok(
                CHECK,
                "there is none, and nothing that is declared here needs one",
            );
        }
        None => {
            let first = needed.first().map(ToString::to_string).unwrap_or_default();
            let detail = format!(
                "there is no '{KEY_FILE}', and {} are to be opened with it: {first} …",
                number(needed.len())
            );
            let detail = match needed.len() {
                1 => format!("there is no '{KEY_FILE}', and {first} is to be opened with it"),
                _ => detail,
            };
            return Finding::wrong(CHECK, detail).hint(
                "put the host's key back if there is a copy; else: limpet secret identity --create, name what it prints in the inventory, and run 'limpet secret rekey' where somebody can still open them",
            );
        }
        Some(Err(failure)) => return Finding::of(CHECK, &failure),
        Some(Ok(identity)) => identity,
    };
    let recipient = identity.recipient();
    let mut closed = BTreeSet::new();
    for (id, sealed) in secrets {
        if open_sealed(sealed, &identity).is_err() {
            closed.insert(id);
        }
    }
    match closed.first() {
        None => Finding::ok(
            CHECK,
            format!("{recipient}, root's alone; it opens {}", match needed.len() {
                0 => "nothing that is declared here".to_owned(),
                count => format!("the {} declared here", number(count)),
            }),
        ),
        Some(first) => Finding::wrong(
            CHECK,
            format!("{recipient} does not open {} of the {} declared here: {first}", closed.len(), number(needed.len())),
        )
        .hint("name that key in the inventory (age = \"age1…\"), run 'limpet secret rekey' where they can be opened, and commit"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::doctor::Verdict;
    use crate::kinds::kind::{Content, Part};
    use crate::model::{Class, Kind};

    fn sealed_for(identity: &Identity, name: &str) -> (ResourceId, Sealed) {
        let text = crate::age::seal(b"secret", &[identity.recipient()]).unwrap();
        let part = Part::Secret(Arc::from(text.as_bytes()));
        let content = Content::sealed(vec![part]);
        let sealed = content.as_sealed().unwrap().clone();
        (ResourceId::new(Kind::File, name), sealed)
    }

    #[track_caller]
    fn check(
        identity: Option<Result<Identity, Failure>>,
        secrets: &[(ResourceId, Sealed)],
        verdict: Verdict,
        detail: &str,
    ) {
        let found = judge(identity, secrets);
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert!(found.detail.contains(detail), "{found:?}");
        assert_eq!(found.hint.is_some(), verdict == Verdict::Wrong, "{found:?}");
    }

    #[test]
    fn a_key_that_is_needed_is_there_and_opens_what_is_declared() {
        let (mine, other) = (Identity::generate(), Identity::generate());
        let again = || Some(Ok(Identity::parse(&mine.to_text()).unwrap()));
        let a = sealed_for(&mine, "/etc/a");
        let b = sealed_for(&mine, "/etc/b");
        let c = sealed_for(&other, "/etc/c");
        check(
            None,
            &[],
            Verdict::Ok,
            "there is none, and nothing that is declared here needs one",
        );
        check(
            None,
            std::slice::from_ref(&a),
            Verdict::Wrong,
            "and file:/etc/a is to be opened with it",
        );
        check(
            None,
            &[a.clone(), b.clone()],
            Verdict::Wrong,
            "2 secrets are to be opened with it: file:/etc/a …",
        );
        check(
            again(),
            &[],
            Verdict::Ok,
            "it opens nothing that is declared here",
        );
        check(
            again(),
            std::slice::from_ref(&a),
            Verdict::Ok,
            "it opens the 1 secret declared here",
        );
        check(
            again(),
            &[a.clone(), b.clone()],
            Verdict::Ok,
            &mine.recipient().to_string(),
        );
        check(
            again(),
            &[a, b, c],
            Verdict::Wrong,
            "does not open 1 of the 3 secrets declared here: file:/etc/c",
        );
        let open = Failure::new(Class::Host, "others than root may read it").with_hint("chmod");
        check(
            Some(Err(open)),
            &[],
            Verdict::Wrong,
            "others than root may read it",
        );
    }
}
