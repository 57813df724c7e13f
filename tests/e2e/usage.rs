//! What a user meets who types something wrong, and help that is enough to go on.

use crate::support::Home;

#[test]
fn wrong_usage_exits_2_and_every_command_has_help() {
    let home = Home::new();
    for args in [&["nonsense"][..], &["build"], &["image", "copy"], &["launch"]] {
        let output = home.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Usage"), "{args:?}");
    }
    let mut pending = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(path) = pending.pop() {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let help = home.run(&args);
        seen += 1;
        for line in help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty()) {
            // A command's line begins with its name after two spaces; wrapped help is indented more.
            let Some(name) = line.strip_prefix("  ").filter(|l| !l.starts_with(' ')) else { continue };
            let mut words = name.splitn(2, ' ');
            let (name, about) = (words.next().unwrap(), words.next().unwrap_or_default().trim());
            assert!(!about.is_empty(), "{path:?} {name} says nothing about itself");
            if name != "help" {
                pending.push([&path[..], &[name.to_owned()]].concat());
            }
        }
    }
    assert!(seen > 20, "only {seen} commands");
}

#[test]
fn bad_input_gets_one_clear_line() {
    let home = Home::new();
    let here = home.path().join("file");
    std::fs::write(&here, "x").unwrap();
    let file = here.to_str().unwrap();
    for (args, expected) in [
        (&["stream", "list", "/nonexistent"][..], "/nonexistent"),
        (&["stream", "init", file], file),
        (&["serve", "--root", "/nonexistent"], "/nonexistent"),
        (&["image", "info", "nothing/there"], "nothing/there"),
        (&["image", "list", "nowhere:"], "nowhere"),
        (&["remote", "add", "x", "ftp://127.0.0.1/"], "ftp"),
        (&["exec", "nobody", "--", "true"], "nobody"),
        (&["build", "/nonexistent.yaml"], "/nonexistent.yaml"),
        (&["pack", "/nonexistent", "--out", "x"], "/nonexistent"),
        (&["manifest", "show", "/nonexistent"], "/nonexistent"),
        (&["manifest", "diff", file, file], file),
    ] {
        let error = home.fail(args);
        assert!(error.contains(expected), "{args:?}: {error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{args:?}: {error}");
    }
}
