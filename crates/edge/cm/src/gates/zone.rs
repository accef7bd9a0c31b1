use aos_time::Zone;
use jiff::tz::TimeZone;

use crate::Error;

/// Where the rules of local time come from.
#[derive(Debug, Clone)]
pub(crate) enum ZoneSource {
    /// A place that is configured.
    Fixed(Zone),
    /// The machine's own setting, which may change.
    Machine,
}

impl ZoneSource {
    /// Looks the place up; without a name it is the machine's.
    pub(crate) fn open(name: Option<&str>) -> Result<Self, Error> {
        let Some(name) = name else {
            return Ok(Self::Machine);
        };
        TimeZone::get(name)
            .map(|zone| Self::Fixed(zone.into()))
            .map_err(|source| Error::TimeZone {
                name: name.into(),
                source,
            })
    }

    /// The rules in force. A machine without any lives by UTC.
    pub(crate) fn now(&self) -> Zone {
        match self {
            Self::Fixed(zone) => zone.clone(),
            Self::Machine => TimeZone::try_system().map_or_else(|_| Zone::utc(), Zone::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_does_not_exist_is_an_error_that_names_it() {
        let error = ZoneSource::open(Some("Middle/Earth")).unwrap_err();
        assert!(error.to_string().contains("Middle/Earth"), "{error}");
        assert!(ZoneSource::open(None).is_ok());
        assert!(ZoneSource::open(Some("UTC")).is_ok());
    }
}
