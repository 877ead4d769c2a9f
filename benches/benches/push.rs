//! Web Push messages encrypted per second by one processor, against the same primitives of `ring` called by hand.
//!
//! What: a payload of 300 bytes for a subscription. `ours` is [`encrypt`]: a key pair, a key agreement, three derivations, one
//! sealing, and the body put together (RFC 8291). `ring` makes the same calls of `ring` 0.17 in the same order, with the keys at
//! hand as bytes, and puts nothing together. `VAPID` is the header of a message to an origin that was written to before.
//!
//! Method: 2,000 messages per round, the sides in turns, the median of 15 rounds, one thread.
//!
//! Run: `cargo bench -p smartpulse-benches --bench push`.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use smartpulse_benches::median;
use smartpulse_push::encrypt::{Recipient, encrypt};
use smartpulse_push::vapid::{Vapid, generate};
use std::hint::black_box;
use std::time::Instant;

const MESSAGES: usize = 2_000;
const ROUNDS: usize = 15;
const PAYLOAD: [u8; 300] = [b'x'; 300];

/// The subscription of RFC 8291's example.
const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

fn main() {
    let to = Recipient::parse(P256DH, AUTH).expect("a subscription");
    let random = SystemRandom::new();
    // Any point of the curve costs the same.
    let peer = EphemeralPrivateKey::generate(&ECDH_P256, &random).expect("a key");
    let peer = peer.compute_public_key().expect("a point").as_ref().to_vec();
    let vapid = Vapid::new(&generate().expect("a key").private_key, "mailto:ops@example.com").expect("a signer");
    let (mut ours, mut floor, mut header) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(timed(|| drop(black_box(encrypt(&to, &PAYLOAD)))));
        floor.push(timed(|| drop(black_box(by_hand(&random, &peer)))));
        header.push(timed(|| drop(black_box(vapid.authorization("https://push.example")))));
    }
    let (ours, floor, header) = (median(ours), median(floor), median(header));
    println!("ours   {ours:>10.0} messages/s");
    println!("ring   {floor:>10.0} messages/s, ratio {:.2}", ours / floor);
    println!("VAPID  {header:>10.0} headers/s");
}

fn timed(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..MESSAGES {
        work();
    }
    MESSAGES as f64 / start.elapsed().as_secs_f64()
}

fn by_hand(random: &SystemRandom, peer: &[u8]) -> Vec<u8> {
    let mut salt = [0; 16];
    random.fill(&mut salt).expect("random numbers");
    let own = EphemeralPrivateKey::generate(&ECDH_P256, random).expect("a key");
    let public = own.compute_public_key().expect("a point");
    let ikm = agree_ephemeral(own, &UnparsedPublicKey::new(&ECDH_P256, peer), |shared| {
        derive::<32>(&[7; 16], shared, &[b"WebPush: info\0", peer, public.as_ref()])
    });
    let ikm = ikm.expect("a shared secret");
    let key = derive::<16>(&salt, &ikm, &[b"Content-Encoding: aes128gcm\0"]);
    let nonce = derive::<12>(&salt, &ikm, &[b"Content-Encoding: nonce\0"]);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("a key"));
    let mut sealed = Vec::with_capacity(PAYLOAD.len() + 17);
    sealed.extend_from_slice(&PAYLOAD);
    sealed.push(2);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).expect("sealed");
    sealed
}

fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> [u8; N] {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut output = [0; N];
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(info, Length(N)).and_then(|okm| okm.fill(&mut output)).expect("derived");
    output
}
