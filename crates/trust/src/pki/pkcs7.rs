//! Certificates as a "certs-only" CMS message (RFC 5652, RFC 7030 section 4.1.3), the envelope that EST clients expect.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const INTEGER: u8 = 0x02;
const CONTEXT_0: u8 = 0xa0;
/// 1.2.840.113549.1.7.1, `id-data`.
const ID_DATA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.7.2, `id-signedData`.
const ID_SIGNED_DATA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// 1.2.840.10045.2.1, `id-ecPublicKey`.
const ID_EC_PUBLIC_KEY: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7, `secp256r1`.
const SECP256R1: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.2.840.10045.4.3.2, `ecdsa-with-SHA256`.
const ECDSA_WITH_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// All certificates of a PEM text, in DER; what cannot be read is left out.
pub fn certificates_of(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}

/// A degenerate `SignedData` with these certificates and no signer, in DER.
pub fn certs_only<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> Vec<u8> {
    // A SET OF in DER is sorted by its encodings (X.690, section 11.6).
    let mut sorted: Vec<&[u8]> = certificates.into_iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let version = value(INTEGER, &[1]);
    let digests = value(SET, &[]);
    let content = value(SEQUENCE, &value(OBJECT_ID, &ID_DATA));
    let certificates = value(CONTEXT_0, &sorted.concat());
    let signers = value(SET, &[]);
    let signed = value(SEQUENCE, &[version, digests, content, certificates, signers].concat());
    value(SEQUENCE, &[value(OBJECT_ID, &ID_SIGNED_DATA), value(CONTEXT_0, &signed)].concat())
}

/// What a signing request should be like (`CsrAttrs`, RFC 7030 section 4.5.2): a key on P-256, signed with SHA-256.
pub fn request_attributes() -> Vec<u8> {
    let curve = value(SET, &value(OBJECT_ID, &SECP256R1));
    let key = value(SEQUENCE, &[value(OBJECT_ID, &ID_EC_PUBLIC_KEY), curve].concat());
    value(SEQUENCE, &[key, value(OBJECT_ID, &ECDSA_WITH_SHA256)].concat())
}

/// Tag, length in its shortest form, content.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = content.len().to_be_bytes();
            let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            // At most eight bytes of length.
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_their_shortest_form() {
        assert_eq!(value(4, &[7; 3]), [4, 3, 7, 7, 7]);
        assert_eq!(value(4, &[0; 0x7f])[..2], [4, 0x7f]);
        assert_eq!(value(4, &[0; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(value(4, &[0; 0x1234])[..4], [4, 0x82, 0x12, 0x34]);
    }

    #[test]
    fn the_attributes_are_those_of_the_documented_bytes() {
        // SEQUENCE { SEQUENCE { ecPublicKey, SET { secp256r1 } }, ecdsa-with-SHA256 }
        let der = request_attributes();
        assert_eq!(der.len(), 35);
        assert_eq!(der[..4], [0x30, 33, 0x30, 21]);
    }
}
