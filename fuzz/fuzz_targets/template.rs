//! Templates of an image from a stranger: text within its bound, or an error; never a file of the host's,
//! never its environment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_runtime::container::{Template, TemplateVariables};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let template = Template {
        path: "/etc/hostname".into(),
        text: text.into(),
        create_only: false,
        properties: [("colour".into(), "red".into())].into(),
        trigger: "create".into(),
    };
    let variables = TemplateVariables {
        name: "c1".into(),
        architecture: "x86_64".into(),
        config: [("user.key".into(), "value".into())].into(),
    };
    if let Ok(rendered) = template.render(&variables) {
        assert!(rendered.len() <= 1 << 20);
        let path = std::env::var("PATH").unwrap_or_default();
        assert!(path.is_empty() || text.contains(&path) || !rendered.contains(&path));
    }
});
