//! Stapled OCSP answers (RFC 6960): what the issuer of a certificate, or whom it lets answer, says of it.
//!
//! Read by a small reader of bounded DER of its own: no maintained library fits beside the one that reads our certificates.

use std::fmt;

use aos_time::Timestamp;
use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    asn1_rs::BitString,
    prelude::{FromDer, X509Certificate},
    verify::verify_signature,
    x509::AlgorithmIdentifier,
};

use crate::trust::subject_of;

/// Most answers looked at, and the longest.
const MOST: usize = 16;
const LONGEST: usize = 64 * 1024;
/// Most certificates spoken of in one answer.
const MOST_SINGLE: usize = 64;
/// How far clocks may differ.
const SKEW: std::time::Duration = std::time::Duration::from_secs(300);
/// How long an answer without a next update is good.
const GOOD_FOR: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// An answer is not accepted, or says that the certificate is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspError {
    /// There are more than are looked at.
    #[error("{count} OCSP answers came with the signature; {MOST} are looked at")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// It cannot be read.
    #[error("an OCSP answer cannot be read: {why}")]
    Unreadable {
        /// Why.
        why: &'static str,
    },
    /// The responder answered with an error.
    #[error("an OCSP answer is an error of its responder (status {status})")]
    Failed {
        /// The number of RFC 6960, 4.2.1.
        status: u8,
    },
    /// Nobody who may speak for the issuer has signed it.
    #[error("an OCSP answer about `{subject}` is signed by nobody who may speak for its issuer")]
    NotByIssuer {
        /// About whom.
        subject: String,
    },
    /// It is older than the moment at which the signature counts.
    #[error(
        "the OCSP answer about `{subject}` was good until {until}; the signature counts at {at}"
    )]
    TooOld {
        /// About whom.
        subject: String,
        /// Its end.
        until: Timestamp,
        /// When the signature counts.
        at: Timestamp,
    },
    /// It is of a time to come.
    #[error("the OCSP answer about `{subject}` is of {of}, which is still to come")]
    NotYet {
        /// About whom.
        subject: String,
        /// Its time.
        of: Timestamp,
    },
    /// The certificate was taken back.
    #[error("the certificate of `{subject}` was revoked at {at}{reason}")]
    Revoked {
        /// Whose.
        subject: String,
        /// When.
        at: Timestamp,
        /// Why, if the issuer says.
        reason: RevocationReason,
    },
    /// The issuer does not know the certificate.
    #[error("the issuer of the certificate of `{subject}` does not know it")]
    Unknown {
        /// Whose.
        subject: String,
    },
    /// There is none about the signer, and there must be.
    #[error(
        "no OCSP answer about the certificate of `{subject}` came with the signature (`require_ocsp`)"
    )]
    Absent {
        /// Whose.
        subject: String,
    },
}

/// Why a certificate was revoked (RFC 5280, 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationReason(Option<u8>);

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.0 {
            None | Some(0) => return Ok(()),
            Some(1) => "key compromise",
            Some(2) => "compromise of its authority",
            Some(3) => "affiliation changed",
            Some(4) => "superseded",
            Some(5) => "cessation of operation",
            Some(6) => "on hold",
            Some(8) => "removed from a list",
            Some(9) => "privilege withdrawn",
            Some(10) => "compromise of the attribute authority",
            Some(_) => "a reason of its own",
        };
        write!(f, " ({word})")
    }
}

/// What an answer says of one certificate.
struct Single<'a> {
    id: CertId<'a>,
    status: Status,
    this_update: Timestamp,
    next_update: Option<Timestamp>,
}

/// Which certificate.
struct CertId<'a> {
    hash: &'a [u8],
    issuer_name: &'a [u8],
    issuer_key: &'a [u8],
    serial: &'a [u8],
}

enum Status {
    Good,
    Revoked(Timestamp, RevocationReason),
    Unknown,
}

/// Checks what came with the signature of `leaf`, of which one of `issuers` is the issuer, for the moment `at` at which the
/// signature counts. Answers about other certificates say nothing. Whether there is a good one about `leaf`.
pub(crate) fn check(
    answers: &[impl AsRef<[u8]>],
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    at: Timestamp,
    now: Timestamp,
) -> Result<bool, OcspError> {
    if answers.len() > MOST {
        return Err(OcspError::TooMany {
            count: answers.len(),
        });
    }
    let mut good = false;
    for answer in answers {
        good |= one(answer.as_ref(), leaf, issuers, at, now)?;
    }
    Ok(good)
}

/// An answer as it travels in JSON.
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, OcspError> {
    if text.len() > LONGEST * 2 {
        return Err(unreadable("it is longer than 64 KiB"));
    }
    let digits: String = text.split_ascii_whitespace().collect();
    STANDARD
        .decode(digits)
        .map_err(|_| unreadable("it is not base64"))
}

/// The answer that there must be one.
pub(crate) fn absent(leaf: &CertificateDer<'_>) -> OcspError {
    OcspError::Absent {
        subject: subject_of(leaf),
    }
}

