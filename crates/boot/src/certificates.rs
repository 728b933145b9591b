//! What stands in certificates, and whether osqueryd would take a chain. Nothing is served here, see [`crate::tls`].
//!
//! osqueryd trusts the roots of its `tls_server_certs` alone, verifies names from 4.2 on, and needs the chain to reach a root of that
//! file (`osquery/remote/http_client.cpp`). OpenSSL from 3.2 on refuses RSA below 2048 bits and SHA-1 at its usual security level.

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

/// Signature algorithms that are not to be trusted any more, by their object identifiers (RFC 8017, RFC 5758).
const WEAK_SIGNATURES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
];

/// The least bits of an RSA key.
const LEAST_RSA_BITS: usize = 2048;

/// SHA-256 over the DER of a chain's certificates, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub [u8; 32]);

impl ChainId {
    /// The id of a chain.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'_>]) -> Self {
        let digest = chain.iter().fold(Sha256::new(), Sha256::chain_update);
        Self(digest.finalize().into())
    }
}

/// What stands in one certificate. Names are as their maker wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Details {
    /// Whom it is for, e.g. `CN=fleet.example.com`.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// From when on it holds.
    pub not_before: DateTime<Utc>,
    /// Until when it holds.
    pub not_after: DateTime<Utc>,
    /// DNS names and addresses that it is for.
    pub names: Vec<String>,
    /// Kind and size of its key, e.g. `RSA 2048`.
    pub key: String,
    /// What is weak about key or signature; of a root only the key counts.
    pub weak: Vec<String>,
    /// It signed itself.
    pub self_signed: bool,
    /// SHA-256 of it, as `openssl x509 -fingerprint -sha256` writes it.
    pub fingerprint: String,
}

/// The certificates in a PEM text; keys and anything else in it are passed over.
///
/// # Errors
/// A block is damaged.
pub fn from_pem(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?)
}

/// Writes certificates as PEM.
#[must_use]
pub fn to_pem(chain: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let mut pem = String::new();
    for one in chain {
        let text = base64::engine::general_purpose::STANDARD.encode(one);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

/// SHA-256 of a certificate in the form `AB:CD:…`.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> String {
    let bytes = Sha256::digest(certificate);
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// Reads a certificate; `None` when it is none.
#[must_use]
pub fn details(der: &CertificateDer<'_>) -> Option<Details> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let time = |seconds| DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::UNIX_EPOCH);
    let validity = certificate.validity();
    let self_signed = certificate.subject() == certificate.issuer();
    let (key, weak_key) = key_of(&certificate);
    let mut weak: Vec<String> = weak_key.into_iter().collect();
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    if !self_signed && let Some((_, hash)) = WEAK_SIGNATURES.iter().find(|(id, _)| *id == algorithm)
    {
        weak.push(format!("signed with {hash}"));
    }
    Some(Details {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        not_before: time(validity.not_before.timestamp()),
        not_after: time(validity.not_after.timestamp()),
        names: names_of(&certificate),
        key,
        weak,
        self_signed,
        fingerprint: fingerprint(der),
    })
}

fn key_of(certificate: &X509Certificate<'_>) -> (String, Option<String>) {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => {
            let bits = key.key_size();
            let weak = (bits < LEAST_RSA_BITS).then(|| format!("RSA with only {bits} bits"));
            (format!("RSA {bits}"), weak)
        }
        Ok(PublicKey::EC(point)) => (format!("EC {}", point.key_size()), None),
        Ok(PublicKey::DSA(_)) => ("DSA".to_owned(), Some("a DSA key".to_owned())),
        _ => ("another".to_owned(), None),
    }
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|bytes| IpAddr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| IpAddr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

/// Sets the metric `ostiary_certificate_seconds_left` of a role to the earliest end in a chain; it is negative once that has passed.
pub fn measure(role: &'static str, chain: &[CertificateDer<'_>], now: DateTime<Utc>) {
    let ends = chain
        .iter()
        .filter_map(details)
        .map(|details| details.not_after);
    if let Some(end) = ends.min() {
        metrics::gauge!("ostiary_certificate_seconds_left", "role" => role)
            .set((end - now).as_seconds_f64());
    }
}

