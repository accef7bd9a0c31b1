use serde::{Serialize, de::DeserializeOwned};

/// Longest order accepted by the keeper, in bytes.
pub(super) const MAX_ORDER: usize = 256 << 10;
/// Longest message accepted from the keeper, in bytes.
pub(super) const MAX_MESSAGE: usize = 4 << 20;

/// The bytes on the socket are not the protocol.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than agreed.
    #[error("a frame of {bytes} bytes is longer than the {max} allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// Not the JSON expected.
    #[error("a frame does not hold a known message")]
    Json(#[from] serde_json::Error),
}

/// Appends `message` to `bytes`: its length in four little-endian bytes, then JSON.
pub(super) fn push<T: Serialize>(bytes: &mut Vec<u8>, message: &T) -> Result<(), FrameError> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *bytes, message)?;
    let length = u32::try_from(bytes.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(header) = bytes.get_mut(start..start + 4) {
        header.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

/// Takes the first complete message out of `bytes`; nothing if it is not complete yet.
pub(super) fn take<T: DeserializeOwned>(
    bytes: &mut Vec<u8>,
    max: usize,
) -> Result<Option<T>, FrameError> {
    let Some(header) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
    if length > max {
        return Err(FrameError::TooLong { bytes: length, max });
    }
    let Some(body) = bytes.get(4..4 + length) else {
        return Ok(None);
    };
    let message = serde_json::from_slice(body)?;
    bytes.drain(..4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::{Order, Request};

    #[test]
    fn messages_survive_any_cut_of_the_stream() {
        let one = Request {
            re: 7,
            order: Order::Exits { since: 3 },
        };
        let two = Request {
            re: 8,
            order: Order::List,
        };
        let mut stream = Vec::new();
        push(&mut stream, &one).unwrap();
        push(&mut stream, &two).unwrap();
        for cut in 0..stream.len() {
            let mut buffer = stream[..cut].to_vec();
            let mut got: Vec<Request> = Vec::new();
            while let Some(request) = take(&mut buffer, MAX_ORDER).unwrap() {
                got.push(request);
            }
            buffer.extend_from_slice(&stream[cut..]);
            while let Some(request) = take(&mut buffer, MAX_ORDER).unwrap() {
                got.push(request);
            }
            assert_eq!(got, [one.clone(), two.clone()], "cut at {cut}");
        }
    }

    #[test]
    fn hostile_frames_are_refused() {
        let mut long = u32::MAX.to_le_bytes().to_vec();
        assert!(matches!(
            take::<Request>(&mut long, MAX_ORDER),
            Err(FrameError::TooLong { .. })
        ));
        let mut junk = vec![2, 0, 0, 0, b'{', b'x'];
        assert!(matches!(
            take::<Request>(&mut junk, MAX_ORDER),
            Err(FrameError::Json(_))
        ));
    }
}
