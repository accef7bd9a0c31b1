use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::{TryRngCore as _, rngs::OsRng};

/// The alphabet of claim codes: Crockford's base 32, without letters that look like digits.
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The machine gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the machine gave no randomness")]
pub(crate) struct NoRandomness(#[source] rand::rand_core::OsError);

/// A token of 256 bits for a cookie or a link.
pub(crate) fn token() -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A claim code of 128 bits that a person can read out: `XXXXX-XXXXX-XXXXX-XXXXX-XXXXXX`.
pub(crate) fn claim_code() -> Result<String, NoRandomness> {
    let mut bytes = [0; 16];
    OsRng.try_fill_bytes(&mut bytes).map_err(NoRandomness)?;
    let mut number = u128::from_be_bytes(bytes);
    let mut letters = Vec::with_capacity(26);
    for _ in 0..26 {
        let place = usize::try_from(number % 32).unwrap_or(0);
        letters.push(LETTERS.get(place).copied().map_or('0', char::from));
        number /= 32;
    }
    let mut code = String::with_capacity(30);
    for (place, letter) in letters.iter().enumerate() {
        if place > 0 && place % 5 == 0 && place < 25 {
            code.push('-');
        }
        code.push(*letter);
    }
    Ok(code)
}

/// A claim code as it is hashed: however a person typed it.
pub(crate) fn normal_claim_code(text: &str) -> String {
    text.chars()
        .take(128)
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_codes_are_read_however_they_are_typed() {
        let code = claim_code().unwrap();
        assert_eq!(code.len(), 30, "{code}");
        assert_eq!(normal_claim_code(&code).len(), 26);
        let sloppy = format!(
            " {} ",
            code.to_lowercase()
                .replace('-', " ")
                .replace('0', "o")
                .replace('1', "l")
        );
        assert_eq!(normal_claim_code(&sloppy), normal_claim_code(&code));
        assert_ne!(claim_code().unwrap(), code);
    }
}
