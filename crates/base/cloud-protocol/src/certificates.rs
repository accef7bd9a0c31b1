use aos_time::Timestamp;
use aos_types::{
    ErrorInfo, NodeId,
    tolerant::{FieldError, Fields, FromJson},
};
use serde_json::Value;

use crate::{
    Secret,
    envelope::Data,
    identity::{self, codename_json},
    reading::{Element, Named, Reader},
    writing::{Out, ToJson, words},
};

words! {
    /// What a certificate is for.
    CertType = "certificate type" {
        /// Decrypting and identifying without a link.
        Offline = "offline",
        /// The link to the cloud.
        Online = "online",
        /// Update manager.
        Um = "um",
        /// Service manager.
        Sm = "sm",
        /// Communication manager.
        Cm = "cm",
        /// Identity and access manager.
        Iam = "iam",
        /// A device of the host.
        HostDevice = "host-device",
        /// A device reached through the Unit.
        RemoteDevice = "remote-device",
        /// Azure IoT.
        AzureIot = "azure-iot",
    }
}

/// The form of the unit secrets we write, as AosCore names it.
const SECRETS_VERSION: &str = "2.0.0";

/// A certificate that is to be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewCertificate {
    /// For what.
    pub cert_type: CertType,
    /// Of which Node.
    pub node: NodeId,
    /// Its present serial number, in hex.
    pub serial: Option<String>,
    /// When it ends.
    pub valid_till: Option<Timestamp>,
}

/// The password of one Node's key store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSecret {
    /// The Node.
    pub node: NodeId,
    /// The password.
    pub secret: Secret,
}

/// Passwords of the Nodes' key stores, kept by the cloud since provisioning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitSecrets {
    /// One for each Node that has one.
    pub nodes: Vec<NodeSecret>,
}

/// Certificates are to be renewed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RenewCertificatesNotification {
    /// Which.
    pub certificates: Vec<RenewCertificate>,
    /// What opens the key stores.
    pub unit_secrets: UnitSecrets,
}

/// A request to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// For what.
    pub cert_type: CertType,
    /// Of which Node.
    pub node: NodeId,
    /// PKCS#10 in PEM.
    pub csr: String,
}

/// Requests to sign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IssueUnitCertificates {
    /// The requests.
    pub requests: Vec<CertificateRequest>,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// For what.
    pub cert_type: CertType,
    /// Of which Node.
    pub node: NodeId,
    /// PEM, the certificate first.
    pub certificate_chain: String,
}

/// Certificates that were issued.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IssuedUnitCertificates {
    /// The certificates.
    pub certificates: Vec<IssuedCertificate>,
}

/// How installing a certificate went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledCertificate {
    /// For what.
    pub cert_type: CertType,
    /// Of which Node.
    pub node: NodeId,
    /// Its serial number, in hex.
    pub serial: String,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// How installing certificates went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstallUnitCertificatesConfirmation {
    /// The certificates.
    pub certificates: Vec<InstalledCertificate>,
}

impl Element for RenewCertificate {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            cert_type: fields.req("type")?,
            node: identity::node(&fields, "node")?,
            serial: fields.opt("serial")?,
            valid_till: fields.opt("validTill")?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        identity::node(&fields, "node").ok().map(Named::Node)
    }
}

impl ToJson for RenewCertificate {
    fn to_json(&self) -> Value {
        let out = Out::new()
            .put("type", self.cert_type.as_str())
            .put("node", codename_json(self.node.as_str()))
            .opt("serial", self.serial.as_deref());
        match self.valid_till {
            Some(time) => out.time("validTill", time),
            None => out,
        }
        .into()
    }
}

impl FromJson for NodeSecret {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            node: identity::node(&fields, "node")?,
            secret: fields.req("secret")?,
        })
    }
}

impl ToJson for NodeSecret {
    fn to_json(&self) -> Value {
        Out::new()
            .put("node", codename_json(self.node.as_str()))
            .put("secret", self.secret.expose())
            .into()
    }
}

impl FromJson for UnitSecrets {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        // The schema types `nodes` as one object, AosCore as a list. Its `version` is free text and checked by nobody.
        let nodes = match fields.get("nodes") {
            None => Vec::new(),
            Some(Value::Array(list)) => list
                .iter()
                .enumerate()
                .map(|(index, value)| {
                    NodeSecret::from_json(value).map_err(|error| error.at_index(index).at("nodes"))
                })
                .collect::<Result<_, _>>()?,
            Some(one) => vec![NodeSecret::from_json(one).map_err(|error| error.at("nodes"))?],
        };
        Ok(Self { nodes })
    }
}

impl Data for RenewCertificatesNotification {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            certificates: reader.list_or_empty(&fields, "certificates"),
            unit_secrets: reader.part(&fields, "unitSecrets").unwrap_or_default(),
        })
    }

    fn write(&self, out: Out) -> Out {
        let secrets = Out::new()
            .put("version", SECRETS_VERSION)
            .list("nodes", &self.unit_secrets.nodes);
        out.list("certificates", &self.certificates)
            .put("unitSecrets", secrets)
    }
}

impl Element for CertificateRequest {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            cert_type: fields.req("type")?,
            node: identity::node(&fields, "node")?,
            csr: fields.req("csr")?,
        })
    }
}

impl ToJson for CertificateRequest {
    fn to_json(&self) -> Value {
        Out::new()
            .put("type", self.cert_type.as_str())
            .put("node", codename_json(self.node.as_str()))
            .put("csr", self.csr.as_str())
            .into()
    }
}

impl Data for IssueUnitCertificates {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            requests: reader.list_or_empty(&fields, "requests"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.list("requests", &self.requests)
    }
}

impl Element for IssuedCertificate {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            cert_type: fields.req("type")?,
            node: identity::node(&fields, "node")?,
            certificate_chain: fields.req_any(&["certificateChain", "chain"])?,
        })
    }
}

impl ToJson for IssuedCertificate {
    fn to_json(&self) -> Value {
        Out::new()
            .put("type", self.cert_type.as_str())
            .put("node", codename_json(self.node.as_str()))
            .put("certificateChain", self.certificate_chain.as_str())
            .into()
    }
}

impl Data for IssuedUnitCertificates {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            certificates: reader.list_or_empty(&fields, "certificates"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.list("certificates", &self.certificates)
    }
}

impl Element for InstalledCertificate {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            cert_type: fields.req("type")?,
            node: identity::node(&fields, "node")?,
            serial: fields.or_default("serial")?,
            error: fields.opt("errorInfo")?,
        })
    }
}

impl ToJson for InstalledCertificate {
    fn to_json(&self) -> Value {
        Out::new()
            .put("type", self.cert_type.as_str())
            .put("node", codename_json(self.node.as_str()))
            .put("serial", self.serial.as_str())
            .error(self.error.as_ref())
            .into()
    }
}

impl Data for InstallUnitCertificatesConfirmation {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            certificates: reader.list_or_empty(&fields, "certificates"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.list("certificates", &self.certificates)
    }
}
