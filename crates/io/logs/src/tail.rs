use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aos_log::{Joiner, Line, Piece};

/// Most bytes that are read at a time.
const MOST: u64 = 256 << 10;

/// Tells what comes to the file of one instance, also when the keeper puts it aside.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    source: String,
    open: Option<(File, u64)>,
    rest: Vec<u8>,
    joiner: Joiner,
    /// How many bytes were passed over because more came than may be read.
    passed: u64,
}

impl Tail {
    /// From the present end of the file on, or also the newest of what is in it (`whole`). It need not be there yet.
    pub fn new(path: PathBuf, source: String, whole: bool) -> Self {
        let open = File::open(&path).ok().and_then(|mut file| {
            if !whole {
                file.seek(SeekFrom::End(0)).ok()?;
            }
            let number = file.metadata().ok()?.ino();
            Some((file, number))
        });
        Self {
            path,
            source,
            open,
            rest: Vec::new(),
            joiner: Joiner::default(),
            passed: 0,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lines that have come, and how many bytes were passed over. Call it again when the folder has changed.
    pub fn read(&mut self) -> io::Result<(Vec<Line>, u64)> {
        let mut lines = Vec::new();
        if let Some((file, _)) = &mut self.open {
            let mut file = &*file;
            let over = skip(file)?;
            if over > 0 {
                self.rest.clear();
            }
            self.passed += over;
            let mut text = Vec::new();
            (&mut file).take(MOST).read_to_end(&mut text)?;
            self.take(&text, &mut lines);
        }
        let now = std::fs::metadata(&self.path).ok().map(|facts| facts.ino());
        let before = self.open.as_ref().map(|(_, number)| *number);
        if now.is_some() && now != before {
            // The old one has been read to its end: nobody writes there any more.
            let file = File::open(&self.path)?;
            let number = file.metadata()?.ino();
            self.rest.clear();
            self.passed += skip(&file)?;
            let mut text = Vec::new();
            (&file).take(MOST).read_to_end(&mut text)?;
            self.open = Some((file, number));
            self.take(&text, &mut lines);
        }
        Ok((lines, std::mem::take(&mut self.passed)))
    }

    fn take(&mut self, text: &[u8], lines: &mut Vec<Line>) {
        self.rest.extend_from_slice(text);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            return;
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        for line in whole.split(|&byte| byte == b'\n') {
            if let Some(piece) = Piece::parse(line) {
                lines.extend(self.joiner.take(&self.source, piece));
            }
        }
    }
}

/// Passes over all but the newest bytes that may be read.
fn skip(mut file: &File) -> io::Result<u64> {
    let at = file.stream_position()?;
    let waiting = file.metadata()?.len().saturating_sub(at);
    let over = waiting.saturating_sub(MOST);
    if over > 0 {
        file.seek(SeekFrom::Start(at + over))?;
    }
    Ok(over)
}
