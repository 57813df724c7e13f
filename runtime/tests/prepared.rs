//! Images unpacked while they come: out of sight until whoever verified them says so.

mod support;

use std::fs::{self, File};
use std::io::{self, Read};

use millstream_runtime::container::ImageUse;
use support::{Container, Recipe, World, name};

fn entries(world: &World) -> Vec<String> {
    let all = fs::read_dir(world.runtime.images()).unwrap();
    all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Breaks off in the middle, as a download that proved wrong does.
struct Broken(io::Take<File>);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("it proved wrong")),
            count => Ok(count),
        }
    }
}

#[test]
fn what_comes_is_out_of_sight_until_it_is_verified() {
    let world = World::new();
    let (image, other) = (
        world.image(&Recipe::default()),
        world.image(&Recipe { files: &[("etc/other", "x")], ..Recipe::default() }),
    );
    let prepare = || world.runtime.prepare(image.fingerprint, File::open(&image.rootfs).unwrap());

    // It fails, is dropped, or was of another image: nothing stays.
    let length = fs::metadata(&image.rootfs).unwrap().len();
    let broken = Broken(File::open(&image.rootfs).unwrap().take(length / 2));
    assert!(world.runtime.prepare(image.fingerprint, broken).is_err());
    assert_eq!(entries(&world), Vec::<String>::new());
    let prepared = prepare().unwrap().unwrap();
    assert!(entries(&world).iter().all(|name| name.starts_with('.')), "{:?}", entries(&world));
    drop(prepared);
    assert_eq!(entries(&world), Vec::<String>::new());
    prepare().unwrap().unwrap().finish(&other).unwrap();
    assert_eq!(entries(&world), Vec::<String>::new());

    // Verified: containers are made from it, and it is not unpacked again.
    prepare().unwrap().unwrap().finish(&image).unwrap();
    assert_eq!(entries(&world).len(), 1);
    assert!(prepare().unwrap().is_none());
    fs::rename(&image.rootfs, image.rootfs.with_extension("away")).unwrap();
    let container = Container { world: &world, name: name("prepared") };
    world.runtime.create(&container.name, &image, ImageUse::Automatic).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.output("ls /etc/inittab"), "/etc/inittab");
}
