//! From two archives to the delta between them.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use super::entries::{Entries, Entry};
use super::format::{HEADER, Header, Identity, SectionWriter, Step, StepWriter, most_pieces};
use super::{MakeOptions, matching, patch};
use crate::archive::Watch;
use crate::{Error, Result};

/// A step before the bytes of a changed range were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Copy { base: u64, length: u64 },
    Insert { from: u64, length: u64 },
    Change { base: u64, base_length: u64, from: u64, length: u64 },
}

/// A step with the bytes that belong to it.
struct Done {
    step: Step,
    differences: Vec<u8>,
    literals: Vec<u8>,
}

/// A delta without its layout section, ready to be written.
pub(super) struct Body {
    pub(super) base: Identity,
    pub(super) result: Identity,
    control: SectionWriter,
    differences: SectionWriter,
    literals: SectionWriter,
}

/// Compares two uncompressed archives.
pub(super) fn body(base: &File, new: &File, options: &MakeOptions) -> Result<Body> {
    let read = |file: &File| -> io::Result<Entries> {
        let file = file.try_clone()?;
        Entries::read(BufReader::with_capacity(1 << 20, At { file, at: 0 }), || options.watch.check())
    };
    let (old, new_entries) = std::thread::scope(|scope| {
        let other = scope.spawn(|| read(new));
        let old = read(base);
        (old, other.join().unwrap_or_else(|_| Err(io::Error::other("a thread failed"))))
    });
    let (old, new_entries) =
        (old.map_err(Error::io("base"))?, new_entries.map_err(Error::io("new archive"))?);
    let plans = plan(&old, &new_entries, options.limits.patch);
    let mut body = Body {
        base: Identity { sha256: old.digest, size: old.size },
        result: Identity { sha256: new_entries.digest, size: new_entries.size },
        control: SectionWriter::new().map_err(Error::io("delta"))?,
        differences: SectionWriter::of_differences().map_err(Error::io("delta"))?,
        literals: SectionWriter::new().map_err(Error::io("delta"))?,
    };
    drop((old, new_entries));
    body.fill(&plans, base, new, options)?;
    Ok(body)
}

impl Body {
    /// Looks at the changed ranges on several threads and takes their results in order.
    fn fill(&mut self, plans: &[Plan], base: &File, new: &File, options: &MakeOptions) -> Result<()> {
        let next = AtomicUsize::new(0);
        let stopped = std::sync::atomic::AtomicBool::new(false);
        let workers = options.threads.max(1);
        std::thread::scope(|scope| {
            let mut results = Vec::new();
            for _ in 0..workers {
                // Work is dealt out in turns, so that results come in order and few of them wait.
                let (sender, receiver) = sync_channel(2);
                results.push(receiver);
                let first = next.fetch_add(1, Ordering::Relaxed);
                let stopped = &stopped;
                scope.spawn(move || {
                    for plan in plans.iter().skip(first).step_by(workers) {
                        let done = carry_out(*plan, base, new, &options.watch);
                        if stopped.load(Ordering::Relaxed) || sender.send(done).is_err() {
                            return;
                        }
                    }
                });
            }
            let mut steps = StepWriter::default();
            let outcome = (0..plans.len()).try_for_each(|number| {
                let done = results[number % workers].recv();
                let done = done.map_err(|_| io::Error::other("a thread that compares files failed"))??;
                steps.write(&done.step);
                self.control.write_all(&steps.take())?;
                self.differences.write_all(&done.differences)?;
                self.literals.write_all(&done.literals)?;
                options.watch.check()?;
                if self.packed() > options.most {
                    return Err(too_large(options.most));
                }
                Ok(())
            });
            stopped.store(true, Ordering::Relaxed);
            drop(results);
            outcome
        })
        .map_err(Error::io("delta"))
    }

    fn packed(&self) -> u64 {
        self.control.packed() + self.differences.packed() + self.literals.packed()
    }

    /// Writes the whole delta and returns its header and size.
    pub(super) fn write(
        self,
        out: &mut impl Write,
        file: Option<Identity>,
        layout: &[u8],
        most: u64,
    ) -> io::Result<(Header, u64)> {
        let mut last = SectionWriter::new()?;
        last.write_all(layout)?;
        let mut header = Header { base: self.base, result: self.result, file, sections: Default::default() };
        let mut sections = Vec::new();
        for (number, section) in [self.control, self.differences, self.literals, last].into_iter().enumerate()
        {
            let (packed, sizes) = section.finish()?;
            header.sections[number] = sizes;
            sections.push(packed);
        }
        let size = HEADER as u64 + sections.iter().map(|section| section.len() as u64).sum::<u64>();
        if size > most {
            return Err(too_large(most));
        }
        out.write_all(&header.to_bytes())?;
        for section in sections {
            out.write_all(&section)?;
        }
        out.flush()?;
        Ok((header, size))
    }
}

