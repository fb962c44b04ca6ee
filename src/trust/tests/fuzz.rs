//! Tokens, requests and certificates as nobody writes them. `SARSEN_FUZZ_ITERATIONS` and `SARSEN_FUZZ_SEED` make it run longer or elsewhere.

use super::*;
use crate::base::{Prng, crc};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A number from the environment.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => otherwise,
    }
}

/// Changes bytes in one place.
pub(crate) fn bend(bytes: &mut Vec<u8>, prng: &mut Prng) {
    if bytes.is_empty() {
        return bytes.push(prng.next_u64() as u8);
    }
    let at = prng.below(bytes.len() as u64) as usize;
    match prng.below(7) {
        0 => bytes[at] = 0,
        1 => bytes[at] = 0xff,
        2 => bytes[at] ^= 1 << prng.below(8),
        3 => bytes[at] = prng.next_u64() as u8,
        4 => bytes.truncate(at),
        5 => bytes.extend_from_within(at..),
        _ => drop(bytes.remove(at)),
    }
}

#[test]
fn fuzz_a_bent_token_is_refused_or_spelled_as_it_was_and_never_genuine() {
    let site = Site::new();
    let mut prng = Prng::new(number("SARSEN_FUZZ_SEED", 1));
    let grant = Grant::Use {
        name: UserName::new("alice").unwrap(),
        role: Role::Operator,
    };
    let addresses = ["10.0.0.1:7400".to_owned(), "node-3:1".into()];
    let whole = [Grant::Join, grant]
        .map(|grant| site.authority.token(grant, &addresses, DAY).unwrap().text());
    let (mut read, mut refused) = (0, 0);
    let iterations = number("SARSEN_FUZZ_ITERATIONS", 4000);
    for _ in 0..iterations {
        let text = &whole[prng.below(2) as usize];
        let mut bytes = URL_SAFE_NO_PAD.decode(&text[8..]).unwrap();
        bytes.truncate(bytes.len() - 4);
        let before = bytes.clone();
        for _ in 0..=prng.below(3) {
            bend(&mut bytes, &mut prng);
        }
        let same = bytes == before;
        let sum = crc::of(&bytes);
        bytes.extend(sum.to_le_bytes());
        let line = format!("sarsen1.{}", URL_SAFE_NO_PAD.encode(&bytes));
        match Token::read(&line) {
            Ok(token) => {
                read += 1;
                assert_eq!(token.text(), line, "one spelling");
                let genuine = token.check(site.authority.root(), site.hands.now()).is_ok();
                assert_eq!(genuine, same, "{line}");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        read > iterations / 10 && refused > iterations / 10,
        "{read} and {refused}"
    );
}

#[test]
fn fuzz_a_bent_request_or_certificate_does_no_harm_and_names_nobody_else() {
    let site = Site::new();
    let mut prng = Prng::new(number("SARSEN_FUZZ_SEED", 2));
    let request = CertificateRequest::new(&["node7.lan".into(), "10.0.0.7".into()]).unwrap();
    let identity = Identity::Node(NodeId(7));
    let root = site.authority.root();
    let issued = site
        .authority
        .issue(request.der(), &identity, NODE_LIFE)
        .unwrap();
    let (mut issued_again, mut taken) = (0, 0);
    for _ in 0..number("SARSEN_FUZZ_ITERATIONS", 2000) {
        let mut bent = request.der().to_vec();
        bend(&mut bent, &mut prng);
        if let Ok(certificate) = site.authority.issue(&bent, &identity, NODE_LIFE) {
            issued_again += 1;
            let named = root.identify(&certificate, root::Side::Client, site.hands.now());
            assert_eq!(named, Ok(identity.clone()));
        }
        let mut bent = issued.to_vec();
        bend(&mut bent, &mut prng);
        let same = bent == issued.to_vec();
        let bent = rustls::pki_types::CertificateDer::from(bent);
        if let Ok(named) = root.identify(&bent, root::Side::Client, site.hands.now()) {
            taken += 1;
            assert!(same, "a bent certificate was taken for {named}");
        }
        // Whatever is a root's is read, or refused.
        let mut bent = root.certificate().to_vec();
        bend(&mut bent, &mut prng);
        drop(Root::of(bent.into()));
    }
    eprintln!("{issued_again} requests and {taken} certificates were as before");
}
