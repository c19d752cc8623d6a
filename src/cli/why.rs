//! `limpet why`: what declared this host, or one resource of it, as it is.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::cli::terminal::{self, Terminal, ago, moment};
use crate::cli::{CommandResult, agent_or_record};
use crate::control::{Reply, Request};
use crate::model::OnRemoval;
use crate::report::explanation::{Event, Explanation, Resource, Restart, Value};
use crate::report::journal::short;

/// Show who declared a resource and where; without one, this host's layers
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Of a resource: the file, line and layer of each value and the variables it used, the commit and who signed it, the last \
    change, the last drift, and who restarts whom. Without one: this host's layers, and the rule that chose each."
)]
pub struct Arguments {
    /// kind:name, or a bare path, unit or package
    resource: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The longest value that is shown as a whole, in characters.
const LONGEST_VALUE: usize = 100;

/// Runs the command. Ends with 1 when nothing declares the resource.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let request = Request::Why {
        resource: arguments.resource.clone(),
    };
    let explanation = match agent_or_record::ask(&request) {
        Ok(Reply::Why { explanation }) => *explanation,
        Ok(other) => return Err(vec![agent_or_record::unexpected(&other)]),
        Err(no_agent) => {
            let memory = agent_or_record::own_memory(&no_agent)?;
            let status = agent_or_record::recorded_status(&no_agent)?;
            memory.explain(arguments.resource.as_deref(), &status, true)?
        }
    };
    if arguments.json {
        terminal.data(&terminal::json(&explanation)?)?;
    } else {
        terminal.show(&text(&explanation, crate::sys::clock::now()))?;
    }
    let is_declared = explanation
        .resource
        .is_none_or(|resource| resource.declared);
    Ok(if is_declared { 0 } else { 1 })
}

/// The explanation as people read it.
pub fn text(explanation: &Explanation, now: Timestamp) -> String {
    let mut out = String::new();
    match &explanation.resource {
        Some(resource) => write_resource(&mut out, resource, now),
        None => write_host(&mut out, explanation),
    }
    let signer = explanation.signer.as_deref();
    row(
        &mut out,
        "in force",
        &format!("{}  {}", short(&explanation.revision), explanation.subject),
    );
    row(
        &mut out,
        "signed by",
        signer.unwrap_or("nobody: local root set it"),
    );
    for condition in &explanation.conditions {
        let since = ago(condition.since, now);
        row(
            &mut out,
            "this host is",
            &format!("{} since {since}: {}", condition.kind, condition.reason),
        );
    }
    out
}

fn row(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "    {name:<12} {}", value.trim_end());
}

fn write_host(out: &mut String, explanation: &Explanation) {
    let _ = writeln!(out, "{}", explanation.host);
    let _ = writeln!(out, "  layers, the last one wins");
    let width = explanation
        .layers
        .iter()
        .map(|layer| layer.name.chars().count())
        .max()
        .unwrap_or(0);
    for layer in &explanation.layers {
        let _ = writeln!(out, "    {:<width$}  {}", layer.name, layer.because);
    }
    for (title, pairs) in [
        ("labels", &explanation.labels),
        ("facts", &explanation.facts),
    ] {
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let _ = writeln!(out, "  {title}");
        let _ = match pairs.is_empty() {
            true => writeln!(out, "    none"),
            false => writeln!(out, "    {}", pairs.join("  ")),
        };
    }
    let _ = writeln!(out, "  declared");
    row(out, "digest", &explanation.digest);
}

