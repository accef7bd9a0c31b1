use std::fmt;

use aos_time::Timestamp;
use aos_types::{
    Digest, ErrorInfo,
    tolerant::{FieldError, Fields, FromJson},
};
use serde_json::Value;

use crate::{
    binary::{self, Base64, to_base64},
    envelope::Data,
    reading::{Element, Named, Reader},
    writing::{Out, ToJson},
};

/// Asks where blobs can be fetched. The answer carries the same correlation id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestBlobUrls {
    /// Digests of the plain blobs.
    pub digests: Vec<Digest>,
}

/// The hash of a file as it is transferred: SHA3-256 to AosCore, SHA-256 to the schema, so a receiver accepts either.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileHash(pub [u8; 32]);

impl fmt::Debug for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// How a transferred file is decrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct DecryptInfo {
    /// `<cipher>/<mode>/<padding>`, such as `AES256/CBC/pkcs7` or `AES256/GCM/`.
    pub block_alg: String,
    /// The initialisation vector.
    pub block_iv: Vec<u8>,
    /// The key. It is a secret, unless it is wrapped.
    pub block_key: Vec<u8>,
    /// How the key is wrapped for the Unit's `offline` certificate, such as `RSA/PKCS1v1_5` or `RSA/OAEP-256`. Absent: it is
    /// plain, protected by TLS alone, as in version 7.
    pub asym_alg: Option<String>,
    /// For which certificate it is wrapped; absent: for the present one.
    pub receiver: Option<KeyReceiver>,
}

/// Names the certificate whose key unwraps a content key (`receiverInfo` of version 6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyReceiver {
    /// Serial number in hex.
    pub serial: String,
    /// The issuer as a DER name; empty is any.
    pub issuer: Vec<u8>,
}

impl fmt::Debug for DecryptInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptInfo")
            .field("block_alg", &self.block_alg)
            .field("block_key", &"(secret)")
            .finish_non_exhaustive()
    }
}

/// How the decrypted file is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInfo {
    /// The certificate chain, by the name in `desiredStatus`.
    pub chain_name: String,
    /// `RSA/SHA256`, `EC/SHA256`, with an optional padding as third part.
    pub alg: String,
    /// The signature.
    pub value: Vec<u8>,
    /// The moment at which the chain must be valid; `None`: now.
    pub trusted_timestamp: Option<Timestamp>,
    /// OCSP answers (DER) in base64.
    pub ocsp_values: Vec<String>,
}

/// Where one blob can be fetched. The addresses carry tokens, so they are not shown by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct BlobUrl {
    /// The digest of the plain blob.
    pub digest: Digest,
    /// In order of preference.
    pub urls: Vec<String>,
    /// The hash of the transferred file.
    pub sha256: FileHash,
    /// The length of the transferred file in bytes.
    pub size: u64,
    /// Absent: not encrypted.
    pub decrypt_info: Option<DecryptInfo>,
    /// Absent: not signed.
    pub sign_info: Option<SignInfo>,
}

impl fmt::Debug for BlobUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobUrl")
            .field("digest", &self.digest)
            .field("urls", &self.urls.len())
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// A blob that is known and cannot be delivered for the time being.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// The digest of the plain blob.
    pub digest: Digest,
    /// Why.
    pub error: ErrorInfo,
}

/// The answer to [`RequestBlobUrls`]. A digest that is not in it is not known or not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlobUrls {
    /// One for each blob.
    pub items: Vec<BlobUrl>,
    /// What is known and cannot be delivered. AosCloud does not say this; to a reader that does not know it these digests are
    /// merely missing.
    pub undelivered: Vec<Undelivered>,
}

/// A digest that stands by itself in a list.
struct Wanted(Digest);

impl Element for Wanted {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        Digest::from_json(value).map(Self)
    }
}

impl Data for RequestBlobUrls {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            digests: reader
                .list_or_empty::<Wanted>(&fields, "digests")
                .into_iter()
                .map(|wanted| wanted.0)
                .collect(),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.list("digests", &self.digests)
    }
}

