/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// There is no such thing, or it belongs to another organisation (the two are not told apart).
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// What it was asked by.
        id: String,
    },
    /// It cannot be done as things are.
    #[error("{why}")]
    Conflict {
        /// What stands against it.
        why: String,
        /// What to do.
        hint: String,
    },
    /// A field of the request breaks a rule.
    #[error("{field}: {why}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The rule it breaks.
        why: String,
    },
    /// A stored value cannot be read: it was written by another version or the file is damaged.
    #[error("stored {what} cannot be read")]
    Corrupt {
        /// Kind of value.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database refused.
    #[error("the database failed at: {doing}")]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// The tables could not be brought to this version.
    #[error(
        "the database could not be migrated; was it written by a newer version of this program?"
    )]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The file could not be made.
    #[error("the database file `{path}` cannot be opened")]
    File {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl DbError {
    pub(crate) fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound {
            what,
            id: id.to_string().chars().take(80).collect(),
        }
    }

    pub(crate) fn conflict(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Conflict {
            why: why.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            why: why.into(),
        }
    }

    pub(crate) fn corrupt(
        what: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Corrupt {
            what,
            source: Box::new(source),
        }
    }
}

/// Gives an error of the database the words for what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, DbError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, DbError> {
        self.map_err(|source| DbError::Sql { doing, source })
    }
}
