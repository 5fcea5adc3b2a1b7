//! TLS, on listeners and to endpoints: rustls with ring.

use crate::config::{ClusterTls, ListenerTls};
use buttress::ConfigError;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{path::Path, sync::Arc};
use tokio_rustls::TlsAcceptor;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a listener's connections begin with.
pub(crate) fn acceptor(config: &ListenerTls) -> Result<TlsAcceptor, ConfigError> {
    let chain = certificates(&config.certificate)
        .map_err(|(value, allowed)| ConfigError::new("certificate", value, allowed))?;
    let wrong_key = |why: String| {
        ConfigError::new(
            "key",
            config.key.display(),
            format!("a file that holds the certificate's private key in PEM: {why}"),
        )
    };
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| wrong_key(error.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong_key(error.to_string()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// What connections to a cluster's endpoints are made by: HTTPS where `config` says so, HTTP otherwise.
pub(crate) fn connector(
    config: Option<&ClusterTls>,
    http: HttpConnector,
    http2: bool,
) -> Result<HttpsConnector<HttpConnector>, ConfigError> {
    let roots = config.map_or_else(|| Ok(RootCertStore::empty()), roots)?;
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new().with_tls_config(client).https_or_http();
    let builder = match config.and_then(|config| config.server_name.as_ref()) {
        Some(name) => {
            let name = ServerName::try_from(name.clone())
                .map_err(|_| ConfigError::new("server_name", format!("{name:?}"), "a host name or an IP"))?;
            builder.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => builder,
    };
    Ok(match http2 {
        true => builder.enable_http2().wrap_connector(http),
        false => builder.enable_http1().wrap_connector(http),
    })
}

/// The authorities that are believed.
pub(crate) fn roots(config: &ClusterTls) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &config.ca else {
        let found = rustls_native_certs::load_native_certs();
        return match roots.add_parsable_certificates(found.certs) {
            (0, _) => Err(ConfigError::new("ca", "not set", "a file: this system has no authorities of its own")),
            _ => Ok(roots),
        };
    };
    let wrong = |value, allowed| ConfigError::new("ca", value, allowed);
    for certificate in certificates(path).map_err(|(value, allowed)| wrong(value, allowed))? {
        let added = roots.add(certificate);
        added.map_err(|error| wrong(path.display().to_string(), format!("certificates of authorities: {error}")))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, (String, String)> {
    let wrong = |why: String| (path.display().to_string(), format!("a file that holds certificates in PEM: {why}"));
    let all = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("there is none in it".to_owned())) } else { Ok(all) }
}
