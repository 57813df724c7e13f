//! Void Linux's list of checksums, signed by the real minisign.

use std::path::PathBuf;
use std::process::Command;

use super::distributions::{key, publish, recipe};
use super::server::Server;
use super::table::CASES;
use crate::bench::{Bench, fails, says, works};

/// A key pair of minisign in a directory of the test's.
struct Signer {
    secret: PathBuf,
    public: String,
}

impl Signer {
    fn new(bench: &Bench, name: &str) -> Self {
        let (secret, public) = (bench.path(&format!("{name}.key")), bench.path(&format!("{name}.pub")));
        works(Command::new("minisign").arg("-GW").arg("-p").arg(&public).arg("-s").arg(&secret));
        let public = std::fs::read_to_string(public).unwrap();
        Self { secret, public: public.lines().last().unwrap().to_owned() }
    }

    /// A signature; `older` is over the text itself, as signify made it.
    fn sign(&self, bench: &Bench, text: &[u8], older: bool) -> Vec<u8> {
        let (file, signature) = (bench.path("signed"), bench.path("signature"));
        std::fs::write(&file, text).unwrap();
        let mut minisign = Command::new("minisign");
        minisign.arg(if older { "-SWl" } else { "-SW" }).arg("-s").arg(&self.secret);
        works(minisign.arg("-x").arg(&signature).arg("-m").arg(&file));
        std::fs::read(signature).unwrap()
    }
}

#[test]
fn voids_list_is_checked_with_the_recipes_key_of_minisign() {
    let (bench, server, openpgp) = (Bench::new(), Server::start(), key());
    let case = CASES.iter().find(|case| case.downloader == "voidlinux-http").unwrap();
    publish(case, &server, &openpgp);
    let list = server.get("sha256sum.txt");
    let (signer, other) = (Signer::new(&bench, "one"), Signer::new(&bench, "two"));
    let with_keys = |keys: &[&str]| {
        let text = recipe(case, &server, &openpgp);
        let (before, _) = text.split_once("  keys:").unwrap();
        let keys: Vec<_> = keys.iter().map(|key| format!("  - {key}\n")).collect();
        format!("{before}  keys:\n{}", keys.concat())
    };
    let recipe = with_keys(&[&signer.public]);
    for (out, older) in [("newer", false), ("older", true)] {
        server.put("sha256sum.sig", signer.sign(&bench, &list, older));
        let text = says(&mut bench.build(&recipe, out, &["--format=dir"]));
        assert!(!text.contains("warning:") && !text.contains("note:"), "{text}");
        let which = std::fs::read_to_string(bench.path(out).join("rootfs/etc/which")).unwrap();
        assert_eq!(which, case.newest);
    }
    // One of several keys is enough, and that of others is not.
    server.put("sha256sum.sig", other.sign(&bench, &list, false));
    works(&mut bench.build(&with_keys(&[&signer.public, &other.public]), "both", &["--format=dir"]));
    let text = fails(&mut bench.build(&recipe, "others", &[]));
    assert!(text.contains("sha256sum.sig: refused: none of the keys in source.keys made it"), "{text}");
    bench.assert_clean("others");
    let good = signer.sign(&bench, &list, false);
    server.put("sha256sum.sig", good.clone());
    server.put("sha256sum.txt", [&list[..], b"\n"].concat());
    let text = fails(&mut bench.build(&recipe, "altered", &[]));
    assert!(text.contains("sha256sum.sig: refused"), "{text}");
    server.put("sha256sum.txt", list);
    server.remove("sha256sum.sig");
    let text = fails(&mut bench.build(&recipe, "missing", &[]));
    assert!(text.contains("source.keys asks for a signature"), "{text}");
    // What only OpenPGP's keys would show is not shown by minisign's.
    publish(case, &server, &openpgp);
    fails(&mut bench.build(&recipe, "openpgp", &[]));
    bench.assert_clean("openpgp");
}