fn one(
    answer: &[u8],
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    at: Timestamp,
    now: Timestamp,
) -> Result<bool, OcspError> {
    if answer.len() > LONGEST {
        return Err(unreadable("it is longer than 64 KiB"));
    }
    let basic = Basic::read(answer)?;
    let certificate = parsed(leaf)?;
    let subject = || subject_of(leaf);
    let mut found = false;
    for single in &basic.singles {
        let issuer = issuers
            .iter()
            .filter_map(|der| parsed(der).ok())
            .find(|issuer| single.id.is_of(&certificate, issuer));
        let Some(issuer) = issuer else { continue };
        if !basic.is_by(&issuer, single.this_update) {
            return Err(OcspError::NotByIssuer { subject: subject() });
        }
        if let Status::Revoked(at, reason) = single.status {
            return Err(OcspError::Revoked {
                subject: subject(),
                at,
                reason,
            });
        }
        if single.this_update > now + SKEW {
            return Err(OcspError::NotYet {
                subject: subject(),
                of: single.this_update,
            });
        }
        let until = single.next_update.unwrap_or(single.this_update + GOOD_FOR);
        if until + SKEW < at {
            return Err(OcspError::TooOld {
                subject: subject(),
                until,
                at,
            });
        }
        if matches!(single.status, Status::Unknown) {
            return Err(OcspError::Unknown { subject: subject() });
        }
        found = true;
    }
    Ok(found)
}

fn unreadable(why: &'static str) -> OcspError {
    OcspError::Unreadable { why }
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, OcspError> {
    X509Certificate::from_der(der)
        .map(|(_, parsed)| parsed)
        .map_err(|_| unreadable("the certificate it is about cannot be read"))
}

impl CertId<'_> {
    fn is_of(&self, certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
        let hash = |content: &[u8]| {
            let algorithm = match self.hash {
                SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                SHA256 => &digest::SHA256,
                SHA384 => &digest::SHA384,
                SHA512 => &digest::SHA512,
                _ => return None,
            };
            Some(digest::digest(algorithm, content))
        };
        let same = |content: &[u8], hashed: &[u8]| {
            hash(content).is_some_and(|digest| digest.as_ref() == hashed)
        };
        // One that only bears the issuer's name may say what it likes.
        certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
            && certificate.issuer().as_raw() == issuer.subject().as_raw()
            && same(issuer.subject().as_raw(), self.issuer_name)
            && same(
                &issuer.public_key().subject_public_key.data,
                self.issuer_key,
            )
            && certificate.raw_serial() == self.serial
    }
}

/// OIDs of hashes, as they stand in DER.
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
const SHA512: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];
/// `id-pkix-ocsp-basic`.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const TIME: u8 = 0x18;

/// A `BasicOCSPResponse`.
struct Basic<'a> {
    signed: &'a [u8],
    algorithm: AlgorithmIdentifier<'a>,
    signature: BitString<'a>,
    certificates: Vec<X509Certificate<'a>>,
    singles: Vec<Single<'a>>,
}

impl<'a> Basic<'a> {
    /// Reads an `OCSPResponse`, or the basic response alone, as CAdES has it.
    fn read(answer: &'a [u8]) -> Result<Self, OcspError> {
        let mut outer = Der(answer).inside(SEQUENCE)?;
        if outer.tag() != Some(ENUMERATED) {
            return Self::alone(answer);
        }
        let status = outer.take(ENUMERATED)?;
        if status != [0] {
            let status = status.last().copied().unwrap_or(u8::MAX);
            return Err(OcspError::Failed { status });
        }
        let mut bytes = outer.inside(0xa0)?.inside(SEQUENCE)?;
        if bytes.take(OID)? != BASIC {
            return Err(unreadable("it is of a type that is not known"));
        }
        Self::alone(bytes.take(OCTETS)?)
    }

    fn alone(der: &'a [u8]) -> Result<Self, OcspError> {
        let mut basic = Der(der).inside(SEQUENCE)?;
        let (signed, mut data) = basic.whole(SEQUENCE)?;
        let (algorithm, _) = basic.whole(SEQUENCE)?;
        let (_, algorithm) = AlgorithmIdentifier::from_der(algorithm)
            .map_err(|_| unreadable("its signature algorithm cannot be read"))?;
        let (signature, _) = basic.whole(0x03)?;
        let (_, signature) = BitString::from_der(signature)
            .map_err(|_| unreadable("its signature cannot be read"))?;
        let mut certificates = Vec::new();
        if basic.tag() == Some(0xa0) {
            let mut list = basic.inside(0xa0)?.inside(SEQUENCE)?;
            while !list.0.is_empty() && certificates.len() < MOST {
                let (certificate, _) = list.whole(SEQUENCE)?;
                let (_, certificate) = X509Certificate::from_der(certificate)
                    .map_err(|_| unreadable("a certificate in it cannot be read"))?;
                certificates.push(certificate);
            }
        }
        if data.tag() == Some(0xa0) {
            data.take(0xa0)?;
        }
        // Who says it, by name or by key: what counts is who has signed it.
        match data.tag() {
            Some(tag @ (0xa1 | 0xa2)) => data.take(tag)?,
            _ => return Err(unreadable("it does not say who its responder is")),
        };
        data.take(TIME)?;
        let mut list = data.inside(SEQUENCE)?;
        let mut singles = Vec::new();
        while !list.0.is_empty() {
            if singles.len() == MOST_SINGLE {
                return Err(unreadable("it speaks of too many certificates"));
            }
            singles.push(Single::read(list.inside(SEQUENCE)?)?);
        }
        Ok(Self {
            signed,
            algorithm,
            signature,
            certificates,
            singles,
        })
    }

