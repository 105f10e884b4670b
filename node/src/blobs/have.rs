//! Which groups of a download are on disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use pedlar_protocol::content::{Groups, Size};

/// A bit for each group, in memory and in a file.
///
/// In the file a bit is set only after the data it stands for is durable, and is otherwise never touched. So no
/// checksum is needed: a write that a power cut tore leaves some bits old and some new, and both are true.
///
/// Memory: two bits for each 16 KiB, 256 KiB for an object of 16 GiB.
#[derive(Debug)]
pub(super) struct Have {
    bits: Vec<u8>,
    /// The bits as they are in the file.
    stored: Vec<u8>,
    groups: Groups,
    missing: u64,
    /// Set in memory since [`Have::take_fresh`].
    fresh: Vec<u64>,
}

impl Have {
    /// Bytes of the bits of an object in the file.
    pub(super) fn file_len(size: Size) -> u64 {
        size.group_count().div_ceil(8)
    }

    /// The bits of a new download: none set.
    pub(super) fn none(size: Size) -> Self {
        let bits = vec![0; Self::file_len(size) as usize];
        Self { stored: bits.clone(), bits, groups: size.groups(), missing: size.group_count(), fresh: Vec::new() }
    }

    /// The bits that lie in `file` from byte `at` on.
    pub(super) fn load(size: Size, file: &File, at: u64) -> io::Result<Self> {
        let mut have = Self::none(size);
        file.read_exact_at(&mut have.bits, at)?;
        have.stored.clone_from(&have.bits);
        let present = have.groups.indices().filter(|index| have.contains(*index)).count() as u64;
        have.missing -= present;
        Ok(have)
    }

    /// The groups set since the last call, which [`store`](Self::store) is due for once their data is durable.
    pub(super) fn take_fresh(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.fresh)
    }

    /// Writes the bits of these groups to `file` from byte `at` on; what they stand for is durable already.
    pub(super) fn store(&mut self, groups: &[u64], file: &File, at: u64) -> io::Result<()> {
        let bytes = groups.iter().map(|index| (index / 8) as usize);
        let (Some(first), Some(last)) = (bytes.clone().min(), bytes.max()) else {
            return Ok(());
        };
        for index in groups {
            if let Some(byte) = self.stored.get_mut((index / 8) as usize) {
                *byte |= bit(*index);
            }
        }
        file.write_all_at(self.stored.get(first..=last).unwrap_or_default(), at + first as u64)
    }

    /// Writes all bits, also those that were taken back.
    pub(super) fn rewrite(&mut self, file: &File, at: u64) -> io::Result<()> {
        self.fresh.clear();
        self.stored.clone_from(&self.bits);
        file.write_all_at(&self.bits, at)
    }

    /// Forgets these groups and all fresh ones: their data may not have reached the disk.
    pub(super) fn forget(&mut self, groups: &[u64]) {
        let fresh = self.take_fresh();
        groups.iter().chain(&fresh).for_each(|index| self.remove(*index));
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        self.bits.get((index / 8) as usize).is_some_and(|byte| byte & bit(index) != 0)
    }

    pub(super) fn insert(&mut self, index: u64) {
        if !self.groups.contains(index) || self.contains(index) {
            return;
        }
        if let Some(byte) = self.bits.get_mut((index / 8) as usize) {
            *byte |= bit(index);
            self.missing -= 1;
            self.fresh.push(index);
        }
    }

    pub(super) fn remove(&mut self, index: u64) {
        if !self.contains(index) {
            return;
        }
        if let Some(byte) = self.bits.get_mut((index / 8) as usize) {
            *byte &= !bit(index);
            self.missing += 1;
        }
    }

    /// How many groups were set since the last [`take_fresh`](Self::take_fresh).
    pub(super) fn fresh_count(&self) -> usize {
        self.fresh.len()
    }

    /// How many groups are missing.
    pub(super) fn missing_count(&self) -> u64 {
        self.missing
    }

    /// The first groups, from `from` on and at most `limit`, that are missing (or, with `present`, that are there).
    pub(super) fn run(&self, from: u64, limit: u64, present: bool) -> Option<Groups> {
        let skipped = if present { 0 } else { 0xff };
        let mut start = from;
        while start < self.groups.end() && self.contains(start) != present {
            let skip_byte = start.is_multiple_of(8) && self.bits.get((start / 8) as usize) == Some(&skipped);
            start += if skip_byte { 8 } else { 1 };
        }
        let limit = start.saturating_add(limit).min(self.groups.end());
        let end = (start..limit).find(|index| self.contains(*index) != present);
        Groups::new(start, end.unwrap_or(limit))
    }
}

const fn bit(index: u64) -> u8 {
    1 << (index % 8)
}
