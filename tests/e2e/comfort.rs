//! What spares typing and reading: completion, man pages, an editor, columns.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::import::Forms;
use crate::support::{Home, PROGRAM, succeed};

/// What a shell offers after these words, the last of them half typed.
fn offered(home: &Home, shell: &str, words: &[&str]) -> String {
    let mut command = home.command(&["--", "millstream"]);
    command.args(words).env("MILLSTREAM_COMPLETE", shell);
    command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).env("_CLAP_IFS", "\n");
    succeed(&mut command)
}

#[test]
fn shells_complete_commands_and_names_that_are_there() {
    let forms = Forms::new("--format=unified");
    let home = &forms.home;
    let unified = forms.text("image/unified.tar.gz");
    let fingerprint = home.run(&["image", "import", &unified, "--alias", "uncommon", "--alias", "other"]);
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.run(&["completion", shell]).contains("MILLSTREAM_COMPLETE"), "{shell}");
        let names = offered(home, shell, &["image", "info", "un"]);
        assert!(names.contains("uncommon") && !names.contains("other"), "{shell}: {names}");
        let digits = offered(home, shell, &["launch", &fingerprint[..4]]);
        assert!(digits.contains(&fingerprint[..12]), "{shell}: {digits}");
        assert!(offered(home, shell, &["image", "alias", "delete", "o"]).contains("other"), "{shell}");
        assert!(offered(home, shell, &["image", "impo"]).contains("import"), "{shell}");
    }
    // The shell itself.
    let script = "source <(millstream completion bash)
        COMP_WORDS=(millstream image delete unc); COMP_CWORD=3; COMP_TYPE=9
        $(complete -p millstream | sed 's/.*-F \\([^ ]*\\).*/\\1/') millstream unc delete
        echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).env("MILLSTREAM_DIR", home.path());
    bash.env("PATH", format!("{}:/usr/bin:/bin", Path::new(PROGRAM).parent().unwrap().display()));
    assert_eq!(succeed(&mut bash).trim(), "uncommon");
}

#[test]
fn every_command_has_a_man_page() {
    let home = Home::new();
    let dir = home.path().join("man");
    home.run(&["man", dir.to_str().unwrap()]);
    let page = std::fs::read_to_string(dir.join("millstream-image-import.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("LXD\\-Image\\-URL"), "{page}");
    assert!(dir.join("millstream.1").is_file() && dir.join("millstream-launch.1").is_file());
}

#[test]
fn images_are_edited_and_listed_by_columns() {
    let forms = Forms::new("--format=unified");
    let home = &forms.home;
    home.run(&["image", "import", &forms.text("image/unified.tar.gz"), "--alias", "one"]);
    let edit = |text: &str| {
        let mut command = home.command(&["image", "edit", "one"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let good =
        "auto_update: false\npublic: true\nproperties: {architecture: amd64, os: Mine, description: Hi}\n";
    let good = good.replace("amd64", millstream_image::Architecture::host().debian());
    assert_eq!(edit(&good), (Some(0), String::new()));
    assert_eq!(
        home.run(&["image", "list", "-c", "lopdt"])
            .lines()
            .last()
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["one", "Mine", "yes", "Hi", "container"]
    );
    for bad in [
        "nonsense",
        "properties: {architecture: vax}",
        &good.replace("Mine", "[a]"),
        &good.replace("false", "true"),
        &format!("{good}more: 1\n"),
    ] {
        let (code, error) = edit(bad);
        assert!(code == Some(1) && error.contains("nothing has changed"), "{bad}: {error}");
    }
    assert!(home.fail(&["image", "list", "-c", "lx"]).contains("is no column"));
    // At a terminal an editor opens, again if need be; what it wrote is not lost.
    let terminal = |editor: &str, answers: &str| {
        let line = format!("{PROGRAM} image edit one");
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("MILLSTREAM_DIR", home.path());
        script.env("TMPDIR", home.path()).env("VISUAL", editor).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    // The first time it breaks the text, the second time it mends it.
    let editor = "sed -i -e s/^pubic/public/ -e t -e s/^public/pubic/ -e s/Mine/Ours/";
    let shown = terminal(editor, "\n");
    assert!(shown.contains("edit it again"), "{shown}");
    assert!(home.run(&["image", "info", "one"]).contains("os: Ours"));
    let shown = terminal("sed -i s/Ours/[/", "q\n");
    let kept = shown.split("your text is in ").nth(1).unwrap().split([':', '\r', '\n']).next().unwrap();
    assert!(std::fs::read_to_string(kept).unwrap().contains("os: ["), "{shown}");
}
