//! A certificate authority of our own and a server certificate under it, for nodes that must trust somebody.

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

/// How long the server's certificate lasts: no longer than systems accept that shorten what they trust (398 days, Apple's limit).
const SERVER_LASTS: TimeDelta = TimeDelta::days(397);

/// How long the authority's lasts.
const CA_LASTS: TimeDelta = TimeDelta::days(3650);

/// The server's is made anew when less is left: sooner than anything warns of it.
const RENEWED_BEFORE: TimeDelta = TimeDelta::days(30);

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// What nodes trust.
    pub ca: PathBuf,
    /// The server's chain.
    pub certificate: PathBuf,
    /// The server's key.
    pub private_key: PathBuf,
}

impl Certificates {
    /// Finds the files in `folder`, or makes them for these names and addresses. A certificate that soon ends is made anew.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn ensure(folder: &Path, names: &[String]) -> anyhow::Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "certificates are for the clock of this machine, by which everybody here judges them"
        )]
        let now = chrono::Utc::now();
        Self::ensure_at(folder, names, now)
    }

    fn ensure_at(folder: &Path, names: &[String], now: DateTime<Utc>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let files = Self {
            ca: folder.join("ca.pem"),
            certificate: folder.join("server.pem"),
            private_key: folder.join("server.key"),
        };
        let names_file = folder.join("names");
        let wanted = names.join("\n");
        let made = std::fs::read_to_string(&names_file).unwrap_or_default();
        let (ends, made_for) = made.split_once('\n').unwrap_or_default();
        let lasts = ends
            .parse::<DateTime<Utc>>()
            .is_ok_and(|ends| ends - now > RENEWED_BEFORE);
        let complete = [&files.ca, &files.certificate, &files.private_key]
            .iter()
            .all(|file| file.exists());
        if complete && lasts && made_for == wanted {
            return Ok(files);
        }
        let ends = files.make(names, folder, now)?;
        std::fs::write(names_file, format!("{}\n{wanted}", ends.to_rfc3339()))?;
        Ok(files)
    }

    /// The authority's key is kept, so that nodes which trust it already go on when the server needs another name or more time. Gives
    /// the end of the server's certificate.
    fn make(
        &self,
        names: &[String],
        folder: &Path,
        now: DateTime<Utc>,
    ) -> anyhow::Result<DateTime<Utc>> {
        let ca_key_file = folder.join("ca.key");
        let ca_key = match std::fs::read_to_string(&ca_key_file) {
            Ok(pem) => KeyPair::from_pem(&pem)?,
            Err(_) => KeyPair::generate()?,
        };
        crate::write_private(&ca_key_file, ca_key.serialize_pem().as_bytes())?;
        // Since yesterday: the clock of a node may be behind.
        let begins = now - TimeDelta::days(1);
        let mut ca = CertificateParams::default();
        (ca.not_before, ca.not_after) = (date(begins), date(begins + CA_LASTS));
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "Ostiary development CA");
        ca.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let ca = CertifiedIssuer::self_signed(ca, ca_key)?;
        let mut server = CertificateParams::new(names.to_vec())?;
        let ends = begins + SERVER_LASTS;
        (server.not_before, server.not_after) = (date(begins), date(ends));
        server.distinguished_name.push(
            DnType::CommonName,
            names.first().map_or("localhost", String::as_str),
        );
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &ca)?;
        crate::write_private(&self.private_key, key.serialize_pem().as_bytes())?;
        std::fs::write(&self.certificate, certificate.pem())?;
        std::fs::write(&self.ca, ca.pem())?;
        Ok(ends)
    }
}

fn date(at: DateTime<Utc>) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.timestamp()).expect("it is within a few years of now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_anew_a_month_before_it_ends_or_for_another_name() {
        let folder = std::env::temp_dir().join(format!("ostiary-tls-{}", std::process::id()));
        let begin: DateTime<Utc> = "2026-11-21T10:00:00Z".parse().unwrap();
        let served = |name: &str, days: i64| {
            let now = begin + TimeDelta::days(days);
            let files = Certificates::ensure_at(&folder, &[name.to_owned()], now).unwrap();
            std::fs::read_to_string(files.certificate).unwrap()
        };
        let first = served("localhost", 0);
        assert_eq!(first, served("localhost", 365));
        let renewed = served("localhost", 367);
        assert_ne!(first, renewed, "less than 30 days are left");
        assert_eq!(renewed, served("localhost", 600));
        let other = served("example.com", 600);
        assert_ne!(renewed, other);
        // As they were written before ends were kept.
        std::fs::write(folder.join("names"), "example.com").unwrap();
        assert_ne!(other, served("example.com", 600));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
