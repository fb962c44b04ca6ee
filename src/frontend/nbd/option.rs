//! Options of the handshake: what their data says, and the bytes of the replies.

use super::door::{ExportInfo, Limits, Purpose};
use super::fields::Fields;
use super::reply::Framing;
use super::spec::{self, info, option, option_reply, transmission_flag};

/// An option that names an export, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub asked: Asked,
}

/// What is asked about an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    ExportName,
    Info(Infos),
    Go(Infos),
    /// Whether `base:allocation` is among what is to be listed.
    ListContexts(bool),
    /// Whether `base:allocation` is among what is selected.
    SetContexts(bool),
}

/// Which information beyond the necessary a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Infos {
    pub name: bool,
    pub description: bool,
}

impl Asked {
    pub fn option(self) -> u32 {
        match self {
            Asked::ExportName => option::EXPORT_NAME,
            Asked::Info(_) => option::INFO,
            Asked::Go(_) => option::GO,
            Asked::ListContexts(_) => option::LIST_META_CONTEXT,
            Asked::SetContexts(_) => option::SET_META_CONTEXT,
        }
    }

    pub fn purpose(self) -> Purpose {
        match self {
            Asked::ExportName | Asked::Go(_) => Purpose::Attach,
            _ => Purpose::Inspect,
        }
    }
}

/// Whether the data of this option is kept until it is whole; that of others is not looked at.
pub fn names_an_export(kind: u32) -> bool {
    use option::{EXPORT_NAME, GO, INFO, LIST_META_CONTEXT, SET_META_CONTEXT};
    matches!(
        kind,
        EXPORT_NAME | INFO | GO | LIST_META_CONTEXT | SET_META_CONTEXT
    )
}

impl Wanted {
    /// Understands the data of an option that [`names_an_export`]; else what is wrong with it.
    pub fn read(kind: u32, data: &[u8]) -> Result<Wanted, &'static str> {
        if kind == option::EXPORT_NAME {
            let (name, asked) = (export_name(data)?, Asked::ExportName);
            return Ok(Wanted { name, asked });
        }
        let mut fields = Fields(data);
        let len = fields.u32().ok_or("the length of the name is missing")?;
        let name = fields.bytes(len as usize).ok_or("the name is cut off")?;
        let name = export_name(name)?;
        let asked = match kind {
            option::INFO => Asked::Info(infos(fields)?),
            option::GO => Asked::Go(infos(fields)?),
            option::LIST_META_CONTEXT => Asked::ListContexts(lists_allocation(fields)?),
            _ => Asked::SetContexts(selects_allocation(fields)?),
        };
        Ok(Wanted { name, asked })
    }
}

fn export_name(bytes: &[u8]) -> Result<String, &'static str> {
    if bytes.len() > spec::STRING_MAX {
        return Err("the name is longer than 4096 bytes");
    }
    match std::str::from_utf8(bytes) {
        Err(_) => Err("the name is not UTF-8"),
        Ok(name) if name.contains('\0') => Err("the name contains NUL"),
        Ok(name) => Ok(name.to_owned()),
    }
}

