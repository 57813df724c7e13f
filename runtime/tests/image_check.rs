//! Unpacked images that are damaged, missing or needed by nobody: found, and healed where that harms no
//! container. Needs root and the Debian package busybox-static.

mod support;

use std::fs;
use std::time::Duration;

use millstream_client::{Kind, Mender, Problem};
use millstream_runtime::ImageFiles;
use support::{Recipe, World};

fn look(world: &World, stored: Option<&ImageFiles>, repair: bool) -> Vec<Problem> {
    let mut mender = Mender::new(repair);
    let stored = |fingerprint| stored.filter(|image: &&ImageFiles| image.fingerprint == fingerprint).cloned();
    world.runtime.check_images(stored, &mut mender).unwrap();
    mender.report.problems
}

fn kinds(problems: &[Problem]) -> Vec<Kind> {
    problems.iter().map(|problem| problem.kind).collect()
}

#[test]
fn damaged_and_missing_images_are_unpacked_again_for_their_containers() {
    let world = World::new();
    let recipe = Recipe { templates: &[("/etc/rendered", "start", "x")], ..Recipe::default() };
    let image = world.image(&recipe);
    let container = world.launch_from("heal", &image);
    let tree = world.runtime.images().join(image.fingerprint.to_string());
    assert_eq!(look(&world, Some(&image), false), []);
    assert_eq!(container.sh("echo kept > /mine"), 0);
    for lost in ["templates/t0.tpl", "metadata.yaml", "rootfs", ""] {
        let path = tree.join(lost);
        // What a running container rests on is not taken from under it.
        world.runtime.stop(&container.name, Duration::ZERO).unwrap();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        assert_eq!(kinds(&look(&world, Some(&image), false)), [Kind::Tree], "{lost}");
        let told = look(&world, None, true);
        assert!(told[0].repaired.is_none(), "{told:?}");
        assert!(told[0].advice.as_ref().unwrap().contains(&image.fingerprint.to_string()), "{told:?}");
        let healed = look(&world, Some(&image), true);
        assert_eq!((kinds(&healed), healed[0].repaired.is_some()), (vec![Kind::Tree], true), "{healed:?}");
        assert_eq!(look(&world, Some(&image), false), [], "{lost}");
        world.runtime.start(&container.name).unwrap();
        assert_eq!(container.output("cat /mine"), "kept");
    }
    fs::remove_file(tree.join("metadata.yaml")).unwrap();
    let told = look(&world, Some(&image), true);
    assert!(told[0].advice.as_ref().unwrap().contains(&format!("stop {}", container.name)), "{told:?}");
    assert_eq!(container.output("cat /mine"), "kept");
}

#[test]
fn what_nobody_needs_goes_and_what_was_cut_short_too() {
    let world = World::new();
    let image = world.image(&Recipe::default());
    let container = world.create("unused", &image);
    assert_eq!(look(&world, None, true), [], "a container rests on it");
    world.runtime.delete(&container.name, true).unwrap();
    assert_eq!(look(&world, Some(&image), true), [], "its image is in the store");
    let images = world.runtime.images();
    fs::create_dir(images.join(format!(".{}", image.fingerprint))).unwrap();
    fs::write(images.join("notes"), "x").unwrap();
    let mut found = kinds(&look(&world, None, false));
    found.sort();
    let expected = [Kind::Stray, Kind::Staging, Kind::UnusedTree];
    assert_eq!(found, expected);
    assert!(look(&world, None, true).iter().all(|problem| problem.repaired.is_some()));
    assert_eq!(look(&world, None, false), []);
    let left: Vec<_> = fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lost+found"]);
}
