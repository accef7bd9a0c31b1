//! Decrypts blobs while they pass by, and takes a decryption up where an earlier process left it.
//!
//! The rules are in `docs/protocol/items.md`: AES-CBC with PKCS#7, and AES-GCM as nonce, ciphertext and tag in one file.
//! GCM is put together here from CTR and GHASH because blobs are longer than memory: the library's own GCM wants the whole
//! text at once. What comes out before [`BlobDecryptor::finish`] has said yes is not authenticated: keep it where nobody
//! uses it.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::{
    cipher::{
        AES_128, AES_192, AES_256, Algorithm, DecryptionContext, EncryptionContext,
        StreamingDecryptingKey, StreamingEncryptingKey, UnboundCipherKey,
    },
    constant_time::verify_slices_are_equal,
    iv::FixedLength,
};
use ghash::{
    GHash,
    universal_hash::{KeyInit, UniversalHash},
};
use zeroize::Zeroizing;

/// Bytes of a block, of a CBC vector and of a GCM tag.
const BLOCK: usize = 16;
/// Bytes of a GCM nonce.
const NONCE: usize = 12;
/// Longest GCM text: beyond it the 32-bit counter would begin anew.
const GCM_MOST: u64 = (u32::MAX as u64 - 2) * BLOCK as u64;

/// The name of a block cipher is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a known block cipher; `AES256/CBC/PKCS7` and `AES256/GCM` are, also with AES128 and AES192"
)]
pub struct UnknownCipher {
    text: String,
}

/// A blob cannot be decrypted. Nothing that was decrypted of it may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// The key does not fit the cipher.
    #[error("the key has {found} bytes, {cipher} wants {wanted}")]
    KeyLength {
        /// The cipher.
        cipher: BlobCipher,
        /// Bytes given.
        found: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// The vector does not fit the cipher.
    #[error("the initialisation vector has {found} bytes, which {cipher} does not take")]
    IvLength {
        /// The cipher.
        cipher: BlobCipher,
        /// Bytes given.
        found: usize,
    },
    /// The file is too short, or no whole number of blocks.
    #[error("the encrypted file has a length that {cipher} cannot have made")]
    Length {
        /// The cipher.
        cipher: BlobCipher,
    },
    /// The padding is wrong: another key, or other bytes.
    #[error(
        "the encrypted file does not end in PKCS#7 padding: it is damaged, or the key is wrong"
    )]
    Padding,
    /// The tag is wrong: another key, or other bytes.
    #[error(
        "the encrypted file has a wrong authentication tag: it is damaged, or the key is wrong"
    )]
    Tag,
    /// The library failed.
    #[error("the cipher failed")]
    Cipher,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Cbc,
    Gcm,
}

/// How a transferred blob is encrypted: `decryptInfo.blockAlg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobCipher {
    bits: u16,
    mode: Mode,
}

impl BlobCipher {
    fn algorithm(self) -> &'static Algorithm {
        match self.bits {
            128 => &AES_128,
            192 => &AES_192,
            _ => &AES_256,
        }
    }

    fn key_len(self) -> usize {
        usize::from(self.bits / 8)
    }
}

impl fmt::Display for BlobCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = match self.mode {
            Mode::Cbc => "CBC/PKCS7",
            Mode::Gcm => "GCM",
        };
        write!(f, "AES{}/{rest}", self.bits)
    }
}

impl FromStr for BlobCipher {
    type Err = UnknownCipher;

    /// Reads `<cipher>/<mode>/<padding>` in any case. Without a mode it is CBC, CBC without a padding is padded by PKCS#7;
    /// any other padding is refused, not guessed.
    fn from_str(text: &str) -> Result<Self, UnknownCipher> {
        let refuse = || UnknownCipher {
            text: text.chars().take(64).collect(),
        };
        let upper = text.trim().to_ascii_uppercase();
        let mut parts = upper.split('/');
        let bits = match parts.next().unwrap_or_default() {
            "AES128" => 128,
            "AES192" => 192,
            "AES256" => 256,
            _ => return Err(refuse()),
        };
        let mode = match parts.next().unwrap_or_default() {
            "" | "CBC" => Mode::Cbc,
            "GCM" => Mode::Gcm,
            _ => return Err(refuse()),
        };
        let padding = parts.next().unwrap_or_default();
        let known = match mode {
            Mode::Cbc => matches!(padding, "" | "PKCS7" | "PKCS7PADDING"),
            Mode::Gcm => matches!(padding, "" | "NOPADDING" | "NONE"),
        };
        if !known || parts.next().is_some() {
            return Err(refuse());
        }
        Ok(Self { bits, mode })
    }
}

