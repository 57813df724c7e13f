//! Deltas between archives as the packer makes them, as others make them, and as nobody should.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Seek, Write};
use std::path::{Path, PathBuf};

use millstream_image::archive::{Compression, Member, PackOptions, Watch, XzOptions, pack_members};
use millstream_image::delta::{self, Limits, Made, MakeOptions};
use millstream_image::{Error, Result};
use proptest::prelude::*;

fn options() -> MakeOptions {
    MakeOptions { threads: 2, limits: Limits::default(), most: u64::MAX, watch: Watch::default() }
}

/// A directory with two archives in it.
struct Pair {
    dir: tempfile::TempDir,
}

impl Pair {
    fn new(base: &[u8], new: &[u8]) -> Self {
        let pair = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(pair.path("base"), base).unwrap();
        fs::write(pair.path("new"), new).unwrap();
        pair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap()
    }

    fn make(&self, options: &MakeOptions) -> Result<Made> {
        let mut out = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path("delta"))
            .unwrap();
        delta::make(&self.path("base"), &self.path("new"), &mut out, self.dir.path(), options)
    }

    fn unpack(&self, name: &str) -> File {
        delta::unpack(&self.open(name), self.dir.path(), &Limits::default(), &Watch::default()).unwrap()
    }

    /// The archive that the delta makes, uncompressed.
    fn apply(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        delta::apply(&mut self.unpack("base"), self.open("delta"), &mut out, &Limits::default()).map(|_| out)
    }

    fn rebuild(&self) -> Result<Vec<u8>> {
        let mut tar = tempfile::tempfile_in(self.dir.path()).unwrap();
        tar.write_all(&self.apply().unwrap()).unwrap();
        delta::rebuild(&self.open("base"), self.open("delta"), &tar, Vec::new(), 2, &Limits::default())
    }

    fn assert_round_trip(&self, exact: bool) -> Made {
        let made = self.make(&options()).unwrap();
        let mut expected = Vec::new();
        let mut file = self.unpack("new");
        file.rewind().unwrap();
        io::copy(&mut file, &mut expected).unwrap();
        assert!(self.apply().unwrap() == expected, "another archive");
        assert_eq!(made.header.file.is_some(), exact);
        if exact {
            assert!(self.rebuild().unwrap() == fs::read(self.path("new")).unwrap(), "other compressed bytes");
        }
        made
    }
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn archive(files: &Files, compression: Compression, level: u32) -> Vec<u8> {
    let members = files.iter().map(|(path, data)| (path.clone(), Member::file(data.clone()))).collect();
    let xz = XzOptions { level, block_size: 4096, threads: 2, ..XzOptions::default() };
    let options = PackOptions { epoch: 1, compression, xz, ..PackOptions::default() };
    pack_members(&members, Vec::new(), &options).unwrap().0
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[derive(Clone, Debug)]
enum Edit {
    Write(u8, Vec<u8>),
    Splice(u8, u16, u16, Vec<u8>),
    Remove(u8),
    Rename(u8, u8),
}

fn path(number: u8) -> PathBuf {
    format!("usr/lib{}/file-{number}", number % 3).into()
}

fn change(files: &mut Files, edit: Edit) {
    match edit {
        Edit::Write(number, data) => {
            files.insert(path(number), data);
        }
        Edit::Splice(number, at, cut, new) => {
            if let Some(data) = files.get_mut(&path(number)) {
                let at = usize::from(at).min(data.len());
                let end = (at + usize::from(cut)).min(data.len());
                data.splice(at..end, new);
            }
        }
        Edit::Remove(number) => {
            files.remove(&path(number));
        }
        Edit::Rename(number, to) => {
            if let Some(data) = files.remove(&path(number)) {
                files.insert(path(to), data);
            }
        }
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        (any::<u64>(), 0..20_000_usize).prop_map(|(seed, length)| noise(seed, length)),
        (any::<u8>(), 0..20_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..12_u8, bytes()).prop_map(|(n, data)| Edit::Write(n, data)),
        (0..12_u8, 0..20_000_u16, 0..300_u16, prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(n, at, cut, new)| Edit::Splice(n, at, cut, new)),
        (0..12_u8).prop_map(Edit::Remove),
        (0..12_u8, 0..12_u8).prop_map(|(n, to)| Edit::Rename(n, to)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_delta_makes_the_new_archive_and_its_compressed_bytes(
        files in prop::collection::btree_map((0..12_u8).prop_map(path), bytes(), 0..8),
        edits in prop::collection::vec(edit(), 0..6),
        level in 0..3_u32,
    ) {
        let mut changed = files.clone();
        for edit in edits {
            change(&mut changed, edit);
        }
        let pair = Pair::new(&archive(&files, Compression::Xz, level), &archive(&changed, Compression::Xz, level));
        pair.assert_round_trip(true);
    }

    #[test]
    fn any_bytes_have_a_delta(base in bytes(), new in bytes()) {
        Pair::new(&base, &new).assert_round_trip(false);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_delta(base in bytes(), delta in bytes()) {
        let mut out = Vec::new();
        prop_assert!(delta::apply(&mut Cursor::new(base), Cursor::new(delta), &mut out, &Limits::default()).is_err());
    }
}

fn sample() -> (Files, Files) {
    let old: Files = (0..6).map(|n| (path(n), noise(n.into(), 9000))).collect();
    let mut new = old.clone();
    change(&mut new, Edit::Splice(2, 4000, 10, b"inserted here".to_vec()));
    change(&mut new, Edit::Write(7, noise(77, 500)));
    (old, new)
}

#[test]
fn what_did_not_change_costs_nothing() {
    let (old, new) = sample();
    let pair = Pair::new(&archive(&old, Compression::Xz, 6), &archive(&new, Compression::Xz, 6));
    let made = pair.assert_round_trip(true);
    assert_eq!(made.size, fs::metadata(pair.path("delta")).unwrap().len());
    assert!(made.size < 1600, "{} bytes for one new file of 500 and 13 bytes inserted", made.size);
}

#[test]
fn archives_compressed_by_others_are_made_again_uncompressed() {
    let (old, new) = sample();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        Pair::new(&archive(&old, compression, 6), &archive(&new, compression, 6)).assert_round_trip(false);
    }
    // Two streams in one file are good xz, and not what one stream of blocks can be made of.
    let mut two = archive(&new, Compression::Xz, 1);
    two.extend_from_slice(&archive(&Files::new(), Compression::Xz, 1));
    let pair = Pair::new(&archive(&old, Compression::Xz, 1), &two);
    pair.assert_round_trip(false);
    let error = pair.rebuild().unwrap_err().to_string();
    assert!(error.contains("does not say how its result was compressed"), "{error}");
}

#[test]
fn another_base_is_noticed() {
    let (old, new) = sample();
    let pair = Pair::new(&archive(&old, Compression::Xz, 1), &archive(&new, Compression::Xz, 1));
    pair.make(&options()).unwrap();
    let mut other = old;
    change(&mut other, Edit::Splice(4, 10, 1, vec![0]));
    fs::write(pair.path("base"), archive(&other, Compression::Xz, 1)).unwrap();
    assert!(matches!(pair.apply(), Err(Error::Mismatch { .. })));
}

#[test]
fn another_compressed_base_is_noticed() {
    let (old, new) = sample();
    let pair = Pair::new(&archive(&old, Compression::Xz, 1), &archive(&new, Compression::Xz, 1));
    pair.make(&options()).unwrap();
    // The same archive, in other blocks.
    fs::write(pair.path("base"), archive(&old, Compression::Xz, 2)).unwrap();
    assert!(matches!(pair.rebuild(), Err(Error::Mismatch { .. } | Error::Archive { .. })));
}

/// Every byte flipped in turn: an error, never another archive and never a panic.
#[test]
fn damaged_deltas_are_refused() {
    let (old, new) = sample();
    let pair = Pair::new(&archive(&old, Compression::None, 1), &archive(&new, Compression::None, 1));
    pair.make(&options()).unwrap();
    let good = fs::read(pair.path("delta")).unwrap();
    let base = fs::read(pair.path("base")).unwrap();
    let apply = |delta: &[u8]| {
        let mut out = Vec::new();
        delta::apply(&mut Cursor::new(&base), Cursor::new(delta), &mut out, &Limits::default()).map(|_| out)
    };
    assert!(apply(&good).is_ok());
    let mut accepted = Vec::new();
    for at in 0..good.len() {
        for bit in [0x01, 0x80] {
            let mut damaged = good.clone();
            damaged[at] ^= bit;
            if apply(&damaged).is_ok() {
                accepted.push(at);
            }
        }
        assert!(apply(&good[..at]).is_err() || at >= good.len() - 32, "cut to {at} bytes");
    }
    // The last section says how the result was compressed, which is not read here.
    accepted.retain(|at| *at < good.len() - 32);
    assert_eq!(accepted, [0_usize; 0], "damage at these bytes was not noticed");
}

#[test]
fn limits_are_limits() {
    let (old, new) = sample();
    let pair = Pair::new(&archive(&old, Compression::None, 1), &archive(&new, Compression::None, 1));
    let made = pair.make(&options()).unwrap();
    for limits in [
        Limits { archive: made.header.result.size - 1, ..Limits::default() },
        Limits { delta: 100, ..Limits::default() },
        Limits { patch: 100, ..Limits::default() },
        Limits { control: 4, ..Limits::default() },
    ] {
        let applied = delta::apply(&mut pair.unpack("base"), pair.open("delta"), io::sink(), &limits);
        assert!(matches!(applied, Err(Error::Archive { .. })), "{limits:?}");
    }
}

fn left(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !["base", "new", "delta"].contains(&name.as_str())).collect()
}

#[test]
fn a_delta_that_is_not_worth_it_ends_early_and_leaves_nothing() {
    let (old, new) = sample();
    let pair = Pair::new(&archive(&old, Compression::Xz, 1), &archive(&new, Compression::Xz, 1));
    let error = pair.make(&MakeOptions { most: 300, ..options() }).unwrap_err().to_string();
    assert!(error.contains("would be larger than 300 bytes"), "{error}");
    let watch = Watch::new(|| Err(io::Error::other("time is up")));
    let error = pair.make(&MakeOptions { watch, ..options() }).unwrap_err().to_string();
    assert!(error.contains("time is up"), "{error}");
    assert_eq!(left(pair.dir.path()), [""; 0]);
}
