use aos_types::{
    ErrorInfo, NodeId,
    tolerant::{FieldError, Fields},
};
use serde_json::Value;

use crate::{
    CertType, Secret,
    envelope::Data,
    identity::{self, codename_json},
    reading::{Element, Reader},
    writing::{Out, ToJson},
};

/// A Node that joined later is to make its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartProvisioningRequest {
    /// The Node.
    pub node: NodeId,
    /// The password of its key store.
    pub password: Secret,
}

/// A certificate request of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisioningCsr {
    /// For what.
    pub cert_type: CertType,
    /// PKCS#10 in PEM.
    pub csr: String,
}

/// The answer to [`StartProvisioningRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartProvisioningResponse {
    /// The Node.
    pub node: NodeId,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
    /// Its requests.
    pub csrs: Vec<ProvisioningCsr>,
}

/// A certificate of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisioningCertificate {
    /// For what.
    pub cert_type: CertType,
    /// PEM, the certificate first.
    pub chain: String,
}

/// A Node's first certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishProvisioningRequest {
    /// The Node.
    pub node: NodeId,
    /// Its certificates.
    pub certificates: Vec<ProvisioningCertificate>,
    /// The password of its key store.
    pub password: Secret,
}

/// The answer to [`FinishProvisioningRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishProvisioningResponse {
    /// The Node.
    pub node: NodeId,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// A Node is to forget its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeprovisioningRequest {
    /// The Node.
    pub node: NodeId,
    /// The password of its key store.
    pub password: Secret,
}

/// The answer to [`DeprovisioningRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeprovisioningResponse {
    /// The Node.
    pub node: NodeId,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

impl Element for ProvisioningCsr {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            cert_type: fields.req("type")?,
            csr: fields.req("csr")?,
        })
    }
}

impl ToJson for ProvisioningCsr {
    fn to_json(&self) -> Value {
        Out::new()
            .put("type", self.cert_type.as_str())
            .put("csr", self.csr.as_str())
            .into()
    }
}

impl Element for ProvisioningCertificate {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            cert_type: fields.req("type")?,
            chain: fields.req_any(&["chain", "certificateChain"])?,
        })
    }
}

impl ToJson for ProvisioningCertificate {
    fn to_json(&self) -> Value {
        Out::new()
            .put("type", self.cert_type.as_str())
            .put("chain", self.chain.as_str())
            .into()
    }
}

impl Data for FinishProvisioningRequest {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            node: identity::node(&fields, "node")?,
            certificates: reader.list_or_empty(&fields, "certificates"),
            password: fields.req("password")?,
        })
    }

    fn write(&self, out: Out) -> Out {
        out.put("node", codename_json(self.node.as_str()))
            .list("certificates", &self.certificates)
            .put("password", self.password.expose())
    }
}

impl Data for StartProvisioningResponse {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            node: identity::node(&fields, "node")?,
            error: fields.opt("errorInfo")?,
            csrs: reader.list_or_empty(&fields, "csrs"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.put("node", codename_json(self.node.as_str()))
            .error(self.error.as_ref())
            .list("csrs", &self.csrs)
    }
}

macro_rules! with_password {
    ($($name:ident)*) => {$(
        impl Data for $name {
            fn read(fields: Fields<'_>, _: &mut Reader<'_>) -> Result<Self, FieldError> {
                Ok(Self {
                    node: identity::node(&fields, "node")?,
                    password: fields.req("password")?,
                })
            }

            fn write(&self, out: Out) -> Out {
                out.put("node", codename_json(self.node.as_str()))
                    .put("password", self.password.expose())
            }
        }
    )*};
}

with_password!(StartProvisioningRequest DeprovisioningRequest);

macro_rules! with_error {
    ($($name:ident)*) => {$(
        impl Data for $name {
            fn read(fields: Fields<'_>, _: &mut Reader<'_>) -> Result<Self, FieldError> {
                Ok(Self {
                    node: identity::node(&fields, "node")?,
                    error: fields.opt("errorInfo")?,
                })
            }

            fn write(&self, out: Out) -> Out {
                out.put("node", codename_json(self.node.as_str()))
                    .error(self.error.as_ref())
            }
        }
    )*};
}

with_error!(FinishProvisioningResponse DeprovisioningResponse);