    /// Whether it is signed by the issuer, or by one to whom the issuer gave a certificate for this.
    fn is_by(&self, issuer: &X509Certificate<'_>, at: Timestamp) -> bool {
        let signed_by = |key| verify_signature(key, &self.algorithm, &self.signature, self.signed);
        if signed_by(issuer.public_key()).is_ok() {
            return true;
        }
        self.certificates.iter().any(|responder| {
            let may = responder
                .extended_key_usage()
                .is_ok_and(|usage| usage.is_some_and(|usage| usage.value.ocsp_signing));
            let validity = responder.validity();
            let valid = validity.not_before.timestamp() <= at.as_secs()
                && at.as_secs() <= validity.not_after.timestamp();
            may && valid
                && responder.issuer().as_raw() == issuer.subject().as_raw()
                && responder
                    .verify_signature(Some(issuer.public_key()))
                    .is_ok()
                && signed_by(responder.public_key()).is_ok()
        })
    }
}

impl<'a> Single<'a> {
    fn read(mut single: Der<'a>) -> Result<Self, OcspError> {
        let mut id = single.inside(SEQUENCE)?;
        let hash = id.inside(SEQUENCE)?.take(OID)?;
        let id = CertId {
            hash,
            issuer_name: id.take(OCTETS)?,
            issuer_key: id.take(OCTETS)?,
            serial: id.take(INTEGER)?,
        };
        let status = match single.tag() {
            Some(0x80) => {
                single.take(0x80)?;
                Status::Good
            }
            Some(0xa1) => {
                let mut revoked = single.inside(0xa1)?;
                let at = time(revoked.take(TIME)?)?;
                let reason = match revoked.tag() {
                    Some(0xa0) => revoked.inside(0xa0)?.take(ENUMERATED)?.last().copied(),
                    _ => None,
                };
                Status::Revoked(at, RevocationReason(reason))
            }
            Some(0x82) => {
                single.take(0x82)?;
                Status::Unknown
            }
            _ => return Err(unreadable("it says nothing about a certificate")),
        };
        let this_update = time(single.take(TIME)?)?;
        let next_update = match single.tag() {
            Some(0xa0) => Some(time(single.inside(0xa0)?.take(TIME)?)?),
            _ => None,
        };
        Ok(Self {
            id,
            status,
            this_update,
            next_update,
        })
    }
}

/// `YYYYMMDDHHMMSSZ`, as DER wants it.
fn time(text: &[u8]) -> Result<Timestamp, OcspError> {
    let bad = || unreadable("a time in it is not of the form YYYYMMDDHHMMSSZ");
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let digits = text.strip_suffix('Z').filter(|digits| digits.len() == 14);
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let digits = digits.ok_or_else(bad)?;
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    let written = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    );
    written.parse().map_err(|_| bad())
}

/// What is left to read of a DER value. Tags have one byte here, lengths at most three.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element with its head, and its content.
    fn whole(&mut self, tag: u8) -> Result<(&'a [u8], Self), OcspError> {
        let bad = || unreadable("its DER is broken");
        if self.tag() != Some(tag) {
            return Err(unreadable("it is not what RFC 6960 describes"));
        }
        let first = *self.0.get(1).ok_or_else(bad)?;
        let (head, length) = match first {
            0..=0x7f => (2, usize::from(first)),
            0x81..=0x83 => {
                let digits = usize::from(first & 0x7f);
                let digits = self.0.get(2..2 + digits).ok_or_else(bad)?;
                let length = digits
                    .iter()
                    .fold(0, |length, digit| (length << 8) | usize::from(*digit));
                (2 + digits.len(), length)
            }
            _ => return Err(bad()),
        };
        let element = self.0.get(..head + length).ok_or_else(bad)?;
        let content = element.get(head..).ok_or_else(bad)?;
        self.0 = self.0.get(head + length..).unwrap_or_default();
        Ok((element, Self(content)))
    }

    fn take(&mut self, tag: u8) -> Result<&'a [u8], OcspError> {
        Ok(self.whole(tag)?.1.0)
    }

    fn inside(&mut self, tag: u8) -> Result<Self, OcspError> {
        Ok(self.whole(tag)?.1)
    }
}

#[cfg(test)]
mod tests;