fn infos(mut fields: Fields<'_>) -> Result<Infos, &'static str> {
    let count = fields
        .u16()
        .ok_or("the count of information requests is missing")?;
    let mut infos = Infos::default();
    for _ in 0..count {
        match fields.u16().ok_or("an information request is missing")? {
            info::NAME => infos.name = true,
            info::DESCRIPTION => infos.description = true,
            // What is always told, and what is not known, which the specification has us ignore.
            _ => {}
        }
    }
    at_end(fields)?;
    Ok(infos)
}

fn lists_allocation(fields: Fields<'_>) -> Result<bool, &'static str> {
    let (count, matched) = queries(fields, |query| {
        query == spec::BASE_ALLOCATION.as_bytes() || query == spec::BASE_NAMESPACE.as_bytes()
    })?;
    // No query at all asks for everything there is.
    Ok(count == 0 || matched)
}

fn selects_allocation(fields: Fields<'_>) -> Result<bool, &'static str> {
    Ok(queries(fields, |query| query == spec::BASE_ALLOCATION.as_bytes())?.1)
}

/// How many queries there are, and whether one of them matches.
fn queries(
    mut fields: Fields<'_>,
    matches: impl Fn(&[u8]) -> bool,
) -> Result<(u32, bool), &'static str> {
    let count = fields.u32().ok_or("the count of queries is missing")?;
    let mut matched = false;
    // A count that lies ends at the first query that is not there.
    for _ in 0..count {
        let len = fields.u32().ok_or("a query is missing")?;
        let query = fields.bytes(len as usize).ok_or("a query is cut off")?;
        matched |= matches(query);
    }
    at_end(fields)?;
    Ok((count, matched))
}

fn at_end(fields: Fields<'_>) -> Result<(), &'static str> {
    match fields.is_empty() {
        true => Ok(()),
        false => Err("there is more data than the option has"),
    }
}

/// Appends one reply to `option`.
pub fn reply(option: u32, kind: u32, data: &[&[u8]], out: &mut Vec<u8>) {
    let len: usize = data.iter().map(|part| part.len()).sum();
    out.extend(spec::OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend((len as u32).to_be_bytes());
    data.iter().for_each(|part| out.extend(*part));
}

pub fn ack(option: u32, out: &mut Vec<u8>) {
    reply(option, option_reply::ACK, &[], out);
}

/// A refusal with a text for people, cut where it is longer than a string may be.
pub fn refuse(option: u32, kind: u32, text: &str, out: &mut Vec<u8>) {
    reply(option, kind, &[cut(text).as_bytes()], out);
}

/// As much of `text` as a string may have.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(spec::STRING_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// One export of a list.
pub fn server(name: &str, out: &mut Vec<u8>) {
    let len = (name.len() as u32).to_be_bytes();
    reply(
        option::LIST,
        option_reply::SERVER,
        &[&len, name.as_bytes()],
        out,
    );
}

/// The context `base:allocation`; when it is only listed, its number has no meaning and is zero.
pub fn context(option: u32, id: u32, out: &mut Vec<u8>) {
    let parts = [&id.to_be_bytes(), spec::BASE_ALLOCATION.as_bytes()];
    reply(option, option_reply::META_CONTEXT, &parts, out);
}

/// What `INFO` and `GO` tell of an export, all but the final ACK.
pub fn export(
    wanted: &Wanted,
    infos: Infos,
    found: &ExportInfo<'_>,
    framing: Framing,
    limits: &Limits,
    out: &mut Vec<u8>,
) {
    let mut tell = |what: u16, data: &[&[u8]]| {
        let what = what.to_be_bytes();
        let parts: Vec<&[u8]> = std::iter::once(&what[..])
            .chain(data.iter().copied())
            .collect();
        reply(wanted.asked.option(), option_reply::INFO, &parts, out);
    };
    let flags = transmission_flags(found.read_only, framing);
    tell(
        info::EXPORT,
        &[&found.size.to_be_bytes(), &flags.to_be_bytes()],
    );
    if infos.name {
        tell(info::NAME, &[wanted.name.as_bytes()]);
    }
    if infos.description && !found.description.is_empty() {
        tell(info::DESCRIPTION, &[cut(found.description).as_bytes()]);
    }
    // Told unasked as well: a client that did not ask may still like to know.
    let sizes = [
        smallest_block(found.block_size),
        PREFERRED_BLOCK,
        limits.payload_bytes,
    ];
    let sizes = sizes.map(u32::to_be_bytes);
    tell(info::BLOCK_SIZE, &[&sizes[0], &sizes[1], &sizes[2]]);
}

/// What is read and written at least without read-modify-write, in bytes.
const PREFERRED_BLOCK: u32 = crate::base::BLOCK as u32;

/// Any request is served, so nothing has to be demanded of the client of a volume with 512 B
/// sectors. One with 4 KiB sectors has them so that its user sees no smaller ones: that is told,
/// though not insisted on.
fn smallest_block(block_size: u32) -> u32 {
    if block_size == PREFERRED_BLOCK {
        PREFERRED_BLOCK
    } else {
        1
    }
}

pub fn transmission_flags(read_only: bool, framing: Framing) -> u16 {
    use transmission_flag as flag;
    let mut flags = flag::HAS_FLAGS
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::SEND_TRIM
        | flag::SEND_WRITE_ZEROES
        | flag::CAN_MULTI_CONN
        | flag::SEND_CACHE
        | flag::SEND_FAST_ZERO;
    if read_only {
        flags |= flag::READ_ONLY;
    }
    if framing >= Framing::Structured {
        flags |= flag::SEND_DF;
    }
    flags
}
