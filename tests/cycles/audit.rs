//! What was done is written down: by whom, what it changed, and nothing that not everybody may read.

use limpet::cycle::audit;
use limpet::record::Record;
use limpet::report::history::{Event, History};

use crate::scene::Scene;

/// The history of the scene's machine, with diffs where it is asked `about` something.
fn history(scene: &Scene, about: Option<&str>) -> History {
    let record = Record::open_read_only(&scene.path("var/lib/limpet/state.db")).unwrap();
    audit::history(&record, "gw-1", 100, about).unwrap()
}

fn motd(text: &str) -> String {
    format!("[file.\"/etc/motd\"]\ncontent = \"{text}\\n\"\n")
}

#[test]
fn each_revision_is_told_with_its_signer_its_subject_and_what_it_changed() {
    let scene = Scene::new(&motd("one"));
    scene.apply().expect(0);
    let second = scene.push_layer(&motd("two"));
    scene.apply().expect(0);
    scene.put("etc/motd", "somebody was here\n");
    scene.apply().expect(0);
    scene.apply().expect(0);

    let told = history(&scene, None);
    let events: Vec<Event> = told.runs.iter().map(|run| run.event).collect();
    assert_eq!(
        events,
        [Event::DriftCorrected, Event::Applied, Event::Applied],
        "a cycle that does nothing leaves nothing: {told:#?}"
    );
    let applied = &told.runs[1];
    assert_eq!(applied.revision, second);
    assert_eq!(applied.subject.as_deref(), Some("change the base layer"));
    assert!(
        applied
            .signer
            .as_deref()
            .is_some_and(|signer| signer.contains("alice"))
    );
    assert_eq!(told.runs[2].subject.as_deref(), Some("first revision"));

    let of_second = history(&scene, Some(&second[..8]));
    let diffs: Vec<&str> = of_second
        .runs
        .iter()
        .flat_map(|run| &run.changes)
        .filter_map(|change| change.diff.as_deref())
        .collect();
    assert_eq!(diffs.len(), 2);
    assert!(diffs[0].contains("-somebody was here\n+two\n"), "{diffs:?}");
    assert!(diffs[1].contains("-one\n+two\n"), "{diffs:?}");
    assert_eq!(history(&scene, Some("/etc/motd")).runs.len(), 3);
}

#[test]
fn a_content_that_not_everybody_may_read_is_never_written_down() {
    let layer = |word: &str| {
        format!(
            "[file.\"/etc/key\"]\ncontent = \"{word}-by-mode\\n\"\nmode = \"0600\"\n
             [directory.\"/srv/closed\"]\nmode = \"0700\"\n
             [file.\"/srv/closed/key\"]\ncontent = \"{word}-by-directory\\n\"\n"
        )
    };
    let scene = Scene::new(&layer("first"));
    scene.apply().expect(0);
    let second = scene.push_layer(&layer("second"));
    scene.apply().expect(0);
    // Opened by somebody, filled, and closed again: what it held meanwhile was never limpet's to show.
    let told = history(&scene, Some(&second));
    let shown = format!("{told:?}");
    assert!(shown.contains("not shown"), "{shown}");
    for path in ["state.db", "state.db-wal"] {
        let bytes = std::fs::read(scene.path("var/lib/limpet").join(path)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.contains("-by-mode") && !text.contains("-by-directory"),
            "{path}"
        );
    }
}

#[test]
fn a_refused_and_a_mistaken_revision_are_told_once() {
    let scene = Scene::new(&motd("one"));
    scene.apply().expect(0);
    scene
        .repository
        .write("layers/base/base.toml", &motd("evil"));
    let unsigned = scene.repository.commit_unsigned("open the door");
    scene.repository.push();
    scene.apply().expect(77);
    scene.apply().expect(77);
    scene.repository.reset("HEAD~1");
    scene.repository.write(
        "layers/base/base.toml",
        "[file.\"/etc/motd\"]\nowmer = \"x\"\n",
    );
    let mistaken = scene.repository.commit(&scene.alice, "mistype");
    scene.repository.force_push();
    scene.apply().expect(65);
    scene.apply().expect(65);

    let told = history(&scene, None);
    let runs: Vec<(Event, &str)> = told
        .runs
        .iter()
        .map(|run| (run.event, run.revision.as_str()))
        .collect();
    assert_eq!(
        runs[..2],
        [
            (Event::Mistaken, mistaken.as_str()),
            (Event::Refused, unsigned.as_str())
        ]
    );
    assert_eq!(runs.len(), 3, "{told:#?}");
    assert!(
        told.runs[0].detail.contains("layers/base/base.toml:2"),
        "{told:#?}"
    );
    assert_eq!(told.runs[1].subject.as_deref(), Some("open the door"));
    assert_eq!(told.runs[1].signer, None);
}

#[test]
fn a_first_apply_of_many_files_keeps_a_bounded_number_of_diffs() {
    let many: String = (0..400)
        .map(|n| format!("[file.\"/srv/{n}\"]\ncontent = \"{n}\"\n"))
        .collect();
    let scene = Scene::new(&many);
    scene.apply().expect(0);
    let revision = history(&scene, None).runs[0].revision.clone();
    let told = history(&scene, Some(&revision));
    let changes = &told.runs[0].changes;
    assert!(changes.len() >= 400);
    let kept = changes
        .iter()
        .filter(|change| change.diff.is_some())
        .count();
    assert_eq!(kept, 256);
}
