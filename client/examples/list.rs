//! Adds a server and lists what it offers.
//!
//! `cargo run -p millstream-client --example list -- DIR URL KEY`: a directory for settings and store, a
//! stream's URL (or absolute path), and the file of the public key that its documents are signed with.

use std::path::Path;

use millstream_client::{Client, ClientConfig, Remote, Trust};
use millstream_image::openpgp::Keyring;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(url), Some(key)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: list DIR URL KEY".into());
    };
    let dir = Path::new(&dir);
    let client = Client::new(ClientConfig::new(&dir.join("config"), &dir.join("data"), &dir.join("cache")));
    let name = "images".parse()?;
    if !client.remotes()?.remotes.contains_key(&name) {
        let keyring = Keyring::from_bytes(&std::fs::read(key)?)?;
        client.add_remote(&name, Remote::new(&url, Trust::pin(&keyring)?, None)?).await?;
    }
    for image in client.catalogue(&name).await?.newest() {
        println!("{} {} {} {} bytes", image.fingerprint.short(), image.product, image.serial, image.size());
    }
    Ok(())
}
