//! Every problem of a recipe is told at once, with file, line and the valid choices.

use std::fs;
use std::path::Path;

use crate::bench::{Bench, fails, says, works};

const BROKEN: &str = r"image:
  distribution: debian
  relase: bookworm
source:
  downloader: debootstrp
  components: main
packages:
  update: perhaps
  sets:
    - packages: [a]
      action: instal
      types: [contaner]
files:
  - generator: dump
    path: [x]
actions:
  - trigger: post-file
";

#[test]
fn all_problems_at_once_with_lines_and_choices() {
    let bench = Bench::new();
    let file = bench.write("broken.yaml", BROKEN);
    let text = fails(bench.command().args(["recipe", "validate"]).arg(&file));
    let expected = [
        (":3:3:", "unknown key in image: \"relase\"; did you mean release?"),
        (":5:15:", "did you mean debootstrap?"),
        (":6:15:", "components must be a list, not text"),
        (":8:11:", "update must be true or false, not text"),
        (":11:15:", "did you mean install?"),
        (":12:15:", "did you mean container?"),
        (":15:11:", "path must be text, not a list"),
        (":17:14:", "did you mean post-files?"),
    ];
    let lines: Vec<_> = text.lines().filter(|line| line.contains("broken.yaml")).collect();
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, (place, message)) in lines.iter().zip(expected) {
        assert!(line.contains(place) && line.contains(message), "{place} {message}\n{line}");
        assert!(line.starts_with(&file.display().to_string()), "{line}");
    }
}

#[test]
fn templates_are_checked_before_anything_is_built() {
    let bench = Bench::new();
    let file = bench.write(
        "t.yaml",
        "image:\n  distribution: debian\n  release: x\nsource:\n  downloader: debootstrap\n  url: http://m/{{ image.relase }}\nactions:\n- trigger: post-files\n  pongo: true\n  action: |\n    {% if image.variant %}\n- trigger: post-files\n  action: '{{ not.a.template }}'\n",
    );
    let text = fails(bench.command().args(["recipe", "validate"]).arg(&file));
    assert!(text.contains("t.yaml:6:8:") && text.contains("image.relase"), "{text}");
    assert!(text.contains("t.yaml:11:"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("t.yaml:")).count(), 2, "{text}");
}

#[test]
fn what_looks_like_a_number_stays_as_written() {
    let bench = Bench::new();
    let recipe = "image:\n  distribution: x\n  release: 3.20\n  variant: yes\n  description: 0x10 and {{ image.serial }}\nsource:\n  downloader: debootstrap\nfiles:\n- generator: dump\n  path: /a\n  mode: 0644\n  uid: 007\n";
    let file = bench.write("n.yaml", recipe);
    let shown =
        works(bench.command().args(["recipe", "show", "-o", "image.serial=20260101_0000"]).arg(&file));
    for line in ["release: '3.20'", "description: 0x10 and 20260101_0000", "mode: '0644'", "uid: '007'"] {
        assert!(shown.contains(line), "{line}:\n{shown}");
    }
}

#[test]
fn overrides_are_checked_like_the_recipe_and_may_hold_equals_signs() {
    let bench = Bench::new();
    let recipe = "image:\n  distribution: debian\n  release: bookworm\nsource:\n  downloader: debootstrap\n";
    let file = bench.write("r.yaml", recipe);
    let show = |options: &[&str]| {
        let mut command = bench.command();
        command.args(["recipe", "show"]).arg(&file);
        for option in options {
            command.args(["-o", option]);
        }
        command
    };
    let text = fails(&mut show(&["image.relase=x", "packages.update=perhaps", "nonsense"]));
    for word in ["-o image.relase", "valid: distribution, release", "-o packages.update", "-o nonsense"] {
        assert!(text.contains(word), "{word}:\n{text}");
    }
    let text = fails(&mut show(&["image.architecture=vax"]));
    assert!(text.contains("vax") && text.contains("known are amd64, arm64"), "{text}");
    let shown = works(&mut show(&["source.url=http://m.example/?a=b=c", "image.release=trixie"]));
    assert!(shown.contains("url: http://m.example/?a=b=c") && shown.contains("release: trixie"), "{shown}");
}

#[test]
fn a_release_or_architecture_the_mirror_lacks_is_named_with_what_there_is() {
    let (bench, mirror) = (Bench::new(), crate::mirror::Mirror::start());
    let recipe = mirror.recipe("simplestream:\n  release_aliases:\n    other: \"1\"\n");
    let text = fails(&mut bench.build(&recipe, "out", &["-o", "image.release=wrong"]));
    assert!(text.contains("dists/wrong/InRelease") && text.contains("other"), "{text}");
    let text = fails(&mut bench.build(&recipe, "out", &["-o", "image.architecture=i386"]));
    assert!(text.contains("no architecture i386 (valid: amd64)"), "{text}");
    bench.assert_clean("out");
}

#[test]
fn the_projects_own_recipes_are_accepted() {
    let bench = Bench::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["recipes", "benches/recipes"] {
        let listing = fs::read_dir(root.join(directory)).into_iter().flatten().flatten();
        files.extend(
            listing.map(|item| item.path()).filter(|path| path.extension().is_some_and(|e| e == "yaml")),
        );
    }
    assert!(files.iter().any(|file| file.ends_with("recipes/debian.yaml")), "our own are there");
    let out = works(bench.command().args(["recipe", "validate"]).args(&files));
    assert_eq!(out.lines().filter(|line| line.ends_with(": valid")).count(), files.len());
}

#[test]
fn scripts_have_the_recipes_environment_and_stages_their_times() {
    let (bench, mirror) = (Bench::new(), crate::mirror::Mirror::start());
    let more = "environment:\n  clear_defaults: true\n  variables:\n  - {key: GREETING, value: a b}\n  - {key: OTHER, value: x, variants: [other]}\nactions:\n- trigger: post-files\n  action: |-\n    #!/bin/sh\n    export -p > /exported\n";
    let said = says(&mut bench.build(&mirror.recipe(more), "out", &["--format=dir"]));
    let text = fs::read_to_string(bench.path("out/rootfs/exported")).unwrap();
    assert!(text.contains("GREETING='a b'") && text.contains("PATH="), "{text}");
    assert!(!text.contains("OTHER") && !text.contains("LC_ALL"), "{text}");
    // The table at the end.
    for stage in ["sources", "bootstrap", "packages", "files", "total"] {
        assert!(said.lines().any(|line| line.starts_with(stage) && line.contains(" s ")), "{stage}: {said}");
    }
}
