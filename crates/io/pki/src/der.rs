//! The little DER and URN writing that no library does for us.

/// `GeneralNames` of URIs: a sequence of `[6] IA5String` (RFC 5280, 4.2.1.6).
pub(crate) fn uri_names(uris: &[String]) -> Vec<u8> {
    let body = uris
        .iter()
        .flat_map(|uri| tagged(0x86, uri.as_bytes()))
        .collect::<Vec<u8>>();
    tagged(0x30, &body)
}

pub(crate) fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(body.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length = body.len().to_be_bytes();
            let digits: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
            out.extend(digits);
        }
    }
    out.extend_from_slice(body);
    out
}

/// Percent-encodes what may not stand in the last part of a URN or in a path of a `file:` URL.
pub(crate) fn percent_encode(text: &str, keep: fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Undoes [`percent_encode`]; nothing if the text is not UTF-8 then or an escape is broken.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let mut value = [0];
            hex::decode_to_slice(digits, &mut value).ok()?;
            out.push(value[0]);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lengths_are_written_in_long_form() {
        let one = uri_names(&["https://a".into()]);
        assert_eq!(one[..4], [0x30, 11, 0x86, 9]);
        let long = uri_names(&["x".repeat(300)]);
        assert_eq!(long[..8], [0x30, 0x82, 0x01, 0x30, 0x86, 0x82, 0x01, 0x2c]);
    }

    #[test]
    fn percent_encoding_round_trips_any_text() {
        for text in ["", "a b", "имя", "100%", "a:b/c"] {
            assert_eq!(
                percent_decode(&percent_encode(text, |_| false)).as_deref(),
                Some(text)
            );
        }
        assert_eq!(percent_decode("%4"), None);
        assert_eq!(percent_decode("%ff"), None);
    }
}
