//! Tokens: one printable line that lets its holder in, for a time.
//!
//! ```text
//!   sarsen1.BASE64URL      of: body │ length of the signature u16 │ signature │ crc32c of all before
//!
//!   body: cluster 16 │ fingerprint of the authority's certificate 32 │ id 16 │ ends (seconds since 1970) u64
//!       │ grant u8: 0 join; 1 use (role u8 │ length of the name u8 │ name)
//!       │ addresses u8 │ of each: length u8 │ host:port
//! ```
//!
//! Little endian. The authority's key signs the body, so that every member which holds it, or only its certificate, can check a token, and nothing has to be
//! stored when one is made. The holder checks the other direction: before it says anything it compares the authority of whoever answers with the fingerprint.
//! The checksum tells a line that was copied badly from one that somebody changed.
//!
//! A token for joining is good once: [`Spent`] remembers those that were used until they end, and by which key, so that whoever was interrupted may repeat
//! with the same key. It remembers in memory; what holds over restarts and between members is the owner's to note, by [`TokenId`].

use super::clock::WallTime;
use super::identity::{Role, UserName};
use super::root::{Fingerprint, Root};
use crate::base::bytes::{Put, Take};
use crate::base::{ClusterId, crc};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring_crypto::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use std::collections::BTreeMap;
use std::fmt;

const PREFIX: &str = "sarsen1.";
/// What is signed begins with this, so that no signature of the authority's is taken for one of another kind.
const SIGNED_AS: &[u8] = b"sarsen token 1\0";
/// Characters of a line. The longest token has 3,350.
const TEXT_LEN_MAX: usize = 4096;
const SIGNATURE_LEN_MAX: usize = 80;
pub const ADDRESSES_MAX: usize = 8;
const ADDRESS_LEN_MAX: usize = 255;

/// One token among all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// To become a node, once.
    Join,
    /// To use the API, until it ends.
    Use { name: UserName, role: Role },
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// It is not a token, or not all of one.
    Malformed(&'static str),
    WrongCluster {
        theirs: ClusterId,
        ours: ClusterId,
    },
    /// Of the cluster's name, by an authority that is not its.
    Foreign,
    /// The signature is not that of the authority over what stands there.
    Tampered,
    Expired {
        ended: WallTime,
        now: WallTime,
    },
    /// It is good for something else.
    NotForThis {
        wanted: &'static str,
    },
    /// Somebody with another key has used it.
    Used,
    /// More are remembered than there is room for.
    TooMany(usize),
    Addresses(usize),
    Address(String),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Malformed(what) => write!(
                f,
                "this is not a whole token ({what}); copy all of the line that `sarsen cluster token` printed"
            ),
            TokenError::WrongCluster { theirs, ours } => write!(
                f,
                "the token is of cluster {theirs}, and this is cluster {ours}; make one here with `sarsen cluster token`"
            ),
            TokenError::Foreign => f.write_str(
                "the token was made by another authority, of a cluster with the same id; make one here with `sarsen cluster token`",
            ),
            TokenError::Tampered => f.write_str(
                "the token was changed after it was made; make a new one with `sarsen cluster token`, and find out who had it",
            ),
            TokenError::Expired { ended, now } => write!(
                f,
                "the token ended at {ended} and it is {now}; make a new one with `sarsen cluster token`, or with `sarsen cluster api-token` for the API"
            ),
            TokenError::NotForThis { wanted } => {
                write!(f, "the token is not for {wanted}; make one that is")
            }
            TokenError::Used => f.write_str(
                "the token was used already, by another machine; make one for each with `sarsen cluster token`",
            ),
            TokenError::TooMany(most) => write!(
                f,
                "{most} used tokens are remembered and none of them has ended; wait until some have"
            ),
            TokenError::Addresses(count) => write!(
                f,
                "a token has one to {ADDRESSES_MAX} addresses of members, and not {count}"
            ),
            TokenError::Address(text) => {
                write!(f, "{text:?} is not an address: write host:port")
            }
        }
    }
}

impl std::error::Error for TokenError {}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    pub cluster: ClusterId,
    pub authority: Fingerprint,
    pub id: TokenId,
    pub expires: WallTime,
    pub grant: Grant,
    pub addresses: Vec<String>,
}

