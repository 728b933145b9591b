//! A certificate authority of our own and a server certificate under it, for nodes that must trust somebody.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

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
    /// Finds the files in `folder`, or makes them for these names and addresses.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn ensure(folder: &Path, names: &[String]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let files = Self {
            ca: folder.join("ca.pem"),
            certificate: folder.join("server.pem"),
            private_key: folder.join("server.key"),
        };
        let names_file = folder.join("names");
        let wanted = names.join("\n");
        let made_for = std::fs::read_to_string(&names_file).unwrap_or_default();
        let complete = [&files.ca, &files.certificate, &files.private_key]
            .iter()
            .all(|file| file.exists());
        if complete && made_for == wanted {
            return Ok(files);
        }
        files.make(names, folder)?;
        std::fs::write(names_file, wanted)?;
        Ok(files)
    }

    /// The authority's key is kept, so that nodes which trust it already go on when the server needs another name.
    fn make(&self, names: &[String], folder: &Path) -> anyhow::Result<()> {
        let ca_key_file = folder.join("ca.key");
        let ca_key = match std::fs::read_to_string(&ca_key_file) {
            Ok(pem) => KeyPair::from_pem(&pem)?,
            Err(_) => KeyPair::generate()?,
        };
        crate::write_private(&ca_key_file, ca_key.serialize_pem().as_bytes())?;
        let mut ca = CertificateParams::default();
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
        Ok(())
    }
}
