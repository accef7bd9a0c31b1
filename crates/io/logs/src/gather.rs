use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use aos_log::{Limits, Parts};

use crate::file::gzip;

/// An answer, cut into parts, in a file without a name: it goes with whoever holds it.
#[derive(Debug)]
pub struct Gathered {
    file: File,
    /// Where each begins and how long it is, the newest first.
    parts: Vec<(u64, usize)>,
    end: u64,
}

impl Gathered {
    /// How many parts there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// A part, from 0, the oldest first: a gzip stream of its own.
    pub fn part(&self, number: usize) -> io::Result<Vec<u8>> {
        let place = self.parts.len().checked_sub(number + 1);
        let Some(&(at, length)) = place.and_then(|place| self.parts.get(place)) else {
            return Ok(Vec::new());
        };
        let mut content = vec![0; length];
        self.file.read_exact_at(&mut content, at)?;
        Ok(content)
    }

    fn add(&mut self, text: Option<String>) -> io::Result<()> {
        let Some(text) = text else {
            return Ok(());
        };
        let content = gzip(text.as_bytes())?;
        self.file.write_all_at(&content, self.end)?;
        self.parts.push((self.end, content.len()));
        self.end += u64::try_from(content.len()).unwrap_or(0);
        Ok(())
    }
}

/// Cuts what `fill` shows, lines or whole texts from the newest back, into parts. The file is made in `folder`.
pub fn gather(
    folder: &Path,
    limits: Limits,
    fill: impl FnOnce(&mut dyn FnMut(String) -> bool) -> io::Result<()>,
) -> io::Result<Gathered> {
    let mut parts = Parts::new(limits);
    let mut gathered = Gathered {
        file: tempfile::tempfile_in(folder)?,
        parts: Vec::new(),
        end: 0,
    };
    let mut failed = None;
    fill(&mut |text| {
        if let Err(error) = gathered.add(parts.push(text)) {
            failed = Some(error);
            return false;
        }
        !parts.is_full()
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    gathered.add(parts.finish())?;
    Ok(gathered)
}