/// A token that was read; whether it is genuine, [`Token::check`] says.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    body: Body,
    signature: Vec<u8>,
}

/// Without the signature: whoever reads a log is not to join.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Body { id, expires, .. } = self.body;
        write!(f, "Token({id}, until {expires})")
    }
}

impl Body {
    pub(super) fn signed(self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Token, TokenError> {
        if !(1..=ADDRESSES_MAX).contains(&self.addresses.len()) {
            return Err(TokenError::Addresses(self.addresses.len()));
        }
        if let Some(odd) = self.addresses.iter().find(|address| !is_address(address)) {
            let shown = odd.chars().take(ADDRESS_LEN_MAX).collect();
            return Err(TokenError::Address(shown));
        }
        let signature = sign(&self.to_sign());
        Ok(Token {
            body: self,
            signature,
        })
    }

    fn to_sign(&self) -> Vec<u8> {
        let mut bytes = SIGNED_AS.to_vec();
        self.encode(&mut bytes);
        bytes
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut put = Put(out);
        put.bytes(&self.cluster.0);
        put.bytes(&self.authority.0);
        put.bytes(&self.id.0);
        put.u64(self.expires.0);
        match &self.grant {
            Grant::Join => put.u8(0),
            Grant::Use { name, role } => {
                put.u8(1);
                put.u8(*role as u8);
                put_text(name.as_str(), &mut put);
            }
        }
        put.u8(self.addresses.len() as u8);
        self.addresses
            .iter()
            .for_each(|address| put_text(address, &mut put));
    }

    fn decode(take: &mut Take<'_>) -> Option<Body> {
        let cluster = ClusterId(take.key()?);
        let authority = Fingerprint(take.bytes(32)?.try_into().ok()?);
        let id = TokenId(take.key()?);
        let expires = WallTime(take.u64()?);
        let grant = match take.u8()? {
            0 => Grant::Join,
            1 => {
                let role = *Role::ALL.get(usize::from(take.u8()?))?;
                let name = UserName::new(take_text(take)?)?;
                Grant::Use { name, role }
            }
            _ => return None,
        };
        let count = usize::from(take.u8()?);
        if !(1..=ADDRESSES_MAX).contains(&count) {
            return None;
        }
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            let address = take_text(take).filter(|text| is_address(text))?;
            addresses.push(address.to_owned());
        }
        Some(Body {
            cluster,
            authority,
            id,
            expires,
            grant,
            addresses,
        })
    }
}

fn put_text(text: &str, put: &mut Put<'_>) {
    put.u8(text.len() as u8);
    put.bytes(text.as_bytes());
}

fn take_text<'a>(take: &mut Take<'a>) -> Option<&'a str> {
    let len = take.u8()?;
    std::str::from_utf8(take.bytes(len.into())?).ok()
}

/// Whether it has the form host:port. Whether somebody is there, dialling finds out.
fn is_address(text: &str) -> bool {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let port = parts.and_then(|(_, port)| port.parse::<u16>().ok());
    printable && text.len() <= ADDRESS_LEN_MAX && port.is_some_and(|port| port > 0)
}

impl Token {
    /// The line.
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        self.body.encode(&mut bytes);
        Put(&mut bytes).u16(self.signature.len() as u16);
        bytes.extend_from_slice(&self.signature);
        let sum = crc::of(&bytes);
        Put(&mut bytes).u32(sum);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads the line, with whatever white space around it.
    ///
    /// # Errors
    /// [`TokenError::Malformed`], with what is missing.
    pub fn read(text: &str) -> Result<Token, TokenError> {
        let malformed = |what| Err(TokenError::Malformed(what));
        let text = text.trim();
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return malformed("it does not begin with sarsen1.");
        };
        if rest.len() > TEXT_LEN_MAX {
            return malformed("it is too long");
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(rest) else {
            return malformed("it has characters that no token has, or ends too soon");
        };
        let Some((bytes, sum)) = bytes.split_last_chunk::<4>() else {
            return malformed("it ends too soon");
        };
        if u32::from_le_bytes(*sum) != crc::of(bytes) {
            return malformed("its checksum is wrong");
        }
        let mut take = Take::new(bytes);
        let Some(body) = Body::decode(&mut take) else {
            return malformed("its content is none");
        };
        let signature = take
            .u16()
            .map(usize::from)
            .filter(|len| (1..=SIGNATURE_LEN_MAX).contains(len) && take.left() == *len)
            .and_then(|len| take.bytes(len));
        match signature {
            Some(signature) => Ok(Token {
                body,
                signature: signature.to_vec(),
            }),
            None => malformed("its signature is none"),
        }
    }