/// What a blob is decrypted with. `Debug` shows the cipher only.
pub struct BlobKey {
    cipher: BlobCipher,
    key: Zeroizing<Vec<u8>>,
    iv: Vec<u8>,
}

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobKey({})", self.cipher)
    }
}

impl BlobKey {
    /// Puts cipher, plain key and initialisation vector together. GCM may go without a vector: the file begins with it then.
    pub fn new(
        cipher: BlobCipher,
        key: Zeroizing<Vec<u8>>,
        iv: Vec<u8>,
    ) -> Result<Self, DecryptError> {
        if key.len() != cipher.key_len() {
            return Err(DecryptError::KeyLength {
                cipher,
                found: key.len(),
                wanted: cipher.key_len(),
            });
        }
        let fits = match cipher.mode {
            Mode::Cbc => iv.len() == BLOCK,
            Mode::Gcm => iv.is_empty() || iv.len() == NONCE,
        };
        if !fits {
            return Err(DecryptError::IvLength {
                cipher,
                found: iv.len(),
            });
        }
        Ok(Self { cipher, key, iv })
    }

    /// The cipher.
    pub fn cipher(&self) -> BlobCipher {
        self.cipher
    }

    fn unbound(&self) -> Result<UnboundCipherKey, DecryptError> {
        UnboundCipherKey::new(self.cipher.algorithm(), &self.key).map_err(|_| DecryptError::Cipher)
    }

    fn ctr(&self, counter: [u8; BLOCK]) -> Result<StreamingDecryptingKey, DecryptError> {
        let context = DecryptionContext::Iv128(FixedLength::from(counter));
        StreamingDecryptingKey::ctr(self.unbound()?, context).map_err(|_| DecryptError::Cipher)
    }

    fn cbc(&self, iv: [u8; BLOCK]) -> Result<StreamingDecryptingKey, DecryptError> {
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        StreamingDecryptingKey::cbc_pkcs7(self.unbound()?, context)
            .map_err(|_| DecryptError::Cipher)
    }

    /// One block encrypted by itself.
    fn block(&self, counter: [u8; BLOCK]) -> Result<[u8; BLOCK], DecryptError> {
        let mut out = Vec::new();
        run(&mut self.ctr(counter)?, &[0; BLOCK], &mut out)?;
        out.try_into().map_err(|_| DecryptError::Cipher)
    }
}

fn run(
    cipher: &mut StreamingDecryptingKey,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecryptError> {
    let start = out.len();
    out.resize(start + input.len() + BLOCK, 0);
    let written = cipher
        .update(input, out.get_mut(start..).unwrap_or_default())
        .map_err(|_| DecryptError::Cipher)?
        .written()
        .len();
    out.truncate(start + written);
    Ok(())
}

/// The counter block of a GCM text: the nonce and a 32-bit number.
fn counter(nonce: [u8; NONCE], number: u32) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let (left, right) = block.split_at_mut(NONCE);
    left.copy_from_slice(&nonce);
    right.copy_from_slice(&number.to_be_bytes());
    block
}

/// GHASH over bytes that come in pieces of any length.
#[derive(Clone)]
struct Authenticator {
    hash: GHash,
    pending: Vec<u8>,
    length: u64,
}

impl Authenticator {
    fn new(key: &BlobKey) -> Result<Self, DecryptError> {
        let own = Zeroizing::new(key.block([0; BLOCK])?);
        let hash = GHash::new_from_slice(own.as_slice()).map_err(|_| DecryptError::Cipher)?;
        Ok(Self {
            hash,
            pending: Vec::with_capacity(BLOCK),
            length: 0,
        })
    }

    fn push(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.pending.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - self.pending.len()));
            self.pending.extend_from_slice(head);
            bytes = rest;
            if self.pending.len() < BLOCK {
                return;
            }
            self.hash.update_padded(&self.pending);
            self.pending.clear();
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK);
        self.hash.update_padded(whole);
        self.pending.extend_from_slice(rest);
    }

    fn tag(mut self, mask: [u8; BLOCK]) -> [u8; BLOCK] {
        if !self.pending.is_empty() {
            self.hash.update_padded(&self.pending);
        }
        // No additional data, then the length of the text in bits.
        let mut lengths = [0; BLOCK];
        let bits = (self.length * 8).to_be_bytes();
        if let Some(right) = lengths.get_mut(8..) {
            right.copy_from_slice(&bits);
        }
        self.hash.update_padded(&lengths);
        let mut tag = mask;
        for (byte, own) in tag.iter_mut().zip(self.hash.finalize()) {
            *byte ^= own;
        }
        tag
    }
}