/// What osqueryd, or a person, could have against a chain; empty when all is well. `host` is what stands in `tls_hostname`, without
/// the port.
#[must_use]
pub fn problems(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    host: &str,
    now: DateTime<Utc>,
) -> Vec<String> {
    let mut problems = weaknesses(chain, now);
    if roots.is_empty() {
        problems.push(
            "It is not known what nodes trust: [manager] ca_certificate names no file.".to_owned(),
        );
    } else if let Some(problem) = verify(chain, roots, host, now) {
        problems.push(problem);
    }
    problems
}

/// What is wrong with a chain whoever looks at it: weak keys and signatures, and certificates that do not hold now.
#[must_use]
pub fn weaknesses(chain: &[CertificateDer<'_>], now: DateTime<Utc>) -> Vec<String> {
    let mut found = Vec::new();
    for details in chain.iter().filter_map(details) {
        found.extend(
            details
                .weak
                .iter()
                .map(|weak| format!("{}: {weak}.", details.subject)),
        );
        if details.not_after <= now {
            found.push(format!(
                "{} has expired: no node can connect.",
                details.subject
            ));
        } else if details.not_before > now {
            found.push(format!(
                "{} does not hold yet: no node can connect.",
                details.subject
            ));
        }
    }
    found
}

/// By which key a chain is trusted: the issuer of its last certificate, by name and key identifier, or that certificate itself when
/// it signed itself. Chains of the same anchor are accepted by the same nodes.
#[must_use]
pub fn anchor(chain: &[CertificateDer<'_>]) -> Option<String> {
    let (_, last) = X509Certificate::from_der(chain.last()?).ok()?;
    let own = |extension: &ParsedExtension<'_>| match extension {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(hex::encode(key.0)),
        _ => None,
    };
    let issuers = |extension: &ParsedExtension<'_>| match extension {
        ParsedExtension::AuthorityKeyIdentifier(key) => {
            key.key_identifier.as_ref().map(|key| hex::encode(key.0))
        }
        _ => None,
    };
    let extensions = last
        .extensions()
        .iter()
        .map(X509Extension::parsed_extension);
    let key = if last.subject() == last.issuer() {
        extensions.clone().find_map(own)
    } else {
        extensions.clone().find_map(issuers)
    };
    Some(format!("{} {}", last.issuer(), key.unwrap_or_default()))
}

fn verify(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    host: &str,
    now: DateTime<Utc>,
) -> Option<String> {
    let (leaf, intermediates) = chain.split_first()?;
    if roots.contains(leaf) {
        // OpenSSL takes a leaf that is itself in the bundle; webpki would not.
        let names = details(leaf)
            .map(|details| details.names)
            .unwrap_or_default();
        let named = names.iter().any(|name| name.eq_ignore_ascii_case(host));
        return (!named).then(|| not_named(host, &names));
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().map(|root| root.clone().into_owned()));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
    let Ok(verifier) = verifier else {
        return Some("The bundle that nodes get holds no root that can be read.".to_owned());
    };
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        return Some(format!(
            "[public] api_host: {host} is no name that a certificate could be for."
        ));
    };
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let verified = verifier.verify_server_cert(leaf, intermediates, &name, &[], at);
    match verified {
        Ok(_) => None,
        Err(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            let names = details(leaf)
                .map(|details| details.names)
                .unwrap_or_default();
            Some(not_named(host, &names))
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            Some(unknown_issuer(chain))
        }
        // Said already, in clearer words.
        Err(rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => None,
        Err(other) => Some(format!("The chain does not hold: {other}.")),
    }
}

fn not_named(host: &str, names: &[String]) -> String {
    let names = if names.is_empty() {
        "nobody".to_owned()
    } else {
        names.join(", ")
    };
    format!("It is for {names}, but nodes connect to {host}: from osquery 4.2 on they refuse.")
}