    /// Whether the authority made it, of this cluster, and it has not ended. There is no grace for clocks: the one that made it
    /// and the one that checks it are the cluster's.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check(&self, root: &Root, now: WallTime) -> Result<&Grant, TokenError> {
        let (theirs, ours) = (self.body.cluster, root.cluster());
        if theirs != ours {
            return Err(TokenError::WrongCluster { theirs, ours });
        }
        if self.body.authority != root.fingerprint() {
            return Err(TokenError::Foreign);
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, root.public_key());
        if key.verify(&self.body.to_sign(), &self.signature).is_err() {
            return Err(TokenError::Tampered);
        }
        let ended = self.body.expires;
        if now >= ended {
            return Err(TokenError::Expired { ended, now });
        }
        Ok(&self.body.grant)
    }

    /// As [`Token::check`], of one that is for joining.
    ///
    /// # Errors
    /// Likewise; [`TokenError::NotForThis`] where it is for the API.
    pub fn check_join(&self, root: &Root, now: WallTime) -> Result<(), TokenError> {
        match self.check(root, now)? {
            Grant::Join => Ok(()),
            Grant::Use { .. } => Err(TokenError::NotForThis {
                wanted: "joining a cluster",
            }),
        }
    }

    /// As [`Token::check`], of one that is for the API: for whom it speaks.
    ///
    /// # Errors
    /// Likewise; [`TokenError::NotForThis`] where it is for joining.
    pub fn check_use(&self, root: &Root, now: WallTime) -> Result<(UserName, Role), TokenError> {
        match self.check(root, now)? {
            Grant::Use { name, role } => Ok((name.clone(), *role)),
            Grant::Join => Err(TokenError::NotForThis { wanted: "the API" }),
        }
    }

    pub fn id(&self) -> TokenId {
        self.body.id
    }

    pub fn cluster(&self) -> ClusterId {
        self.body.cluster
    }

    /// The authority that whoever answers at one of the addresses has to have.
    pub fn authority(&self) -> Fingerprint {
        self.body.authority
    }

    pub fn expires(&self) -> WallTime {
        self.body.expires
    }

    /// Members, as host:port.
    pub fn addresses(&self) -> &[String] {
        &self.body.addresses
    }
}

/// The tokens for joining that were used and have not ended.
#[derive(Debug)]
pub struct Spent {
    seen: BTreeMap<TokenId, (WallTime, Fingerprint)>,
    most: usize,
}

/// What a token was to [`Spent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    First,
    /// The same key used it before: an interrupted join that is repeated.
    Again,
}

impl Spent {
    /// Remembers at most `most`. A token lasts 90 days at most, so this bounds the joins of that time.
    pub fn new(most: usize) -> Spent {
        Spent {
            seen: BTreeMap::new(),
            most,
        }
    }

    /// Marks a token, which was checked, as used by a key.
    ///
    /// # Errors
    /// Where another key used it, or no more can be remembered.
    pub fn claim(
        &mut self,
        token: &Token,
        key: Fingerprint,
        now: WallTime,
    ) -> Result<Claim, TokenError> {
        self.seen.retain(|_, (ends, _)| *ends > now);
        match self.seen.get(&token.id()) {
            Some((_, by)) if *by == key => return Ok(Claim::Again),
            Some(_) => return Err(TokenError::Used),
            None if self.seen.len() >= self.most => return Err(TokenError::TooMany(self.most)),
            None => {}
        }
        self.seen.insert(token.id(), (token.expires(), key));
        Ok(Claim::First)
    }
}
