//! Files an image wants rendered inside its containers, as `metadata.yaml` lists them.
//!
//! Templates come from strangers. They are rendered by the container's own first process, as the
//! container's root and in its control groups: one that loops or eats memory harms nobody else. The
//! engine has no way to read files, the environment or other templates.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use millstream_image::metadata::Metadata;
use serde::{Deserialize, Serialize};
use tera::{Context, Tera, Value};

use crate::{Error, Result};

/// The largest rendered file, in bytes.
const LARGEST: usize = 1 << 20;

/// A template ready to be rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Absolute path of the file inside the container.
    pub path: String,
    /// The template.
    pub text: String,
    /// Leave a file that is there alone.
    pub create_only: bool,
    /// The variable `properties`.
    pub properties: BTreeMap<String, String>,
    /// The variable `trigger`: `create`, `copy`, `rename` or `start`.
    pub trigger: String,
}

/// What templates may use besides their own properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variables {
    /// The container's name.
    pub name: String,
    /// Kernel name of its architecture.
    pub architecture: String,
    /// Its configuration.
    pub config: BTreeMap<String, String>,
}

/// Picks what an image wants rendered on these occasions.
pub fn jobs(metadata: &Metadata, image: &Path, triggers: &[&str]) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for (path, template) in &metadata.templates {
        let Some(trigger) = triggers.iter().find(|trigger| template.when.iter().any(|w| w == *trigger))
        else {
            continue;
        };
        let file = image.join("templates").join(&template.template);
        jobs.push(Job {
            path: path.clone(),
            text: fs::read_to_string(&file).map_err(Error::io(&file))?,
            create_only: template.create_only,
            properties: template.properties.clone(),
            trigger: (*trigger).to_owned(),
        });
    }
    Ok(jobs)
}

impl Job {
    /// Renders and writes the file below `/`, the container's root. Directories on the way are
    /// made; a link at the end of the path is replaced, not followed.
    pub fn run(&self, variables: &Variables) -> Result<(), String> {
        let failed = |error: String| format!("template for {}: {error}", self.path);
        let path = Path::new(&self.path);
        if self.create_only && fs::symlink_metadata(path).is_ok() {
            return Ok(());
        }
        let text = self.render(variables).map_err(failed)?;
        write(path, text.as_bytes()).map_err(|e| failed(e.to_string()))
    }

    /// The file's contents.
    pub fn render(&self, variables: &Variables) -> Result<String, String> {
        let mut engine = Tera::default();
        for name in ["get_env", "get_random", "now"] {
            engine.register_function(name, move |_: &HashMap<String, Value>| {
                Err(tera::Error::msg(format!("{name} is not available to image templates")))
            });
        }
        let config = variables.config.clone();
        engine.register_function("config_get", move |arguments: &HashMap<String, Value>| {
            let key = arguments.get("key").and_then(Value::as_str).unwrap_or_default();
            let default = arguments.get("default").cloned().unwrap_or_else(|| "".into());
            Ok(config.get(key).map_or(default, |value| value.as_str().into()))
        });
        engine.add_raw_template("template", &name_arguments(&self.text)).map_err(|e| chain(&e))?;
        let mut out = Bounded(Vec::new());
        engine.render_to("template", &self.context(variables), &mut out).map_err(|e| chain(&e))?;
        String::from_utf8(out.0).map_err(|e| e.to_string())
    }

    fn context(&self, variables: &Variables) -> Context {
        let instance = serde_json::json!({
            "name": variables.name,
            "architecture": variables.architecture,
            "type": "container",
            "privileged": "false",
            "ephemeral": "false",
        });
        let mut context = Context::new();
        context.insert("trigger", &self.trigger);
        context.insert("path", &self.path);
        context.insert("container", &instance);
        context.insert("instance", &instance);
        context.insert("config", &variables.config);
        context.insert("devices", &serde_json::json!({}));
        context.insert("properties", &self.properties);
        context
    }
}

/// LXD's engine takes `config_get("key", default)`, ours wants the arguments named. The default may be
/// any expression.
fn name_arguments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("config_get(") {
        let (before, call) = rest.split_at(at + "config_get(".len());
        out += before;
        rest = call;
        let Some((key, after)) = literal(call) else { continue };
        out.extend(["key=", key]);
        rest = after;
        if let Some(default) = after.trim_start().strip_prefix(',')
            && !default.trim_start().starts_with("default=")
        {
            out += ", default=";
            rest = default.trim_start();
        }
    }
    out + rest
}

/// A string in quotes at the start, and what follows it.
fn literal(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let end = text[1..].find(quote)? + 2;
    Some(text.split_at(end))
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.0.len() + data.len() > LARGEST {
            return Err(io::Error::other(format!("the file would be larger than {LARGEST} bytes")));
        }
        self.0.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn chain(error: &tera::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let temp = directory.join(".millstream-template");
    let _ = fs::remove_file(&temp);
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(&temp)?;
    file.write_all(text)?;
    fs::rename(&temp, path).inspect_err(|_| {
        let _ = fs::remove_file(&temp);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(text: &str) -> Job {
        Job {
            path: "/etc/x".into(),
            text: text.into(),
            create_only: false,
            properties: BTreeMap::from([("colour".into(), "red".into())]),
            trigger: "create".into(),
        }
    }

    fn render(text: &str) -> Result<String, String> {
        let config = BTreeMap::from([("user.mail".into(), "a@b".into())]);
        job(text).render(&Variables { name: "c1".into(), architecture: "x86_64".into(), config })
    }

    #[test]
    fn knows_lxds_variables() {
        let text =
            "{{ container.name }} {{ instance.name }} {{ trigger }} {{ path }} {{ properties.colour }}";
        assert_eq!(render(text).unwrap(), "c1 c1 create /etc/x red");
        let text = r#"{{ config_get("user.mail", "none") }} {{ config_get('user.no', 'none') }} {{ config_get("x") }}|"#;
        assert_eq!(render(text).unwrap(), "a@b none |");
        assert_eq!(render(r#"{{ config_get(key="user.mail") }}"#).unwrap(), "a@b");
        assert_eq!(render(r#"{{ config_get(key="user.no", default="x") }}"#).unwrap(), "x");
        assert_eq!(render(r#"{{ config_get("user.no", properties.colour) }}"#).unwrap(), "red");
        let text = r#"{% if config_get("user.mail","") == "" %}none{% else %}{{ config_get("user.mail","") }}{% endif %}"#;
        assert_eq!(render(text).unwrap(), "a@b");
        assert_eq!(render("<&>").unwrap(), "<&>", "not escaped for HTML");
    }

    #[test]
    fn reaches_nothing_of_the_host() {
        for bad in [
            "{{ get_env(name=\"PATH\") }}",
            "{% include \"/etc/shadow\" %}",
            "{% import \"/etc/shadow\" as x %}",
            "{% extends \"/etc/shadow\" %}",
            "{{ now() }}",
            "{{ missing }}",
            "{% if",
        ] {
            assert!(render(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn output_is_bounded() {
        let text = "{% for a in range(end=2000) %}{% for b in range(end=2000) %}x{% endfor %}{% endfor %}";
        assert!(render(text).unwrap_err().contains("larger than"));
    }

    #[test]
    fn writes_over_a_link_and_makes_directories() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "old").unwrap();
        let path = dir.path().join("a/b/file");
        write(&path, b"one").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "old");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert!(write(dir.path(), b"x").is_err(), "a directory stands there");
    }
}
