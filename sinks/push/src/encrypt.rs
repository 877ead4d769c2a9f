//! Encryption of a Web Push message (RFC 8291, on RFC 8188's `aes128gcm`): one record, with a fresh key pair and a fresh salt
//! for each message.
//!
//! The primitives (P-256, HKDF, AES-128-GCM) are AWS-LC's; what is here is the order in which RFC 8291, section 3.4, calls
//! them. It is held to the RFC's own example, and to a decryption that nobody here wrote.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, general_purpose};

/// The longest plaintext: services take bodies of 4,096 bytes (RFC 8030, section 7.2), of which the header takes 86, the
/// delimiter 1 and the tag 16.
pub const PLAINTEXT_MAX: usize = 3_993;

/// The record size that is announced: all of the body is one record (RFC 8291, section 4).
const RECORD_BYTES: u32 = 4_096;

const PUBLIC_KEY_BYTES: usize = 65;
const AUTH_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// Behind the last record's data (RFC 8188, section 2).
const LAST_RECORD: u8 = 2;

/// Browsers give keys as base64url without padding; some libraries pad.
pub(crate) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    general_purpose::NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a message cannot be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// The subscription's keys are none: the device can never be reached.
    #[error("the subscription's `{0}` is no key")]
    BadKey(&'static str),
    /// More than [`PLAINTEXT_MAX`] bytes.
    #[error("the payload has {0} bytes, and {PLAINTEXT_MAX} can be sent: shorten the body or the data")]
    TooLong(usize),
    /// The cryptographic library failed.
    #[error("the payload cannot be encrypted")]
    Failed,
}

impl From<Unspecified> for EncryptError {
    fn from(_: Unspecified) -> Self {
        Self::Failed
    }
}

/// Who can read the message: the keys of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    public_key: [u8; PUBLIC_KEY_BYTES],
    auth: [u8; AUTH_BYTES],
}

impl Recipient {
    /// From a subscription's `p256dh` and `auth`, in base64url.
    ///
    /// # Errors
    /// When one is not of its form. Whether the public key is a point of the curve is found when it is used.
    pub fn parse(p256dh: &str, auth: &str) -> Result<Self, EncryptError> {
        let public_key: [u8; PUBLIC_KEY_BYTES] = decode(p256dh).ok_or(EncryptError::BadKey("p256dh"))?;
        if public_key[0] != 4 {
            return Err(EncryptError::BadKey("p256dh"));
        }
        Ok(Self { public_key, auth: decode(auth).ok_or(EncryptError::BadKey("auth"))? })
    }
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64URL.decode(text).ok()?.try_into().ok()
}

/// The body of the request: `salt | record size | key length | public key | ciphertext`.
///
/// # Errors
/// When the plaintext is too long or the recipient's key is no point of the curve.
pub fn encrypt(to: &Recipient, plaintext: &[u8]) -> Result<Vec<u8>, EncryptError> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt)?;
    encrypt_with(to, plaintext, &PrivateKey::generate(&ECDH_P256)?, salt)
}

/// The same with a given key pair and salt.
fn encrypt_with(
    to: &Recipient,
    plaintext: &[u8],
    own: &PrivateKey,
    salt: [u8; SALT_BYTES],
) -> Result<Vec<u8>, EncryptError> {
    if plaintext.len() > PLAINTEXT_MAX {
        return Err(EncryptError::TooLong(plaintext.len()));
    }
    let own_public = own.compute_public_key()?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, &to.public_key);
    // RFC 8291, section 3.3 and 3.4: the shared secret, bound to both keys by the subscription's own secret.
    let ikm = agree(own, peer, EncryptError::BadKey("p256dh"), |shared| {
        let info = [b"WebPush: info\0".as_slice(), &to.public_key, own_public.as_ref()];
        Ok(derive::<32>(&to.auth, shared, &info)?)
    })?;
    // RFC 8188, sections 2.2 and 2.3.
    let key = derive::<16>(&salt, &ikm, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce = derive::<12>(&salt, &ikm, &[b"Content-Encoding: nonce\0"])?;

    let mut body = Vec::with_capacity(SALT_BYTES + 5 + PUBLIC_KEY_BYTES + plaintext.len() + 1 + TAG_BYTES);
    body.extend_from_slice(&salt);
    body.extend_from_slice(&RECORD_BYTES.to_be_bytes());
    body.push(PUBLIC_KEY_BYTES as u8);
    body.extend_from_slice(own_public.as_ref());
    let header = body.len();
    body.extend_from_slice(plaintext);
    body.push(LAST_RECORD);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut body[header..])?;
    body.extend_from_slice(tag.as_ref());
    Ok(body)
}

/// HKDF-SHA-256 (RFC 5869) to `N` bytes.
fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Result<[u8; N], Unspecified> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut output = [0; N];
    Salt::new(HKDF_SHA256, salt).extract(secret).expand(info, Length(N))?.fill(&mut output)?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8291, section 5 and appendix A.
    #[test]
    fn the_example_of_rfc_8291_is_reproduced_byte_by_byte() {
        let to = Recipient::parse(
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "BTBZMqHH6r4Tts7J_aSIgg",
        )
        .unwrap();
        let own = BASE64URL.decode("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw").unwrap();
        let own = PrivateKey::from_private_key(&ECDH_P256, &own).unwrap();
        let salt = decode("DGv6ra1nlYgDCS1FRnbzlw").unwrap();
        let body = encrypt_with(&to, b"When I grow up, I want to be a watermelon", &own, salt).unwrap();
        assert_eq!(
            BASE64URL.encode(body),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmY\
             WAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn bodies_keep_to_4096_bytes_and_no_two_are_alike() {
        let to = Recipient::parse(
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "BTBZMqHH6r4Tts7J_aSIgg",
        )
        .unwrap();
        let (one, other) = (encrypt(&to, &[7; PLAINTEXT_MAX]).unwrap(), encrypt(&to, &[7; PLAINTEXT_MAX]).unwrap());
        assert_eq!(one.len(), 4_096);
        assert_ne!(one[..16], other[..16], "the salt");
        assert_ne!(one[21..86], other[21..86], "the key");
        assert_eq!(encrypt(&to, &[7; PLAINTEXT_MAX + 1]), Err(EncryptError::TooLong(3_994)));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let point = BASE64URL.encode([&[4][..], &[1; 64]].concat());
        for (p256dh, auth) in
            [("", "BTBZMqHH6r4Tts7J_aSIgg"), ("AAAA", "x"), ("?", "BTBZMqHH6r4Tts7J_aSIgg"), (&point, "AA")]
        {
            assert!(matches!(Recipient::parse(p256dh, auth), Err(EncryptError::BadKey(_))), "{p256dh} {auth}");
        }
        let no_point = Recipient::parse(&point, "BTBZMqHH6r4Tts7J_aSIgg").unwrap();
        assert_eq!(encrypt(&no_point, b"x"), Err(EncryptError::BadKey("p256dh")));
    }
}
