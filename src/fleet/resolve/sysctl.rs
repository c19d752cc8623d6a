//! Parameters of the kernel: a live value, and the file that brings it back at boot.

use super::file::none_or;
use super::unit::{Bringer, brought};
use super::{Resolved, Resolver};
use crate::document::{Mistake, Place, Table};
use crate::fleet::declared;
use crate::fleet::sources::inline;
use crate::kinds::sysctl::{DesiredSysctl, MAX_VALUE_BYTES, words};
use crate::model::ResourceId;

/// After everybody else's, so that the declared value is the one that is left.
const FILE_PREFIX: &str = "/etc/sysctl.d/99-zz-limpet.";

impl Resolver<'_, '_> {
    pub(super) fn sysctl(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let sysctl: declared::Sysctl = declared::read(table, place, &what)?;
        let Some(declared::Scalar(text)) = sysctl.value else {
            let mistake = Mistake::new(place, format!("missing field `value` in {what}"));
            return Err(vec![mistake.hint(
                "write the value right after the name: \"net.ipv4.ip_forward\" = 1",
            )]);
        };
        let mut mistakes = Vec::new();
        let value = words(&text);
        let is_line = !text.contains(|letter: char| letter.is_control() && letter != '\t');
        if value.is_empty() || value.len() >= MAX_VALUE_BYTES || !is_line || value.ends_with('\\') {
            let place = table.place_of("value", place);
            let mistake = Mistake::new(&place, format!("{text:?} is no value for {what}"));
            mistakes.push(mistake.hint(format!(
                "write one line of at most {} bytes",
                MAX_VALUE_BYTES - 1
            )));
        }
        let bringer = Bringer {
            id,
            report: sysctl.report.unwrap_or(false),
            on_removal: sysctl.on_removal.unwrap_or_default(),
        };
        let path = format!("{FILE_PREFIX}{}.conf", id.name.replace('/', "+"));
        let text = format!(
            "# Declared by the fleet; changes made here are undone.\n{} = {value}\n",
            id.name
        );
        let file = brought(&bringer, path, inline(text));
        out.add_path(self.limits, file, place, &mut mistakes);
        out.sysctl = Some(DesiredSysctl {
            id: id.clone(),
            value,
            report: bringer.report,
            on_removal: bringer.on_removal,
        });
        none_or(mistakes)
    }
}
