//! How a tool on the Unit speaks to CM: over its socket, or with the main Node's own certificate, which IAM names and only
//! root can read.

use std::path::{Path, PathBuf};
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

/// Where CM of this Unit is: at its socket, or, if one of the others is named, where its Node's certificate opens it.
#[derive(Args)]
pub struct Local {
    /// The socket of this machine's CM.
    #[arg(long, value_name = "FILE", default_value = "/run/aos/cm.sock")]
    socket: PathBuf,
    /// CM of this Unit, over the network [default: 127.0.0.1:8093].
    #[arg(long, value_name = "HOST:PORT")]
    cm: Option<String>,
    /// Public port of the main Node's IAM [default: 127.0.0.1:8090].
    #[arg(long, value_name = "HOST:PORT")]
    iam: Option<String>,
    /// The Unit's root certificate, as IAM keeps it [default: /var/lib/aos/iam/ca.pem].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Local {
    /// Connects to CM: by its socket if that is there, else as the main Node.
    pub async fn connect(&self) -> Result<Channel, Failure> {
        let by_network = self.cm.is_some() || self.iam.is_some() || self.ca.is_some();
        if by_network {
            return self.connect_by_network().await;
        }
        match aos_ipc::connect_local(&self.socket).await {
            Ok(channel) => Ok(channel),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(
                Failure::new(format!("may not use {}", self.socket.display()))
                    .why(error.to_string())
                    .hint("run this as root, or as a user of the group `aos`")
                    .exit(Exit::NotAllowed),
            ),
            // An older CM has none, and one that is elsewhere has it elsewhere.
            Err(_) => self.connect_by_network().await,
        }
    }

    async fn connect_by_network(&self) -> Result<Channel, Failure> {
        let cm = self.cm.as_deref().unwrap_or("127.0.0.1:8093");
        let iam_at = self.iam.as_deref().unwrap_or("127.0.0.1:8090");
        let ca = Path::new("/var/lib/aos/iam/ca.pem");
        let ca = self.ca.as_deref().unwrap_or(ca);
        let hint = "run this as root on the main Node of a Unit that has joined a cloud";
        let roots = Roots::from_file(ca)
            .or_fail(|| "cannot tell which Unit this is")
            .map_err(|failure| failure.hint(format!("{hint}; --ca says where its ca.pem is")))?;
        let trust = aos_pki::Trust::new(roots);
        let nothing = CertSource::new();
        let expect = Expect::kinds([CertKind::Iam]);
        let tls = aos_pki::unit_client(&nothing, &trust, expect);
        let iam = aos_ipc::connect(iam_at, &tls)
            .await
            .or_fail(|| format!("cannot talk to IAM at {iam_at}"))
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
        aos_ipc::connect(cm, &tls)
            .await
            .or_fail(|| format!("cannot talk to CM at {cm}"))
            .map_err(|failure| failure.hint("check --cm").exit(Exit::NotReachable))
    }
}