fn unknown_issuer(chain: &[CertificateDer<'_>]) -> String {
    let issuer = chain
        .last()
        .and_then(details)
        .map(|details| details.issuer)
        .unwrap_or_default();
    let hint = if chain.len() == 1 {
        " Is an intermediate certificate missing in the file?"
    } else {
        ""
    };
    format!(
        "The chain ends at {issuer}, and no root of the bundle that nodes get has signed that.{hint}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, issuer).unwrap().der().clone()
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    #[test]
    fn a_chain_that_nodes_take_has_no_problems_and_others_have_theirs_named() {
        let (ours, other) = (issuer("our root"), issuer("another root"));
        let root = ours.der().clone();
        let chain = [leaf(&ours, &["fleet.example.com", "10.0.0.1"])];
        for host in ["fleet.example.com", "10.0.0.1"] {
            assert_eq!(
                problems(&chain, std::slice::from_ref(&root), host, now()),
                Vec::<String>::new()
            );
        }
        let said = |roots: &[CertificateDer<'_>], host: &str, at| {
            problems(&chain, roots, host, at).concat()
        };
        assert!(said(&[], "fleet.example.com", now()).contains("ca_certificate names no file"));
        assert!(
            said(std::slice::from_ref(&root), "other.example.com", now())
                .contains("nodes connect to other.example.com")
        );
        let unknown = said(&[other.der().clone()], "fleet.example.com", now());
        assert!(
            unknown.contains("CN=our root") && unknown.contains("intermediate"),
            "{unknown}"
        );
        let late = now() + TimeDelta::days(1_000_000);
        assert!(
            said(std::slice::from_ref(&root), "fleet.example.com", late).contains("has expired")
        );
        // During a rotation the bundle holds both.
        assert_eq!(
            said(&[other.der().clone(), root], "fleet.example.com", now()),
            ""
        );
    }

    #[test]
    fn a_self_signed_certificate_that_is_itself_in_the_bundle_is_fine() {
        let own = rcgen::generate_simple_self_signed(vec!["fleet.example.com".to_owned()]).unwrap();
        let der = own.cert.der().clone();
        let chain = [der];
        assert_eq!(
            problems(&chain, &chain, "fleet.example.com", now()),
            Vec::<String>::new()
        );
        assert_eq!(problems(&chain, &chain, "x.example.com", now()).len(), 1);
    }

    #[test]
    fn a_certificate_tells_its_names_its_key_and_its_end() {
        let ours = issuer("our root");
        let read = details(&leaf(&ours, &["fleet.example.com", "::1"])).unwrap();
        assert_eq!(
            (read.subject.as_str(), read.issuer.as_str()),
            ("CN=leaf", "CN=our root")
        );
        assert_eq!(read.names, ["fleet.example.com", "::1"]);
        assert_eq!((read.key.as_str(), read.self_signed), ("EC 256", false));
        assert!(read.weak.is_empty() && read.not_before < read.not_after);
        assert!(details(&CertificateDer::from(vec![1, 2, 3])).is_none());
    }

    #[test]
    fn pem_is_read_and_written_and_a_key_in_it_passed_over() {
        let one = [issuer("our root").der().clone()];
        let two = [one[0].clone(), one[0].clone()];
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{}",
            to_pem(&one)
        );
        assert_eq!(from_pem(pem.as_bytes()).unwrap(), one);
        assert_ne!(ChainId::of(&one), ChainId::of(&two));
    }

    #[test]
    fn a_weak_key_and_a_weak_signature_are_named() {
        let weak = from_pem(include_bytes!("../tests/weak.pem")).unwrap();
        let read = details(&weak[0]).unwrap();
        assert_eq!(read.key, "RSA 1024");
        assert_eq!(read.weak, ["RSA with only 1024 bits", "signed with SHA-1"]);
    }
}
