//! Tokens: made, read, refused each with its own words.

use super::*;
use crate::base::crc;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

fn refused(token: &Token, site: &Site) -> TokenError {
    token
        .check_join(site.authority.root(), site.hands.now())
        .unwrap_err()
}

/// The line with its bytes changed and the checksum made right.
fn changed(token: &Token, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = URL_SAFE_NO_PAD
        .decode(&token.text()["sarsen1.".len()..])
        .unwrap();
    bytes.truncate(bytes.len() - 4);
    change(&mut bytes);
    let sum = crc::of(&bytes);
    bytes.extend(sum.to_le_bytes());
    format!("sarsen1.{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[test]
fn a_token_is_one_printable_line_that_whoever_knows_the_authority_can_check() {
    let site = Site::new();
    let addresses = [
        "10.0.0.1:7400".to_owned(),
        "[fd00::1]:7400".into(),
        "node-3.lan:7400".into(),
    ];
    let token = site.join_token(&addresses, DAY);
    let text = token.text();
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    let read = Token::read(&format!("  {text}\n")).unwrap();
    assert_eq!(read, token);
    assert_eq!(read.addresses(), addresses);
    assert_eq!(read.authority(), site.authority.root().fingerprint());
    read.check_join(site.authority.root(), site.hands.now())
        .unwrap();
    assert!(
        !format!("{read:?}").contains(&text[20..60]),
        "a log does not let in"
    );
}

#[test]
fn a_token_for_the_api_names_a_user_and_a_role_and_lets_nobody_join() {
    let site = Site::new();
    let (name, role) = (UserName::new("ci").unwrap(), Role::Reader);
    let grant = Grant::Use { name, role };
    let token = site
        .authority
        .token(grant.clone(), &["a:1".into()], DAY)
        .unwrap();
    let read = Token::read(&token.text()).unwrap();
    assert_eq!(
        read.check(site.authority.root(), site.hands.now()),
        Ok(&grant)
    );
    assert!(
        refused(&read, &site)
            .to_string()
            .contains("not for joining")
    );
}

#[test]
fn each_wrong_token_has_an_error_of_its_own() {
    let site = Site::new();
    let token = site.join_token(&["a:1".into()], DAY);
    let elsewhere = Site::of(&site.hands);
    let said = refused(&elsewhere.join_token(&["a:1".into()], DAY), &site).to_string();
    let cluster = elsewhere.authority.root().cluster().to_string();
    assert!(
        said.contains(&cluster) && said.contains("sarsen cluster token"),
        "{said}"
    );

    let twin = Site {
        authority: Arc::new(Authority::new(token.cluster(), site.hands.clock())),
        hands: site.hands.clone(),
    };
    let foreign = twin.join_token(&["a:1".into()], DAY);
    assert_eq!(refused(&foreign, &site), TokenError::Foreign);

    // A longer life, another address.
    let longer = changed(&token, |bytes| bytes[16 + 32 + 16 + 4] ^= 1);
    assert_eq!(
        refused(&Token::read(&longer).unwrap(), &site),
        TokenError::Tampered
    );
    let moved = changed(&token, |bytes| bytes[16 + 32 + 16 + 8 + 1 + 1 + 1] = b'b');
    let moved = Token::read(&moved).unwrap();
    assert_eq!(
        (moved.addresses()[0].as_str(), refused(&moved, &site)),
        ("b:1", TokenError::Tampered)
    );

    site.hands.move_on(DAY);
    let said = refused(&token, &site).to_string();
    assert!(
        said.contains("the token ended at") && said.contains("make a new one"),
        "{said}"
    );
}

#[test]
fn a_line_that_was_copied_badly_is_no_token_and_says_so() {
    let site = Site::new();
    let text = site.join_token(&["a:1".into()], DAY).text();
    for cut in 0..text.len() {
        let said = Token::read(&text[..cut]).unwrap_err();
        assert!(matches!(said, TokenError::Malformed(_)), "{cut}: {said}");
    }
    let mut bent = text.clone().into_bytes();
    for at in 0..bent.len() {
        let before = bent[at];
        bent[at] = if before == b'A' { b'B' } else { b'A' };
        let read = Token::read(std::str::from_utf8(&bent).unwrap());
        assert!(matches!(read, Err(TokenError::Malformed(_))), "at {at}");
        bent[at] = before;
    }
    for odd in ["", "sarsen1.", "sarsen2.AAAA", "hello", "sarsen1.\u{e4}"] {
        assert!(Token::read(odd).is_err(), "{odd}");
    }
    assert!(Token::read(&format!("sarsen1.{}", "A".repeat(5000))).is_err());
}

#[test]
fn addresses_that_are_none_are_refused_when_the_token_is_made() {
    let site = Site::new();
    let make = |addresses: &[String]| site.authority.token(Grant::Join, addresses, DAY);
    for odd in ["", "host", ":1", "host:", "host:0", "host:70000", "a b:1"] {
        let made = make(&[odd.to_owned()]);
        assert_eq!(made.unwrap_err(), TokenError::Address(odd.into()));
    }
    assert_eq!(make(&[]).unwrap_err(), TokenError::Addresses(0));
    let many = vec!["a:1".to_owned(); 9];
    assert_eq!(make(&many).unwrap_err(), TokenError::Addresses(9));
    // The longest token can be read.
    let long = format!("{}:65535", "h".repeat(249));
    let grant = Grant::Use {
        name: UserName::new(&"n".repeat(64)).unwrap(),
        role: Role::Admin,
    };
    let token = site.authority.token(grant, &vec![long; 8], DAY).unwrap();
    assert_eq!(Token::read(&token.text()).unwrap(), token);
}

#[test]
fn a_token_is_good_once_but_the_same_key_may_repeat() {
    let site = Site::new();
    let now = site.hands.now();
    let token = site.join_token(&["a:1".into()], DAY);
    let [key, other] = [1, 2].map(|byte| Fingerprint([byte; 32]));
    let mut spent = Spent::new(2);
    assert_eq!(spent.claim(&token, key, now), Ok(Claim::First));
    assert_eq!(spent.claim(&token, key, now), Ok(Claim::Again));
    assert_eq!(spent.claim(&token, other, now), Err(TokenError::Used));
    let second = site.join_token(&["a:1".into()], 2 * DAY);
    assert_eq!(spent.claim(&second, key, now), Ok(Claim::First));
    let third = site.join_token(&["a:1".into()], 2 * DAY);
    assert_eq!(spent.claim(&third, key, now), Err(TokenError::TooMany(2)));
    // The first has ended, and makes room.
    let later = now.plus(DAY);
    assert_eq!(spent.claim(&third, key, later), Ok(Claim::First));
    assert_eq!(spent.claim(&second, other, later), Err(TokenError::Used));
}

#[test]
fn a_token_for_the_api_speaks_for_its_name_and_joins_nothing() {
    let site = Site::new();
    let (root, now) = (site.authority.root(), site.hands.now());
    let alice = UserName::new("alice").unwrap();
    let grant = Grant::Use {
        name: alice.clone(),
        role: Role::Operator,
    };
    let token = site.authority.token(grant, &["a:1".into()], DAY).unwrap();
    assert_eq!(token.check_use(root, now), Ok((alice, Role::Operator)));
    assert!(matches!(
        token.check_join(root, now),
        Err(TokenError::NotForThis { .. })
    ));
    let join = site.join_token(&["a:1".into()], DAY);
    assert!(matches!(
        join.check_use(root, now),
        Err(TokenError::NotForThis { wanted: "the API" })
    ));
    site.hands.move_on(DAY);
    let ended = token.check_use(root, site.hands.now());
    assert!(matches!(ended, Err(TokenError::Expired { .. })));
}
