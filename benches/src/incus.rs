//! An Incus of a comparison's own, as `cargo xtask bench` unpacks it.

use crate::builds::repository;
use crate::compare::Bench;

/// Starts a daemon that trusts the certificate authority in the file `ca`, with directory storage. Returns
/// lines for the shell after which `incus` talks to it.
pub fn start(bench: &Bench, ca: &str) -> anyhow::Result<String> {
    let unpacked = repository("target/incus/unpacked");
    let unpacked = unpacked.display();
    let incus = format!(
        "export INCUS_DIR=$PWD/incus INCUS_CONF=$PWD/incus/client SSL_CERT_FILE={ca}
         export LD_LIBRARY_PATH={unpacked}/usr/lib/{}-linux-gnu PATH={unpacked}/usr/bin:$PATH",
        std::env::consts::ARCH
    );
    bench.run("chmod 711 .; mkdir -m 711 incus")?;
    bench
        .keep(&format!("{incus}\nexec {unpacked}/usr/libexec/incus/incusd --group root > incus.log 2>&1"))?;
    bench.at_end("umount -lq incus/shmounts incus/guestapi || true");
    bench.at_end(format!("{incus}\nincus admin shutdown --timeout 20"));
    bench.at_end(format!("{incus}\nincus delete -f ${{C}}1 2>/dev/null || true"));
    bench.run(&format!(
        "{incus}
         for i in $(seq 60); do incus query /1.0 > /dev/null 2>&1 && break; sleep 1; done
         incus storage create default dir
         incus profile device add default root disk path=/ pool=default"
    ))?;
    Ok(incus)
}
