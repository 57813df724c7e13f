//! Decompresses an archive with one thread and with more, in turns, and prints seconds and ratios:
//! `cargo run -p millstream-image --example decode -- FILE [ROUNDS]`. On a busy machine the least of
//! several rounds says most.

use std::fs::File;
use std::io;
use std::time::Instant;

use millstream_image::archive::{Limits, decoder};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or_else(|| io::Error::other("which file?"))?;
    let rounds = args.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    let several = Limits::default().threads.max(2);
    let mut best = [f64::INFINITY; 2];
    for _ in 0..rounds {
        for (best, threads) in best.iter_mut().zip([1, several]) {
            let limits = Limits { threads, ..Limits::default() };
            let start = Instant::now();
            let mut decoder = decoder(File::open(&file)?, &limits).map_err(io::Error::other)?;
            let bytes = io::copy(&mut decoder, &mut io::sink())?;
            let seconds = start.elapsed().as_secs_f64();
            println!("{threads} threads: {bytes} bytes in {seconds:.2} s");
            *best = best.min(seconds);
        }
    }
    println!("best: {:.2} s and {:.2} s, {:.2} times as fast", best[0], best[1], best[0] / best[1]);
    Ok(())
}
