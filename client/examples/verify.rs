//! Hashes every image of a store again.
//!
//! `cargo run -p millstream-client --example verify -- STORE`, which for the example `fetch` is
//! DIR/data/images.

use std::path::Path;

use millstream_client::Store;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(dir) = std::env::args().nth(1) else { return Err("usage: verify STORE".into()) };
    let store = Store::open(Path::new(&dir))?;
    for image in store.list()? {
        store.verify(&image)?;
        println!("{} good", image.fingerprint);
    }
    Ok(())
}
