//! What is needed to try from where nothing is declared: a namespace that is no part of the platform, and an image whose pods only look
//! around.

use std::path::Path;

use super::Plan;

/// The image is made up here.
pub(in crate::commands::up) const LOOK_IMAGE: &str = "landfall/look";

impl Plan {
    pub(super) fn add_foreign(&mut self, program: &Path) {
        self.image(LOOK_IMAGE.to_owned(), program, &["look-as-told"]);
        let namespace = self.foreign.clone();
        self.ensure_namespace(&namespace);
    }
}