/// A GCM text whose nonce is known.
struct Gcm {
    cipher: StreamingDecryptingKey,
    authenticator: Authenticator,
    mask: [u8; BLOCK],
    /// The last bytes so far: they may be the tag.
    tail: Vec<u8>,
}

impl Gcm {
    fn new(key: &BlobKey, nonce: [u8; NONCE]) -> Result<Self, DecryptError> {
        Ok(Self {
            cipher: key.ctr(counter(nonce, 2))?,
            authenticator: Authenticator::new(key)?,
            mask: key.block(counter(nonce, 1))?,
            tail: Vec::with_capacity(2 * BLOCK),
        })
    }

    fn text(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), DecryptError> {
        self.authenticator.push(bytes);
        run(&mut self.cipher, bytes, plain)
    }

    fn update(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), DecryptError> {
        if bytes.len() >= BLOCK {
            let tail = std::mem::take(&mut self.tail);
            self.text(&tail, plain)?;
            let (text, last) = bytes.split_at(bytes.len() - BLOCK);
            self.text(text, plain)?;
            self.tail.extend_from_slice(last);
            return Ok(());
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > BLOCK {
            let last = self.tail.split_off(self.tail.len() - BLOCK);
            let text = std::mem::replace(&mut self.tail, last);
            self.text(&text, plain)?;
        }
        Ok(())
    }
}

enum State {
    Cbc(StreamingDecryptingKey),
    /// The first bytes of a GCM file, which may be its nonce.
    Nonce(Vec<u8>),
    Gcm(Box<Gcm>),
}

/// A blob being decrypted, piece by piece.
pub struct BlobDecryptor {
    key: Arc<BlobKey>,
    state: State,
    taken: u64,
    head: Option<[u8; NONCE]>,
}

impl fmt::Debug for BlobDecryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "BlobDecryptor({}, {} bytes)",
            self.key.cipher, self.taken
        )
    }
}

impl BlobDecryptor {
    /// Starts at the beginning of a file.
    pub fn new(key: &Arc<BlobKey>) -> Result<Self, DecryptError> {
        let state = match (key.cipher.mode, <[u8; BLOCK]>::try_from(key.iv.as_slice())) {
            (Mode::Cbc, Ok(iv)) => State::Cbc(key.cbc(iv)?),
            (Mode::Cbc, Err(_)) => return Err(DecryptError::Cipher),
            (Mode::Gcm, _) => State::Nonce(Vec::with_capacity(NONCE)),
        };
        Ok(Self {
            key: key.clone(),
            state,
            taken: 0,
            head: None,
        })
    }

    /// Takes the next piece of the file and adds to `plain` what it gives.
    pub fn update(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), DecryptError> {
        self.taken += bytes.len() as u64;
        if let State::Nonce(head) = &mut self.state {
            let (first, rest) = bytes.split_at(bytes.len().min(NONCE - head.len()));
            head.extend_from_slice(first);
            bytes = rest;
            let Ok(first) = <[u8; NONCE]>::try_from(head.as_slice()) else {
                return Ok(());
            };
            self.begin_gcm(first, plain)?;
        }
        match &mut self.state {
            State::Cbc(cipher) => run(cipher, bytes, plain),
            State::Gcm(gcm) if self.taken > GCM_MOST => {
                gcm.tail.clear();
                Err(DecryptError::Length {
                    cipher: self.key.cipher,
                })
            }
            State::Gcm(gcm) => gcm.update(bytes, plain),
            State::Nonce(_) => Ok(()),
        }
    }

    /// The first bytes of a GCM file are its nonce, unless the nonce was delivered and they are not it.
    fn begin_gcm(&mut self, first: [u8; NONCE], plain: &mut Vec<u8>) -> Result<(), DecryptError> {
        let given = <[u8; NONCE]>::try_from(self.key.iv.as_slice()).ok();
        let mut gcm = Gcm::new(&self.key, given.unwrap_or(first))?;
        if given.is_some_and(|given| given != first) {
            gcm.update(&first, plain)?;
        } else {
            self.head = Some(first);
        }
        self.state = State::Gcm(Box::new(gcm));
        Ok(())
    }

