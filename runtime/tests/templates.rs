//! What an image wants rendered is there, and reaches nothing of the host.

mod support;

use std::fs;
use std::time::Duration;

use support::{Recipe, World, traces};

#[test]
fn templates_are_rendered_on_their_occasions() {
    let world = World::new();
    let image = world.image(&Recipe {
        templates: &[
            ("/etc/hostname", "create, copy", "{{ container.name }}\n"),
            (
                "/etc/new/dir/file",
                "start",
                "{{ trigger }} {{ properties.k }} {{ config_get(\"user.x\", \"none\") }}",
            ),
            ("/etc/copied", "copy", "never"),
        ],
        ..Recipe::default()
    });
    let container = world.launch_from("tpl", &image);
    assert_eq!(container.output("cat /etc/hostname"), container.name.as_str());
    assert_eq!(
        container.output("cat /etc/new/dir/file; stat -c %u:%g:%a /etc/hostname"),
        "start v none0:0:644"
    );
    assert_ne!(container.sh("test -e /etc/copied"), 0);
    assert_eq!(container.sh("echo mine > /etc/hostname; echo mine > /etc/new/dir/file"), 0);
    world.runtime.stop(&container.name, Duration::ZERO).unwrap();
    world.runtime.start(&container.name).unwrap();
    assert_eq!(container.output("cat /etc/hostname"), "mine", "create happens once");
    assert_eq!(container.output("cat /etc/new/dir/file"), "start v none");
}

#[test]
fn links_in_the_image_lead_nowhere_else() {
    let world = World::new();
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("hosts"), "host's").unwrap();
    let image = world.image(&Recipe {
        links: &[("etc/hosts", outside.join("hosts").to_str().unwrap()), ("srv", outside.to_str().unwrap())],
        templates: &[("/etc/hosts", "create", "rendered")],
        ..Recipe::default()
    });
    let container = world.launch_from("links", &image);
    assert_eq!(container.output("cat /etc/hosts"), "rendered");
    assert_eq!(fs::read_to_string(outside.join("hosts")).unwrap(), "host's");
    drop(container);
    let image = world.image(&Recipe {
        links: &[("srv", outside.to_str().unwrap())],
        templates: &[("/srv/hosts", "create", "rendered")],
        ..Recipe::default()
    });
    let container = world.create("links-2", &image);
    world.runtime.start(&container.name).unwrap_err();
    assert_eq!(fs::read_to_string(outside.join("hosts")).unwrap(), "host's");
}

#[test]
fn hostile_templates_fail_alone() {
    let world = World::new();
    let cases = [
        ("{{ get_env(name=\"PATH\") }}", "not available"),
        ("{% include \"/etc/shadow\" %}", "template for /etc/x"),
        (
            "{% for a in range(end=9000) %}{% for a in range(end=9000) %}x{% endfor %}{% endfor %}",
            "larger than",
        ),
        ("{% set x = range(end=4000000000) %}", "died while"),
    ];
    for (number, (text, expected)) in cases.into_iter().enumerate() {
        let image = world.image(&Recipe { templates: &[("/etc/x", "create", text)], ..Recipe::default() });
        let container = world.create(&format!("hostile-{number}"), &image);
        let error = world.runtime.start(&container.name).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert_eq!(traces(&container.name, &world), Vec::<String>::new(), "{text}");
    }
}
