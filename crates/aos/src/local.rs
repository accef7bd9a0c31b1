//! How a tool on the Unit speaks to CM: with the main Node's own certificate, which IAM names and only root can read.

use std::path::PathBuf;
use std::time::Duration;

use aos_ipc::proto::iamanager::v6::{
    GetCertRequest, iam_public_cert_service_client::IamPublicCertServiceClient,
};
use aos_ipc::{reason, within};
use aos_pki::{CertKind, CertSource, Expect, Roots};
use clap::Args;
use tonic::transport::Channel;

use crate::failure::{Exit, Failure, OrFail as _};

/// How long a call may take.
pub const CALL: Duration = Duration::from_secs(20);

/// Where CM and IAM of this Unit are.
#[derive(Args)]
pub struct Local {
    /// CM of this Unit.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8093")]
    cm: String,
    /// Public port of the main Node's IAM.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8090")]
    iam: String,
    /// The Unit's root certificate, as IAM keeps it.
    #[arg(long, value_name = "FILE", default_value = "/var/lib/aos/iam/ca.pem")]
    ca: PathBuf,
}

impl Local {
    /// Connects to CM as the main Node.
    pub async fn connect(&self) -> Result<Channel, Failure> {
        let hint = "run this as root on the main Node of a Unit that has joined a cloud";
        let roots = Roots::from_file(&self.ca)
            .or_fail(|| "cannot tell which Unit this is")
            .map_err(|failure| failure.hint(format!("{hint}; --ca says where its ca.pem is")))?;
        let trust = aos_pki::Trust::new(roots);
        let nothing = CertSource::new();
        let expect = Expect::kinds([CertKind::Iam]);
        let tls = aos_pki::unit_client(&nothing, &trust, expect);
        let iam = aos_ipc::connect(&self.iam, &tls)
            .await
            .or_fail(|| format!("cannot talk to IAM at {}", self.iam))
            .map_err(|failure| failure.hint("check --iam").exit(Exit::NotReachable))?;
        let ask = GetCertRequest {
            r#type: CertKind::Cm.as_str().into(),
            ..GetCertRequest::default()
        };
        let named = IamPublicCertServiceClient::new(iam)
            .get_cert(within(CALL, ask))
            .await
            .map_err(|status| {
                Failure::new("IAM names no certificate to show to CM")
                    .why(reason(&status))
                    .hint(hint)
            })?
            .into_inner();
        let pair = aos_pki::load_certified_key(&named.cert_url, &named.key_url)
            .or_fail(|| "cannot read the certificate of this Node")
            .map_err(|failure| failure.hint(hint).exit(Exit::NotAllowed))?;
        let expect = Expect::kinds([CertKind::Cm]).same_unit();
        let tls = aos_pki::unit_client(&CertSource::with(pair), &trust, expect);
        aos_ipc::connect(&self.cm, &tls)
            .await
            .or_fail(|| format!("cannot talk to CM at {}", self.cm))
            .map_err(|failure| failure.hint("check --cm").exit(Exit::NotReachable))
    }
}