    /// Ends the file, adding the last bytes to `plain`. An error means that all of it is worth nothing.
    pub fn finish(self, plain: &mut Vec<u8>) -> Result<(), DecryptError> {
        let length = DecryptError::Length {
            cipher: self.key.cipher,
        };
        match self.state {
            State::Cbc(cipher) => {
                if self.taken == 0 || !self.taken.is_multiple_of(BLOCK as u64) {
                    return Err(length);
                }
                let mut last = Zeroizing::new([0; BLOCK]);
                let rest = cipher
                    .finish(last.as_mut_slice())
                    .map_err(|_| DecryptError::Padding)?;
                plain.extend_from_slice(rest.written());
                Ok(())
            }
            State::Gcm(gcm) if gcm.tail.len() == BLOCK => {
                verify_slices_are_equal(&gcm.authenticator.tag(gcm.mask), &gcm.tail)
                    .map_err(|_| DecryptError::Tag)
            }
            State::Gcm(_) | State::Nonce(_) => Err(length),
        }
    }

    /// What a later process must know, besides the plain bytes, to go on: the first bytes of the file, if they are no part
    /// of the text. Nothing before they have come.
    pub fn head(&self) -> Option<Vec<u8>> {
        match &self.state {
            State::Cbc(_) => Some(Vec::new()),
            State::Gcm(_) => Some(self.head.map(Vec::from).unwrap_or_default()),
            State::Nonce(_) => None,
        }
    }
}

/// Makes a file's encrypted bytes again from plain ones that an earlier process left, so that its checksums can be
/// computed on and the decryption goes on behind them.
pub struct BlobReplay {
    key: Arc<BlobKey>,
    to: Replayed,
    head: Vec<u8>,
    taken: u64,
}

enum Replayed {
    Cbc {
        cipher: StreamingEncryptingKey,
        last: [u8; BLOCK],
    },
    Gcm(Box<Gcm>),
}

impl fmt::Debug for BlobReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobReplay({})", self.key.cipher)
    }
}

impl BlobReplay {
    /// Bytes of plain text that can be replayed: whole blocks only.
    pub const UNIT: usize = BLOCK;

    /// Begins with what [`BlobDecryptor::head`] gave.
    pub fn new(key: &Arc<BlobKey>, head: &[u8]) -> Result<Self, DecryptError> {
        let wrong = DecryptError::IvLength {
            cipher: key.cipher,
            found: head.len(),
        };
        let to = match key.cipher.mode {
            Mode::Cbc => {
                let last: [u8; BLOCK] = key.iv.as_slice().try_into().map_err(|_| wrong)?;
                let context = EncryptionContext::Iv128(FixedLength::from(last));
                let cipher = StreamingEncryptingKey::less_safe_cbc_pkcs7(key.unbound()?, context)
                    .map_err(|_| DecryptError::Cipher)?;
                Replayed::Cbc { cipher, last }
            }
            Mode::Gcm => {
                let own = if head.is_empty() { &key.iv } else { head };
                let nonce: [u8; NONCE] = own.try_into().map_err(|_| wrong)?;
                // A file is begun anew if the cloud has encrypted it with another nonce since.
                if !key.iv.is_empty() && key.iv != nonce {
                    return Err(DecryptError::Tag);
                }
                Replayed::Gcm(Box::new(Gcm::new(key, nonce)?))
            }
        };
        Ok(Self {
            key: key.clone(),
            to,
            head: head.to_vec(),
            taken: 0,
        })
    }

    /// The bytes the file begins with, before any text.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Takes whole blocks of plain text and adds to `file` what they were in the file.
    pub fn push(&mut self, plain: &[u8], file: &mut Vec<u8>) -> Result<(), DecryptError> {
        if !plain.len().is_multiple_of(BLOCK) {
            return Err(DecryptError::Cipher);
        }
        self.taken += plain.len() as u64;
        let start = file.len();
        match &mut self.to {
            Replayed::Cbc { cipher, last } => {
                file.resize(start + plain.len() + BLOCK, 0);
                let written = cipher
                    .update(plain, file.get_mut(start..).unwrap_or_default())
                    .map_err(|_| DecryptError::Cipher)?
                    .written()
                    .len();
                file.truncate(start + written);
                if written != plain.len() {
                    return Err(DecryptError::Cipher);
                }
                if let Some(block) = file.last_chunk::<BLOCK>().filter(|_| written > 0) {
                    *last = *block;
                }
            }
            Replayed::Gcm(gcm) => {
                // Counter mode is its own inverse.
                run(&mut gcm.cipher, plain, file)?;
                gcm.authenticator
                    .push(file.get(start..).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Goes on behind what was pushed.
    pub fn into_decryptor(self) -> Result<BlobDecryptor, DecryptError> {
        let state = match self.to {
            Replayed::Cbc { last, .. } => State::Cbc(self.key.cbc(last)?),
            Replayed::Gcm(gcm) => State::Gcm(gcm),
        };
        Ok(BlobDecryptor {
            state,
            taken: self.taken + self.head.len() as u64,
            head: self.head.as_slice().try_into().ok(),
            key: self.key,
        })
    }
}
