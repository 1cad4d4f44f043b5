//! The files with certificates and keys, read before the driver does.
//!
//! The driver skips certificates that it cannot read, and names no file for a wrong key.

use std::{io, path::Path};

use mongodb::options::TlsOptions;
use queue_api::Error;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::operation::{OPERATION, invalid};
use crate::store::retry::Deadline;

/// More than any of them needs. The bundle of AWS has 160 KiB.
const MAX_BYTES: u64 = 16 << 20;

/// Checks the files of these options. Reading may block, as on a network drive.
pub(crate) async fn check(tls: &TlsOptions, deadline: Deadline) -> Result<(), Error> {
    let ca_file = tls.ca_file_path.clone();
    let client_file = tls.cert_key_file_path.clone();
    let checking = tokio::task::spawn_blocking(move || {
        ca_file.as_deref().map_or(Ok(()), check_ca_file)?;
        client_file.as_deref().map_or(Ok(()), check_client_file)
    });
    match tokio::time::timeout(deadline.left(), checking).await {
        Ok(Ok(checked)) => checked,
        Ok(Err(_)) => Err(invalid("the TLS files could not be checked")),
        Err(_) => {
            let files = [&tls.ca_file_path, &tls.cert_key_file_path];
            let files: Vec<_> = files.into_iter().flatten().collect();
            let error = deadline.timed_out();
            let message = format!("cannot read {files:?}: {error}");
            Err(Error::new(error.kind(), OPERATION, message))
        }
    }
}

/// Checks the file with the certificate authorities to trust.
fn check_ca_file(path: &Path) -> Result<(), Error> {
    let name = format!("the CA file {}", path.display());
    check_certificates(&name, &read(&name, path)?)
}

/// Checks the file with the client's certificate and its key.
fn check_client_file(path: &Path) -> Result<(), Error> {
    let name = format!("the file {} of tlsCertificateKeyFile", path.display());
    let text = read(&name, path)?;
    check_certificates(&name, &text)?;
    // The driver decrypts a key, if it can.
    let is_encrypted = String::from_utf8_lossy(&text).contains("ENCRYPTED");
    if !is_encrypted && PrivateKeyDer::from_pem_slice(&text).is_err() {
        let message = format!("{name} contains no private key in PEM format");
        return Err(invalid(message));
    }
    Ok(())
}

fn read(name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable =
        |error: io::Error| invalid(format!("{name} cannot be read: {error}")).with_source(error);
    // Opening a pipe would wait for its other end.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(invalid(format!("{name} is not a regular file")));
    }
    let bytes = metadata.len();
    if bytes > MAX_BYTES {
        let message = format!("{name} has {bytes} bytes; it may have at most {MAX_BYTES}");
        return Err(invalid(message));
    }
    std::fs::read(path).map_err(unreadable)
}

/// Checks that there are certificates, and that all of them are complete.
fn check_certificates(name: &str, text: &[u8]) -> Result<(), Error> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text) {
        count += 1;
        let problem = match certificate {
            Ok(certificate) if is_whole(&certificate) => continue,
            Err(pem::Error::MissingSectionEnd { .. }) => "its end is missing",
            Ok(_) | Err(_) => "it cannot be decoded",
        };
        let message = format!("{name} is damaged or cut off at certificate {count}: {problem}");
        return Err(invalid(message));
    }
    if count == 0 {
        let message = format!("{name} contains no certificate in PEM format");
        return Err(invalid(message));
    }
    Ok(())
}

/// Whether this is a DER sequence of the length that it states.
fn is_whole(certificate: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const LONG_FORM: u8 = 0x80;
    let [SEQUENCE, length, rest @ ..] = certificate else {
        return false;
    };
    let Some(size) = length.checked_sub(LONG_FORM) else {
        return rest.len() == usize::from(*length);
    };
    let Some((stated, content)) = rest.split_at_checked(usize::from(size)) else {
        return false;
    };
    let stated = stated
        .iter()
        .fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
    // A longer one has lost its first bytes.
    size <= 8 && stated == content.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_has_the_length_that_it_states() {
        for whole in [
            &[0x30, 1, 7][..],
            &[0x30, 0x81, 2, 7, 7],
            &[0x30, 0x82, 0, 1, 7],
        ] {
            assert!(is_whole(whole), "{whole:?}");
        }
        let broken = [
            &[][..],
            &[0x30],
            &[0x31, 1, 7],
            &[0x30, 2, 7],
            &[0x30, 1, 7, 7],
            &[0x30, 0x81],
            &[0x30, 0x82, 1, 0, 7],
            &[0x30, 0xff, 7],
        ];
        for broken in broken {
            assert!(!is_whole(broken), "{broken:?}");
        }
    }
}
