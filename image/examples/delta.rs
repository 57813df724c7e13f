//! Makes a delta between two archives, applies it, and prints figures: `delta BASE NEW DELTA`.

use std::fs::File;
use std::io::sink;
use std::path::Path;
use std::time::Instant;

use millstream_image::archive::Watch;
use millstream_image::delta::{Limits, MakeOptions, apply, make, rebuild, unpack};

fn main() -> millstream_image::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [base, new, delta] = &arguments[..] else {
        eprintln!("usage: delta BASE NEW DELTA");
        std::process::exit(2);
    };
    let open = |path: &str| File::open(path).map_err(millstream_image::Error::io(path));
    let create = |path: &str| {
        let options = File::options().read(true).write(true).create(true).truncate(true).open(path);
        options.map_err(millstream_image::Error::io(path))
    };
    let work = Path::new(delta).parent().unwrap_or(Path::new("."));
    let limits = Limits::default();
    let options = MakeOptions { threads: 2, limits, most: u64::MAX, watch: Watch::default() };
    let start = Instant::now();
    let made = make(Path::new(base), Path::new(new), &mut create(delta)?, work, &options)?;
    println!("made in {:.2} s: {} bytes, {:?}", start.elapsed().as_secs_f64(), made.size, made.header);
    let start = Instant::now();
    let unpacked = unpack(&open(base)?, work, &limits, &Watch::default())?;
    println!("base unpacked in {:.2} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let tar = create(&format!("{delta}.tar"))?;
    apply(&mut &unpacked, open(delta)?, &tar, &limits)?;
    println!("applied in {:.2} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    rebuild(&open(base)?, open(delta)?, &tar, sink(), 2, &limits)?;
    println!("compressed again in {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
