//! Unpacks an image while it comes. What was unpacked is believed only after the fetch has succeeded.
//!
//! `cargo run -p millstream-client --example unpack -- DIR images:debian/bookworm TARGET`, after the
//! example `list` has added the remote `images` to DIR. TARGET is made, and must not exist.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_client::{Client, ClientConfig, Keep, NoProgress, Sink};
use millstream_image::archive::{ExtractOptions, Ownership, extract};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(image), Some(target)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: unpack DIR IMAGE TARGET".into());
    };
    let (dir, target) = (Path::new(&dir), PathBuf::from(target));
    let client = Client::new(ClientConfig::new(&dir.join("config"), &dir.join("data"), &dir.join("cache")));
    // Beside the target, so that it can be renamed into place.
    let staging = target.with_extension("unfinished");
    fs::create_dir(&staging)?;
    let (into, options) =
        (staging.clone(), ExtractOptions { ownership: Ownership::Caller, ..ExtractOptions::default() });
    let (sender, unpacked) = std::sync::mpsc::channel();
    let sink: Sink = Box::new(move |_, rootfs| drop(sender.send(extract(rootfs, &into, &options))));
    let fetched = client.fetch_into(&image.parse()?, Keep::default(), Some(sink), &NoProgress).await;
    let done = async {
        let stored = fetched?;
        let extracted = if let Ok(result) = unpacked.try_recv() {
            result?
        } else {
            // It was in the store already.
            let options = ExtractOptions { ownership: Ownership::Caller, ..ExtractOptions::default() };
            extract(fs::File::open(&stored.rootfs)?, &staging, &options)?
        };
        fs::rename(&staging, &target)?;
        Ok::<_, Box<dyn std::error::Error>>(extracted)
    }
    .await;
    match done {
        Ok(extracted) => println!("{} entries in {}", extracted.entries, target.display()),
        Err(error) => {
            fs::remove_dir_all(&staging)?;
            return Err(error);
        }
    }
    Ok(())
}
