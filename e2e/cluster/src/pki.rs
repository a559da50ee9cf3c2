//! Certificates and keys of a cluster: one authority that signs all of them, and the service accounts' key pair.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::addresses::Slot;
use crate::layout::write_atomically;

/// The node's name.
pub(crate) const NODE_NAME: &str = "node-0";
const AUTHORITY: &str = "ca";

/// Who a certificate is for.
struct Subject {
    file: &'static str,
    name: String,
    group: Option<&'static str>,
    names: Vec<SanType>,
}

/// Path of a certificate.
pub(crate) fn certificate(folder: &Path, file: &str) -> PathBuf {
    folder.join(format!("{file}.crt"))
}

/// Path of a private key.
pub(crate) fn key(folder: &Path, file: &str) -> PathBuf {
    folder.join(format!("{file}.key"))
}

/// Makes everything, unless an earlier run made it to the end.
pub(crate) fn ensure(folder: &Path, slot: Slot) -> Result<()> {
    let done = folder.join("complete");
    if done.exists() {
        return Ok(());
    }
    let authority_key = KeyPair::generate().context("making the authority's key")?;
    let parameters = authority_parameters();
    let authority = parameters.self_signed(&authority_key).context("signing the authority")?;
    write_pair(folder, AUTHORITY, &authority.pem(), &authority_key)?;
    let issuer = Issuer::from_params(&parameters, &authority_key);
    for subject in subjects(slot) {
        sign(folder, &subject, &issuer).with_context(|| format!("certificate {}", subject.file))?;
    }
    let accounts = KeyPair::generate().context("making the service accounts' key")?;
    write_atomically(&key(folder, "service-accounts"), accounts.serialize_pem().as_bytes(), 0o600)?;
    write_atomically(&folder.join("service-accounts.pub"), accounts.public_key_pem().as_bytes(), 0o644)?;
    write_atomically(&done, b"", 0o644)
}

fn authority_parameters() -> CertificateParams {
    let mut parameters = valid_for_years();
    parameters.distinguished_name = distinguished("quartermaster-cluster", None);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    parameters
}

fn valid_for_years() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2060, 1, 1);
    parameters
}

fn subjects(slot: Slot) -> Vec<Subject> {
    let client = |file, name: &str, group| Subject { file, name: name.to_owned(), group, names: Vec::new() };
    let masters = Some("system:masters");
    let mut subjects = vec![
        client("admin", "quartermaster-admin", masters),
        client("kubelet-client", "kube-apiserver-kubelet-client", masters),
        client("controller-manager", "system:kube-controller-manager", None),
        client("scheduler", "system:kube-scheduler", None),
        client("proxy", "system:kube-proxy", None),
        client("front-proxy", "front-proxy-client", None),
    ];
    let addresses = [Ipv4Addr::LOCALHOST, slot.node(), slot.api_service()];
    subjects.push(Subject {
        file: "apiserver",
        name: "kube-apiserver".to_owned(),
        group: None,
        names: server_names(&addresses),
    });
    let node = format!("system:node:{NODE_NAME}");
    let names = vec![SanType::IpAddress(IpAddr::V4(slot.node()))];
    subjects.push(Subject { file: "kubelet", name: node, group: Some("system:nodes"), names });
    subjects
}

fn server_names(addresses: &[Ipv4Addr]) -> Vec<SanType> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let names = names.iter().filter_map(|name| (*name).try_into().ok().map(SanType::DnsName));
    names.chain(addresses.iter().map(|address| SanType::IpAddress(IpAddr::V4(*address)))).collect()
}

fn sign(folder: &Path, subject: &Subject, issuer: &Issuer<'_, &KeyPair>) -> Result<()> {
    let own_key = KeyPair::generate()?;
    let mut parameters = valid_for_years();
    parameters.distinguished_name = distinguished(&subject.name, subject.group);
    parameters.subject_alt_names = subject.names.clone();
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = parameters.signed_by(&own_key, issuer)?;
    write_pair(folder, subject.file, &certificate.pem(), &own_key)
}

fn distinguished(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    if let Some(group) = group {
        distinguished.push(DnType::OrganizationName, group);
    }
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn write_pair(folder: &Path, file: &str, pem: &str, pair: &KeyPair) -> Result<()> {
    write_atomically(&key(folder, file), pair.serialize_pem().as_bytes(), 0o600)?;
    write_atomically(&certificate(folder, file), pem.as_bytes(), 0o644)
}

/// A kubeconfig that holds its certificates itself.
pub(crate) fn kubeconfig(folder: &Path, file: &str, server: &str, name: &str) -> Result<String> {
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("reading {}", path.display()));
    let encode = |bytes: Vec<u8>| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let authority = encode(read(certificate(folder, AUTHORITY))?);
    let own_certificate = encode(read(certificate(folder, file))?);
    let own_key = encode(read(key(folder, file))?);
    Ok(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\nclusters:\n- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {authority}\n\
         users:\n- name: {name}\n  user:\n    client-certificate-data: {own_certificate}\n    client-key-data: {own_key}\n\
         contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_set_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let slot = Slot::choose("x", &[], &[]).unwrap();
        ensure(folder.path(), slot).unwrap();
        let first = fs::read(certificate(folder.path(), "apiserver")).unwrap();
        ensure(folder.path(), slot).unwrap();
        assert_eq!(first, fs::read(certificate(folder.path(), "apiserver")).unwrap());
        assert!(fs::read_to_string(folder.path().join("service-accounts.pub")).unwrap().contains("BEGIN PUBLIC KEY"));
    }

    #[test]
    fn a_kubeconfig_is_one_that_a_client_reads() {
        let folder = tempfile::tempdir().unwrap();
        ensure(folder.path(), Slot::choose("x", &[], &[]).unwrap()).unwrap();
        let text = kubeconfig(folder.path(), "admin", "https://198.18.0.2:6443", "one").unwrap();
        let parsed = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(parsed.current_context.as_deref(), Some("one"));
        assert_eq!(parsed.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://198.18.0.2:6443"));
        assert!(parsed.auth_infos[0].auth_info.as_ref().unwrap().client_key_data.is_some());
    }
}
