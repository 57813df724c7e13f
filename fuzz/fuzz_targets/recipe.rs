//! Recipes from strangers: problems or a recipe, and picking an image out of it ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_builder::recipe::{Fallback, Kind, Recipe};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(recipe) = Recipe::parse(text, "fuzz") {
        let fallback = Fallback { release: "bookworm", serial: "20260101_0000" };
        let overrides = ["image.variant=cloud".to_owned(), "files.0.content={{ image.release }}".to_owned()];
        for kind in [Kind::Container, Kind::Vm] {
            let _ = recipe.resolve(&[], kind, &fallback);
            let _ = recipe.resolve(&overrides, kind, &fallback);
        }
    }
});
