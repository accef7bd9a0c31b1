//! Certificates of a Unit that are renewed: the order, the certificates, and what the Unit says of them.

use aos_api::{Severity, TimelineKind};
use aos_cloud_protocol::{
    Body, CertType, CertificateRequest, InstallUnitCertificatesConfirmation, IssueUnitCertificates,
    IssuedCertificate, IssuedUnitCertificates, Message, NodeSecret, RenewCertificate,
    RenewCertificatesNotification, Secret, UnitSecrets,
};
use aos_db::{Happening, Installed, LinkWrite, RenewalOrder};
use aos_pki::{AuthorityError, CertKind, CertProfile};
use aos_session::{Input, Keep, Priority};
use aos_time::Clock as _;
use aos_types::NodeId;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Link, LinkError};

/// A newer order replaces an older one that still waits.
const TOPIC: &str = "renewal";
/// Most requests of one message that are dealt with.
const REQUESTS: usize = 512;

/// What was issued for one request: for the store, the hash of its key, and for the Unit.
type Made = (aos_db::IssuedCertificate, String, IssuedCertificate);

/// A certificate is not issued.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("its renewal was not ordered, or it was issued already")]
    NotOrdered,
    #[error("a Unit has no certificates of this type")]
    Kind,
    #[error("{0}")]
    Request(#[from] AuthorityError),
    #[error("the certificate made for it has no key that could be read")]
    Key,
}

impl Link {
    /// Puts the order into the outbox, if there is one that the Unit was not told of or did not follow.
    pub(super) async fn queue_renewal(&mut self) -> Result<(), LinkError> {
        let db = self.shared.options.db.clone();
        let order = db.renewal_to_send(self.unit).await?;
        let notification = notification(&order);
        if notification.certificates.is_empty() {
            return Ok(());
        }
        let txn = Uuid::new_v4().to_string();
        let message = Message {
            header: self.header(txn.clone()),
            correlation_id: None,
            body: Body::RenewCertificatesNotification(notification),
        };
        let now = self.steady.now();
        self.session.handle(
            now,
            Input::Send(aos_session::Message {
                txn,
                payload: message.encode().into(),
                priority: Priority::High,
                keep: Keep::Durable,
                topic: Some(TOPIC.into()),
            }),
        );
        let records = self.records_ahead();
        db.renewal_sent(self.unit, &order, &records).await?;
        Ok(())
    }

    /// Issues what was ordered, stores it, and sends it. The certificates say what the order says, whatever the requests do.
    pub(super) async fn issue(
        &mut self,
        correlation_id: Option<String>,
        request: IssueUnitCertificates,
        records: &LinkWrite,
    ) -> Result<(), LinkError> {
        let db = self.shared.options.db.clone();
        let (mut stored, mut certificates, mut events) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = std::collections::BTreeSet::new();
        for request in request.requests.into_iter().take(REQUESTS) {
            let (node, kind) = (request.node.clone(), request.cert_type);
            let ordered = db
                .may_issue(self.unit, node.as_str(), kind.as_str())
                .await?;
            let made = match ordered && seen.insert((node.clone(), kind)) {
                true => self.sign(request).await,
                false => Err(Refused::NotOrdered),
            };
            match made {
                Ok((row, key, certificate)) => {
                    stored.push((row, key));
                    certificates.push(certificate);
                }
                Err(error) => {
                    let text =
                        format!("no certificate `{kind}` was issued to Node {node}: {error}");
                    events.push(Happening::new(TimelineKind::Unit, Severity::Error, text));
                }
            }
        }
        db.note(self.unit, &events, &LinkWrite::default()).await?;
        db.renewal_issued(self.unit, &stored, records).await?;
        if !certificates.is_empty() {
            let body = Body::IssuedUnitCertificates(IssuedUnitCertificates { certificates });
            self.send(correlation_id, body, Keep::Durable);
        }
        Ok(())
    }

    async fn sign(&mut self, request: CertificateRequest) -> Result<Made, Refused> {
        let kind = kind_of(request.cert_type).ok_or(Refused::Kind)?;
        let authority = self.shared.options.authority.clone();
        let mut profile = CertProfile::unit(kind, &self.system_id, Some(&request.node));
        if kind == CertKind::Online {
            profile
                .discovery_urls
                .clone_from(&self.shared.options.discovery_urls);
        }
        let now = self.now();
        // Signing takes long enough to be kept off the threads that serve connections.
        let made = tokio::task::spawn_blocking(move || {
            let issued = authority.issue(&request.csr, &profile, now)?;
            let key = aos_pki::public_key_of(&issued.certificate).ok_or(Refused::Key)?;
            let row = aos_db::IssuedCertificate {
                fingerprint: issued.fingerprint.to_string(),
                cert_type: kind.to_string(),
                node_id: request.node.to_string(),
                serial: issued.serial,
                not_after: issued.not_after,
                // Keys of blobs are wrapped for it.
                public_key: (kind == CertKind::Offline).then(|| key.clone()),
            };
            let certificate = IssuedCertificate {
                cert_type: request.cert_type,
                node: request.node,
                certificate_chain: issued.chain_pem,
            };
            Ok((row, hex::encode(Sha256::digest(&key)), certificate))
        });
        // It only fails when the program goes down; then the order is repeated.
        made.await.unwrap_or(Err(Refused::NotOrdered))
    }
}

/// The types that Units have.
const fn kind_of(cert_type: CertType) -> Option<CertKind> {
    Some(match cert_type {
        CertType::Online => CertKind::Online,
        CertType::Offline => CertKind::Offline,
        CertType::Iam => CertKind::Iam,
        CertType::Cm => CertKind::Cm,
        CertType::Sm => CertKind::Sm,
        CertType::Um => CertKind::Um,
        CertType::HostDevice | CertType::RemoteDevice | CertType::AzureIot => return None,
    })
}

/// The order as it is sent; what a Unit could not read is left out.
fn notification(order: &RenewalOrder) -> RenewCertificatesNotification {
    let certificates = order.certificates.iter().filter_map(|one| {
        Some(RenewCertificate {
            cert_type: one.cert_type.parse().ok()?,
            node: NodeId::new(&one.node_id).ok()?,
            serial: Some(one.serial.clone()),
            valid_till: Some(one.not_after),
        })
    });
    let certificates: Vec<RenewCertificate> = certificates.collect();
    let nodes = order.secrets.iter().filter_map(|(node, secret)| {
        let node = NodeId::new(node).ok()?;
        let concerned = certificates.iter().any(|one| one.node == node);
        concerned.then(|| NodeSecret {
            node,
            secret: Secret::new(secret.clone()),
        })
    });
    RenewCertificatesNotification {
        unit_secrets: UnitSecrets {
            nodes: nodes.collect(),
        },
        certificates,
    }
}

/// What the Unit says of its certificates, in the words of the store.
pub(super) fn installed(said: InstallUnitCertificatesConfirmation) -> Vec<Installed> {
    let said = said.certificates.into_iter().take(REQUESTS);
    said.map(|one| Installed {
        cert_type: one.cert_type.to_string(),
        node_id: one.node.to_string(),
        serial: one.serial,
        error: one.error,
    })
    .collect()
}