fn write_resource(out: &mut String, resource: &Resource, now: Timestamp) {
    if !resource.declared {
        write_undeclared(out, resource, now);
        return;
    }
    let report = if resource.report {
        ", only reported"
    } else {
        ""
    };
    let detail = match resource.detail.as_str() {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    let _ = writeln!(
        out,
        "{}  {}{report}{detail}",
        resource.resource, resource.state
    );
    write_values(out, "values", &resource.values);
    write_values(out, "variables it uses", &resource.variables);
    let _ = writeln!(out, "  about it");
    if let Some(contested) = &resource.contested {
        row(out, "contested", contested);
    }
    if !resource.names.is_empty() {
        row(out, "uses", &resource.names.join(", "));
    }
    for (title, ids) in [
        ("needs", &resource.needs),
        ("needed by", &resource.needed_by),
    ] {
        if !ids.is_empty() {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            row(out, title, &ids.join(", "));
        }
    }
    let edges = |edges: &[Restart]| {
        let edge = |edge: &Restart| format!("{} ({})", edge.resource, edge.action);
        edges.iter().map(edge).collect::<Vec<_>>().join(", ")
    };
    if !resource.restarts.is_empty() {
        row(
            out,
            "a change",
            &format!("moves {}", edges(&resource.restarts)),
        );
    }
    if !resource.restarted_by.is_empty() {
        row(out, "moved by", &edges(&resource.restarted_by));
    }
    let removal = match resource.on_removal {
        OnRemoval::Restore => "what was there before is put back",
        OnRemoval::Delete => "it is deleted",
        OnRemoval::Keep => "it is left as it is",
    };
    row(out, "undeclared", removal);
    row(
        out,
        "before",
        resource
            .original
            .as_deref()
            .unwrap_or("limpet has not touched it yet"),
    );
    if !resource.set_aside.is_empty() {
        let paths = resource.set_aside.join(", ");
        row(
            out,
            "set aside",
            &format!(
                "{paths}: what the package brings; the file beside it stays as it was changed here"
            ),
        );
    }
    let never = "never, as far as the history goes";
    row(
        out,
        "last change",
        &told(resource.last_change.as_ref(), now, never),
    );
    row(
        out,
        "last drift",
        &told(resource.last_drift.as_ref(), now, never),
    );
}

fn write_undeclared(out: &mut String, resource: &Resource, now: Timestamp) {
    let _ = writeln!(out, "{}  is not declared for this host", resource.resource);
    for near in &resource.near {
        row(out, "did you mean", &near.to_string());
    }
    if let Some(original) = &resource.original {
        row(
            out,
            "still owned",
            "limpet applied it, and has not taken it back yet",
        );
        row(out, "before", original);
    }
    match &resource.last_change {
        Some(event) => row(out, "once", &told(Some(event), now, "")),
        None if resource.original.is_none() => {
            row(out, "once", "never, as far as the history goes")
        }
        None => {}
    }
}

fn told(event: Option<&Event>, now: Timestamp, never: &str) -> String {
    let Some(event) = event else {
        return never.to_owned();
    };
    let what = match (event.outcome.as_str(), event.detail.as_str()) {
        ("done", "") => event.action.clone(),
        ("done", fields) => format!("{} ({fields})", event.action),
        (outcome, detail) => format!("{} {outcome}: {detail}", event.action),
    };
    format!(
        "{} ({}): {what}, at {} {}",
        moment(event.at),
        ago(event.at, now),
        short(&event.revision),
        event.subject.as_deref().unwrap_or("")
    )
}

fn write_values(out: &mut String, title: &str, values: &[Value]) {
    if values.is_empty() {
        return;
    }
    let _ = writeln!(out, "  {title}");
    for value in values {
        let shown = match &value.value {
            Some(text) => shortened(text),
            None => "(not shown: not everybody may read it)".to_owned(),
        };
        let _ = writeln!(out, "    {} = {shown}", value.key);
        let _ = writeln!(out, "        {} (layer {})", value.location, value.layer);
    }
}

fn shortened(text: &str) -> String {
    let line = crate::document::single_line(text);
    match line.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}… ({} characters)", &line[..end], line.chars().count()),
        None => line.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Kind, Location, ResourceId};
    use crate::report::explanation::Layer;
    use crate::report::status::Condition;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_161_600 + second).unwrap()
    }

    fn value(key: &str, value: Option<&str>, file: &str, line: u32) -> Value {
        Value {
            key: key.into(),
            value: value.map(str::to_owned),
            location: Location {
                file: file.into(),
                line,
                column: 1,
            },
            layer: file.split('/').nth(1).unwrap_or_default().into(),
        }
    }

    fn explanation() -> Explanation {
        Explanation {
            host: "gw-lag-02".into(),
            revision: "9f3c2ab5d2".repeat(4),
            subject: "raise ntp pool size".into(),
            signer: Some("alice (SHA256:pQ2x)".into()),
            digest: "d1d2".into(),
            labels: [("site".to_owned(), "lagos".to_owned())].into(),
            facts: [
                ("arch".to_owned(), "amd64".to_owned()),
                ("os".to_owned(), "debian".to_owned()),
            ]
            .into(),
            layers: vec![
                Layer {
                    name: "base".into(),
                    because: "fleet.toml:5:1 matches".into(),
                },
                Layer {
                    name: "site/lagos".into(),
                    because: "fleet.toml:9:1 matches".into(),
                },
            ],
            conditions: vec![],
            resource: None,
        }
    }

    fn resource() -> Resource {
        Resource {
            resource: ResourceId::new(Kind::File, "/etc/chrony/chrony.conf"),
            declared: true,
            contested: None,
            state: "as declared".into(),
            detail: String::new(),
            values: vec![
                value(
                    "source",
                    Some("\"chrony.conf.j2\""),
                    "layers/base/chrony.toml",
                    3,
                ),
                value("mode", Some("\"0644\""), "layers/site/lagos.toml", 9),
                value("content", None, "layers/base/chrony.toml", 4),
            ],
            variables: vec![value(
                "ntp",
                Some("[\"ntp1\"]"),
                "layers/site/lagos.toml",
                2,
            )],
            names: vec!["host.name".into()],
            needs: vec![ResourceId::new(Kind::Package, "chrony")],
            needed_by: vec![],
            restarts: vec![Restart {
                resource: ResourceId::new(Kind::Unit, "chrony.service"),
                action: Action::Restart,
            }],
            restarted_by: vec![],
            report: false,
            on_removal: OnRemoval::Restore,
            original: Some("nothing was there".into()),
            set_aside: vec!["/etc/chrony.keys.dpkg-dist".into()],
            last_change: Some(Event {
                at: at(0),
                revision: "9f3c2ab5d2".repeat(4),
                subject: Some("raise ntp pool size".into()),
                action: "update".into(),
                outcome: "done".into(),
                detail: "content".into(),
            }),
            last_drift: None,
            near: vec![],
        }
    }

    #[test]
    fn a_host_is_explained_by_its_layers() {
        insta::assert_snapshot!(text(&explanation(), at(0)), @r"
        gw-lag-02
          layers, the last one wins
            base        fleet.toml:5:1 matches
            site/lagos  fleet.toml:9:1 matches
          labels
            site=lagos
          facts
            arch=amd64  os=debian
          declared
            digest       d1d2
            in force     9f3c2ab  raise ntp pool size
            signed by    alice (SHA256:pQ2x)
        ");
    }

    #[test]
    fn a_resource_is_explained_key_by_key() {
        let explanation = Explanation {
            resource: Some(resource()),
            conditions: vec![Condition {
                kind: "paused".into(),
                since: at(0),
                reason: "until 10:00, by root: 'moving the rack'".into(),
                who: "nobody".into(),
            }],
            ..explanation()
        };
        insta::assert_snapshot!(text(&explanation, at(3600)), @r#"
        file:/etc/chrony/chrony.conf  as declared
          values
            source = "chrony.conf.j2"
                layers/base/chrony.toml:3:1 (layer base)
            mode = "0644"
                layers/site/lagos.toml:9:1 (layer site)
            content = (not shown: not everybody may read it)
                layers/base/chrony.toml:4:1 (layer base)
          variables it uses
            ntp = ["ntp1"]
                layers/site/lagos.toml:2:1 (layer site)
          about it
            uses         host.name
            needs        package:chrony
            a change     moves unit:chrony.service (restart)
            undeclared   what was there before is put back
            before       nothing was there
            set aside    /etc/chrony.keys.dpkg-dist: what the package brings; the file beside it stays as it was changed here
            last change  2026-11-20 08:00:00 UTC (60 min ago): update (content), at 9f3c2ab raise ntp pool size
            last drift   never, as far as the history goes
            in force     9f3c2ab  raise ntp pool size
            signed by    alice (SHA256:pQ2x)
            this host is paused since 60 min ago: until 10:00, by root: 'moving the rack'
        "#);
    }

    #[test]
    fn what_is_not_declared_says_whether_it_was() {
        let explanation = Explanation {
            resource: Some(Resource {
                declared: false,
                original: None,
                near: vec![ResourceId::new(Kind::File, "/etc/motd")],
                ..resource()
            }),
            ..explanation()
        };
        insta::assert_snapshot!(text(&explanation, at(60)), @r"
        file:/etc/chrony/chrony.conf  is not declared for this host
            did you mean file:/etc/motd
            once         2026-11-20 08:00:00 UTC (60 s ago): update (content), at 9f3c2ab raise ntp pool size
            in force     9f3c2ab  raise ntp pool size
            signed by    alice (SHA256:pQ2x)
        ");
    }
}
