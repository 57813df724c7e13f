//! Fetches an image into the store and tells how far it has come.
//!
//! `cargo run -p millstream-client --example fetch -- DIR images:debian/bookworm`, after the example
//! `list` has added the remote `images` to DIR.

use std::path::Path;

use millstream_client::progress::{Event, events};
use millstream_client::{Client, ClientConfig, Keep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(image)) = (args.next(), args.next()) else {
        return Err("usage: fetch DIR IMAGE".into());
    };
    let dir = Path::new(&dir);
    let client = Client::new(ClientConfig::new(&dir.join("config"), &dir.join("data"), &dir.join("cache")));
    let (progress, mut stream) = events();
    let image = image.parse()?;
    let fetch = async {
        // Dropped at the end, so that the stream ends as well.
        let progress = progress;
        client.fetch(&image, Keep::default(), &progress).await
    };
    let show = async {
        let mut came = 0;
        while let Some(event) = stream.next().await {
            match event {
                Event::Begin { name, total } => eprintln!("{name}: {} bytes", total.unwrap_or_default()),
                Event::Advance { bytes, .. } => came += bytes,
                Event::End { name } => eprintln!("{name}: done, {came} bytes in all"),
            }
        }
    };
    let (fetched, ()) = tokio::join!(fetch, show);
    println!("{}", fetched?.fingerprint);
    Ok(())
}
