use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

use aos_log::{Joiner, Line, Piece};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

/// Most bytes of one file that are read, from its end; the keeper's are shorter unless it was told otherwise.
const MOST: u64 = 16 << 20;

/// Compresses.
pub fn gzip(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    out.write_all(text)?;
    out.finish()
}

/// What was compressed, at most `most` bytes of it.
pub fn plain(content: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    MultiGzDecoder::new(content)
        .take(most)
        .read_to_end(&mut text)?;
    Ok(text)
}

/// The bytes of a file of the keeper, compressed or not.
pub(crate) fn read(mut file: &File, compressed: bool) -> io::Result<Vec<u8>> {
    if compressed {
        return plain(file, MOST);
    }
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut text = Vec::with_capacity(usize::try_from(length.min(MOST)).unwrap_or(0));
    file.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

/// The lines in what the keeper wrote, the oldest first.
pub(crate) fn lines(source: &str, text: &[u8]) -> Vec<Line> {
    let mut joiner = Joiner::default();
    let mut lines: Vec<Line> = text
        .split(|&byte| byte == b'\n')
        .filter_map(|line| joiner.take(source, Piece::parse(line)?))
        .collect();
    lines.extend(joiner.rest(source));
    lines
}
