//! Recipes from strangers: whatever is in them, they are refused or read quickly and in little
//! memory, and never with a panic.

use std::time::{Duration, Instant};

use millstream_builder::recipe::{Fallback, Kind, Recipe};

const HEAD: &str = "image:\n  distribution: x\n  release: y\nsource:\n  downloader: debootstrap\n";

/// Far above what is needed on a busy machine, far below what these recipes ask for.
const LONGEST: Duration = Duration::from_secs(30);
/// Kilobytes the process may have used at its peak, with all of these tests in it.
const MOST_MEMORY: u64 = 1 << 20;

/// Reads a recipe and picks an image; what is wrong with it, if anything.
fn read(text: &str) -> Result<(), String> {
    let started = Instant::now();
    let fallback = Fallback { release: "", serial: "20260101_0000" };
    let result =
        Recipe::parse(text, "r.yaml").and_then(|recipe| recipe.resolve(&[], Kind::Container, &fallback));
    assert!(started.elapsed() < LONGEST, "took {:?}", started.elapsed());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MOST_MEMORY, "{peak} kB used");
    result.map(drop).map_err(|error| error.to_string())
}

fn refused(text: &str, reason: &str) {
    let message = read(text).unwrap_err();
    assert!(message.contains(reason), "{reason:?} is not in: {}", &message[..message.len().min(500)]);
}

/// A recipe with one templated script.
fn script(template: &str) -> String {
    let template = template.replace('\n', "\n    ");
    format!("{HEAD}actions:\n- trigger: post-files\n  pongo: true\n  action: |-\n    {template}\n")
}

/// The same, with so many components.
fn script_with(template: &str, components: usize) -> String {
    let source = format!("{HEAD}  components: [{}]\n", "x, ".repeat(components));
    script(template).replace(HEAD, &source)
}

#[test]
fn loops_that_never_end() {
    let each = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let each = each.map(|name| format!("{{% for {name} in source.components %}}")).concat();
    let nested = each + &"{% endfor %}".repeat(8);
    refused(&script_with(&nested, 100), "loops run more than 100000 times");
}

#[test]
fn text_that_grows_without_end() {
    let each = "{% for a in source.components %}".to_owned() + &"x".repeat(1000);
    let nested = format!("{each}{each}{{% endfor %}}{{% endfor %}}");
    refused(&script_with(&nested, 1000), "grows to more than");
    // Doubled again and again.
    let doubled = "{% set a = \"0123456789\" %}".to_owned() + &"{% set a = a|add:a %}".repeat(15);
    assert_eq!(read(&script(&doubled)), Ok(()));
    let doubled = format!("{doubled}{{{{ a{} }}}}", "|add:a".repeat(60));
    refused(&script(&doubled), "grows to more than");
    refused(&script(&"{% set a = files %}".repeat(17)), "variables set");
    refused(&script("{{ \"x\" * 1000000000 }}"), "template");
    refused(&script("{{ image.release|center:1000000000 }}"), "unknown filter");
    refused(&script("{% for x in range(end=1000000000) %}{% endfor %}"), "no functions");
}

#[test]
fn templates_that_make_templates() {
    let escaped = "{% verbatim %}{% endraw %}{{ range(end=1000000000) }}{% raw %}{% endverbatim %}";
    refused(&script(escaped), "endraw");
    let own = format!("{HEAD}  url: \"{{{{ source.url }}}}{{{{ source.url }}}}\"\n");
    refused(&own, "still a template after");
}

#[test]
fn templates_with_too_much_in_them() {
    refused(&script(&"{{ image.release }}".repeat(5000)), "more than 4096 tags");
    let around = |count: usize| format!("{{{{ {}image.release{} }}}}", "(".repeat(count), ")".repeat(count));
    refused(&script(&around(50_000)), "more than 256 words");
    refused(&script(&around(100)), "levels deep");
    let nested = "{% if true %}".repeat(1000) + &"{% endif %}".repeat(1000);
    refused(&script(&nested), "levels deep");
    let negated = format!("{{% if {} %}}{{% endif %}}", "not ".repeat(10_000));
    refused(&script(&negated), "more than 256 words");
    // The largest comparisons there may be.
    let compare = "{% if source == source %}{% endif %}".repeat(1000);
    assert_eq!(read(&script_with(&compare, 40_000)), Ok(()));
}

#[test]
fn yaml_that_unfolds() {
    let lines = "abcdefgh".chars().zip("bcdefghi".chars());
    let lines = lines.map(|(from, to)| format!("{to}: &{to} [{}]\n", format!("*{from}, ").repeat(9)));
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned() + &lines.collect::<Vec<_>>().concat();
    refused(&bomb, "with its aliases replaced");
    // One long text, many times.
    let long = format!("image:\n  name: &a {}\nfiles: [{}]\n", "x".repeat(400_000), "*a, ".repeat(100_000));
    refused(&long, "with its aliases replaced");
    refused("a: &a [*a]\n", "stands for a value that holds it");
    refused("a: &a\n  <<: *a\n", "stands for a value that holds it");
    let merges = format!("image: &a\n  distribution: x\nsource:\n  <<: [{}]\n", "*a, ".repeat(20_000));
    assert!(read(&merges).is_err());
}

#[test]
fn yaml_without_bottom() {
    for open in ["[", "{a: ", "- ", "? "] {
        assert!(read(&open.repeat(100_000)).is_err());
    }
    let blocks: Vec<_> = (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    refused(&blocks.concat(), "levels deep");
    refused(&format!("{HEAD}files: {}{}\n", "[".repeat(100), "]".repeat(100)), "levels deep");
}

#[test]
fn too_large() {
    refused(&format!("{HEAD}# {}\n", "x".repeat(1 << 20)), "bytes are more than");
    let many = format!("{HEAD}files:\n{}", "- {generator: x}\n".repeat(20_000));
    assert!(read(&many).is_err());
}
