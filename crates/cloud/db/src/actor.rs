use uuid::Uuid;

/// On whose behalf something is done. Every query that people's requests lead to takes one and sees only its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    tenant: Uuid,
    user: Option<Uuid>,
    name: String,
}

impl Actor {
    /// A user, by session or certificate.
    pub fn user(tenant: Uuid, id: Uuid, username: &str) -> Self {
        Self {
            tenant,
            user: Some(id),
            name: format!("user:{username}"),
        }
    }

    /// A Unit that speaks for itself.
    pub fn unit(tenant: Uuid, system_uid: &str) -> Self {
        Self {
            tenant,
            user: None,
            name: format!("unit:{system_uid}"),
        }
    }

    /// The cloud itself.
    pub fn system(tenant: Uuid) -> Self {
        Self {
            tenant,
            user: None,
            name: "system".into(),
        }
    }

    /// Whose things it may see.
    pub fn tenant(&self) -> Uuid {
        self.tenant
    }

    /// Id of the user, if it is one.
    pub fn user_id(&self) -> Option<Uuid> {
        self.user
    }

    /// As audit rows name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn tenant_text(&self) -> String {
        self.tenant.to_string()
    }
}