impl FromJson for FileHash {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        binary::hash(value).map(Self)
    }
}

impl FromJson for DecryptInfo {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            block_alg: fields
                .opt("blockAlg")?
                .unwrap_or_else(|| "AES256/CBC/pkcs7".into()),
            block_iv: binary::bytes(&fields, "blockIv")?.unwrap_or_default(),
            block_key: fields.req::<Base64>("blockKey")?.0,
            asym_alg: fields
                .opt::<String>("asymAlg")?
                .filter(|alg| !alg.is_empty()),
            receiver: fields.opt("receiverInfo")?,
        })
    }
}

impl FromJson for KeyReceiver {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            serial: fields.or_default("serial")?,
            issuer: binary::bytes(&fields, "issuer")?.unwrap_or_default(),
        })
    }
}

impl ToJson for KeyReceiver {
    fn to_json(&self) -> Value {
        Out::new()
            .put("serial", self.serial.as_str())
            .put("issuer", to_base64(&self.issuer))
            .into()
    }
}

impl ToJson for DecryptInfo {
    fn to_json(&self) -> Value {
        Out::new()
            .put("blockAlg", self.block_alg.as_str())
            .put("blockIv", to_base64(&self.block_iv))
            .put("blockKey", to_base64(&self.block_key))
            .opt("asymAlg", self.asym_alg.clone().map(Value::from))
            .opt("receiverInfo", self.receiver.as_ref().map(ToJson::to_json))
            .into()
    }
}

impl FromJson for SignInfo {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            chain_name: fields.req("chainName")?,
            alg: fields.req("alg")?,
            value: fields.req::<Base64>("value")?.0,
            trusted_timestamp: fields.opt("trustedTimestamp")?,
            ocsp_values: fields.or_default("ocspValues")?,
        })
    }
}

impl ToJson for SignInfo {
    fn to_json(&self) -> Value {
        let out = Out::new()
            .put("chainName", self.chain_name.as_str())
            .put("alg", self.alg.as_str())
            .put("value", to_base64(&self.value));
        let out = match self.trusted_timestamp {
            Some(time) => out.time("trustedTimestamp", time),
            None => out,
        };
        out.filled_list("ocspValues", &self.ocsp_values).into()
    }
}

impl Element for BlobUrl {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let urls: Vec<String> = fields.req("urls")?;
        if urls.is_empty() {
            return Err(FieldError::new("is empty").at("urls"));
        }
        Ok(Self {
            digest: fields.req("digest")?,
            urls,
            sha256: fields.req("sha256")?,
            size: fields.req("size")?,
            decrypt_info: fields.opt("decryptInfo")?,
            sign_info: fields.opt("signInfo")?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        fields.opt("digest").ok().flatten().map(Named::Name)
    }
}

impl ToJson for BlobUrl {
    fn to_json(&self) -> Value {
        Out::new()
            .put("digest", self.digest.to_string())
            .put("urls", self.urls.clone())
            // Hex, because AosCore compares it as text; the schema would take base64.
            .put("sha256", hex::encode(self.sha256.0))
            .put("size", self.size)
            .opt(
                "decryptInfo",
                self.decrypt_info.as_ref().map(ToJson::to_json),
            )
            .opt("signInfo", self.sign_info.as_ref().map(ToJson::to_json))
            .into()
    }
}

impl Element for Undelivered {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            digest: fields.req("digest")?,
            error: fields.req("errorInfo")?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        fields.opt("digest").ok().flatten().map(Named::Name)
    }
}

impl ToJson for Undelivered {
    fn to_json(&self) -> Value {
        Out::new()
            .put("digest", self.digest.to_string())
            .error(Some(&self.error))
            .into()
    }
}

impl Data for BlobUrls {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            items: reader.list_or_empty(&fields, "items"),
            undelivered: reader.list_or_empty(&fields, "undelivered"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.list("items", &self.items)
            .filled_list("undelivered", &self.undelivered)
    }
}