fn too_large(most: u64) -> io::Error {
    io::Error::other(format!("a delta would be larger than {most} bytes"))
}

/// Finds for every entry where its like is in the base.
fn plan(old: &Entries, new: &Entries, patch: u64) -> Vec<Plan> {
    let mut plans = Vec::new();
    for entry in &new.list {
        let named = old.named(&entry.path).or_else(|| old.relative(entry));
        header(&mut plans, named, entry);
        if entry.size == 0 {
            continue;
        }
        let from = entry.data();
        if let Some(same) = named.filter(|n| n.digest == entry.digest).or_else(|| old.same(entry)) {
            push(&mut plans, Plan::Copy { base: same.data(), length: entry.size });
            continue;
        }
        let Some(relative) = old.relative(entry) else {
            push(&mut plans, Plan::Insert { from, length: entry.size });
            continue;
        };
        // Very large files are compared in slices that lie at the same place.
        let mut at = 0;
        while at < entry.size {
            let length = patch.min(entry.size - at);
            let base_length = patch.min(relative.size.saturating_sub(at));
            let plan = if base_length == 0 {
                Plan::Insert { from: from + at, length }
            } else {
                Plan::Change { base: relative.data() + at, base_length, from: from + at, length }
            };
            push(&mut plans, plan);
            at += length;
        }
    }
    plans
}

fn header(plans: &mut Vec<Plan>, named: Option<&Entry>, entry: &Entry) {
    let length = entry.header.len() as u64;
    let plan = match named {
        _ if length == 0 => return,
        Some(found) if found.header == entry.header => Plan::Copy { base: found.start, length },
        Some(found) if !found.header.is_empty() => Plan::Change {
            base: found.start,
            base_length: found.header.len() as u64,
            from: entry.start,
            length,
        },
        _ => Plan::Insert { from: entry.start, length },
    };
    push(plans, plan);
}

/// Adds a step, to the one before where it goes on from there.
fn push(plans: &mut Vec<Plan>, plan: Plan) {
    match (plans.last_mut(), plan) {
        (Some(Plan::Copy { base, length }), Plan::Copy { base: next, length: more })
            if *base + *length == next =>
        {
            *length += more;
        }
        (Some(Plan::Insert { length, .. }), Plan::Insert { length: more, .. }) if *length < 4 << 20 => {
            *length += more;
        }
        _ => plans.push(plan),
    }
}

fn carry_out(plan: Plan, base: &File, new: &File, watch: &Watch) -> io::Result<Done> {
    match plan {
        Plan::Copy { base, length } => {
            Ok(Done { step: Step::Copy { base, length }, differences: Vec::new(), literals: Vec::new() })
        }
        Plan::Insert { from, length } => insert(new, from, length),
        Plan::Change { base: start, base_length, from, length } => {
            let (old, new_bytes) = (read(base, start, base_length)?, read(new, from, length)?);
            let pieces = matching::pieces(&old, &new_bytes, || watch.check())?;
            if pieces.iter().all(|piece| piece.add == 0) || pieces.len() as u64 > most_pieces(length) {
                return insert(new, from, length);
            }
            let mut foretell = false;
            let mut differences = patch::differences(&old, &new_bytes, &pieces, false);
            if patch::foretellable(&old, &new_bytes) {
                let foretold = patch::differences(&old, &new_bytes, &pieces, true);
                let changed = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != 0).count();
                if changed(&foretold) < changed(&differences) {
                    (foretell, differences) = (true, foretold);
                }
            }
            let literals = pieces.iter().flat_map(|piece| {
                let start = (piece.new + piece.add) as usize;
                &new_bytes[start..start + piece.insert as usize]
            });
            let literals = literals.copied().collect();
            let step = Step::Patch { base: start, base_length, length, foretell, pieces };
            Ok(Done { step, differences, literals })
        }
    }
}

fn insert(new: &File, from: u64, length: u64) -> io::Result<Done> {
    Ok(Done { step: Step::Insert { length }, differences: Vec::new(), literals: read(new, from, length)? })
}

fn read(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Reads a file from a place of its own.
pub(super) struct At {
    pub(super) file: File,
    pub(super) at: u64,
}

impl io::Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
