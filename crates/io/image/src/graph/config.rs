use aos_types::{ArchInfo, Digest, OsInfo, RuntimeInfo};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Caps, Error, Object, object};

const DOCUMENT: &str = "image config";
/// Longest user or signal.
const MAX_WORD: usize = 256;

/// What an image needs of a runtime, in OCI's names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Platform {
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v8`; empty is any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Such as `linux`; empty is any.
    pub os: String,
    /// Empty is any.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Every one of them must be there.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// Why an image does not run on a runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image needs {what} `{wanted}`, the runtime has `{found}`")]
pub struct Mismatch {
    what: &'static str,
    wanted: String,
    found: String,
}

impl Platform {
    pub(super) fn read(object: &Object<'_>) -> Result<Self, Error> {
        Ok(Self {
            architecture: object.text("architecture")?.unwrap_or_default(),
            variant: object.text("variant")?.unwrap_or_default(),
            os: object.text("os")?.unwrap_or_default(),
            os_version: object.text("os.version")?.unwrap_or_default(),
            os_features: object.texts("os.features")?,
        })
    }

    /// Whether the image runs there: the architecture must be equal, the rest only where the image asks for it. A
    /// platform of which nothing at all is said (the empty config of a component) runs anywhere.
    pub fn check(&self, arch: &ArchInfo, os: &OsInfo) -> Result<(), Mismatch> {
        if *self == Self::default() {
            return Ok(());
        }
        let mismatch = |what, wanted: &str, found: &str| {
            Err(Mismatch {
                what,
                wanted: wanted.to_owned(),
                found: found.to_owned(),
            })
        };
        let asked = |wanted: &str, found: &str| !wanted.is_empty() && wanted != found;
        let variant = arch.variant.as_deref().unwrap_or_default();
        let version = os.version.as_deref().unwrap_or_default();
        if self.architecture != arch.architecture {
            return mismatch("architecture", &self.architecture, &arch.architecture);
        }
        if asked(&self.variant, variant) {
            return mismatch("architecture variant", &self.variant, variant);
        }
        // The bundle's default is written `Linux`, the runtimes say `linux`.
        if asked(&self.os.to_ascii_lowercase(), &os.os.to_ascii_lowercase()) {
            return mismatch("operating system", &self.os, &os.os);
        }
        if asked(&self.os_version, version) {
            return mismatch("operating system version", &self.os_version, version);
        }
        match self
            .os_features
            .iter()
            .find(|feature| !os.features.contains(feature))
        {
            Some(feature) => mismatch("operating system feature", feature, &os.features.join(", ")),
            None => Ok(()),
        }
    }

    /// [`check`](Self::check) against a runtime of a Node.
    pub fn check_runtime(&self, runtime: &RuntimeInfo) -> Result<(), Mismatch> {
        self.check(&runtime.arch, &runtime.os)
    }
}

/// How the process of an image is started, on what, and with which files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// What it runs on.
    pub platform: Platform,
    /// When it was made, RFC 3339; for people.
    pub created: String,
    /// Who made it; for people.
    pub author: String,
    /// `port[/protocol]` the process listens on.
    pub exposed_ports: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The program, before `cmd`.
    pub entrypoint: Vec<String>,
    /// Its arguments, or program and arguments.
    pub cmd: Vec<String>,
    /// Where it starts; empty is `/`.
    pub working_dir: String,
    /// Whom it runs as in the image's own eyes: a name or number, or two with a colon for user and group; empty if the
    /// image does not care.
    pub user: String,
    /// What asks it to end, such as `SIGINT` or `2`; empty is `SIGTERM`.
    pub stop_signal: String,
    /// One a layer, from the lowest: what the unpacked layer is called.
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Reads an image config. The empty blob `{}` of a component is one too.
    pub fn parse(json: &[u8], caps: &Caps) -> Result<Self, Error> {
        let value = object::parse(DOCUMENT, json, caps)?;
        let root = Object::root(DOCUMENT, &value, caps)?;
        let mut config = Self {
            platform: Platform::read(&root)?,
            created: root.text("created")?.unwrap_or_default(),
            author: root.text("author")?.unwrap_or_default(),
            ..Self::default()
        };
        if let Some(process) = root.object("config")? {
            config.exposed_ports = process.keys("exposedPorts")?;
            config.env = process.texts("env")?;
            config.entrypoint = process.texts("entrypoint")?;
            config.cmd = process.texts("cmd")?;
            config.working_dir = process.text("workingDir")?.unwrap_or_default();
            config.user = process.text("user")?.unwrap_or_default();
            config.stop_signal = process.text("stopSignal")?.unwrap_or_default();
            for (key, text) in [("user", &config.user), ("stopSignal", &config.stop_signal)] {
                if text.len() > MAX_WORD || text.contains(|c: char| c.is_control()) {
                    return Err(process.bad_value(key, "is too long or not a word"));
                }
            }
            if let Some(bad) = config.env.iter().position(|entry| {
                entry
                    .split_once('=')
                    .is_none_or(|(name, _)| name.is_empty())
            }) {
                return Err(process.bad_value(&format!("env[{bad}]"), "is not NAME=value"));
            }
            for (key, list) in [
                ("env", &config.env),
                ("entrypoint", &config.entrypoint),
                ("cmd", &config.cmd),
            ] {
                if let Some(bad) = list.iter().position(|text| text.contains('\0')) {
                    return Err(process.bad_value(&format!("{key}[{bad}]"), "holds a zero byte"));
                }
            }
        }
        if let Some(rootfs) = root.object("rootfs")? {
            config.diff_ids = rootfs.digests("diff_ids")?;
        }
        Ok(config)
    }

    /// The document as it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What is executed: entry point, then command.
    pub fn args(&self) -> Vec<String> {
        [self.entrypoint.as_slice(), self.cmd.as_slice()].concat()
    }
}

impl Serialize for ImageConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Process<'a> {
            #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
            exposed_ports: serde_json::Map<String, serde_json::Value>,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            env: &'a [String],
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            entrypoint: &'a [String],
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            cmd: &'a [String],
            #[serde(skip_serializing_if = "str::is_empty")]
            working_dir: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            user: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            stop_signal: &'a str,
        }
        #[derive(Serialize)]
        struct Rootfs<'a> {
            r#type: &'static str,
            diff_ids: &'a [Digest],
        }
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(skip_serializing_if = "str::is_empty")]
            created: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            author: &'a str,
            #[serde(flatten)]
            platform: &'a Platform,
            config: Process<'a>,
            rootfs: Rootfs<'a>,
        }
        if *self == Self::default() {
            return serializer.serialize_map(Some(0))?.end();
        }
        Document {
            created: &self.created,
            author: &self.author,
            platform: &self.platform,
            config: Process {
                exposed_ports: self
                    .exposed_ports
                    .iter()
                    .map(|port| (port.clone(), serde_json::Value::Object(Default::default())))
                    .collect(),
                env: &self.env,
                entrypoint: &self.entrypoint,
                cmd: &self.cmd,
                working_dir: &self.working_dir,
                user: &self.user,
                stop_signal: &self.stop_signal,
            },
            rootfs: Rootfs {
                r#type: "layers",
                diff_ids: &self.diff_ids,
            },
        }
        .serialize(serializer)
    }
}
