//! One source file as the rules see it: every path it names, with its line, and without its tests.
//!
//! This reads tokens, not Rust: comments, strings and character literals are left out, braces are counted, and
//! `a::{b, c::d}` becomes two paths. That is enough to see what a file imports, in `use` and in the middle
//! of a line alike, and needs no parser of the language. What a macro of another crate makes is not seen.

/// A path as it is written, from its first segment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// From one on.
    pub line: usize,
    pub segments: Vec<String>,
    /// Inline modules around it, which `super` leads out of.
    pub inside: usize,
}

/// What a file says.
#[derive(Debug, Default)]
pub struct Source {
    pub paths: Vec<Path>,
    /// Modules in files of their own that only tests see.
    pub test_modules: Vec<String>,
    /// Lines that are not of an inline module of tests.
    pub lines: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Mark(char),
}

impl Source {
    pub fn read(text: &str) -> Source {
        let tokens = tokens(text);
        let mut source = Source {
            lines: text.lines().count(),
            ..Source::default()
        };
        // Braces that are open, and whether each is that of an inline module.
        let mut open: Vec<bool> = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if let Some((name, after)) = test_module(&tokens[at..]) {
                at += after;
                if mark(&tokens, at) == Some('{') {
                    let end = closing(&tokens, at);
                    source.lines -= tokens[end].0 - tokens[at].0;
                    at = end + 1;
                } else {
                    source.test_modules.push(name);
                }
                continue;
            }
            match &tokens[at].1 {
                Token::Mark('{') => {
                    let module = at >= 2 && word(&tokens, at - 2) == Some("mod");
                    open.push(module);
                }
                Token::Mark('}') => drop(open.pop()),
                Token::Word(_) if !continues_a_path(&tokens, at) => {
                    let inside = open.iter().filter(|&&module| module).count();
                    let mut found = Vec::new();
                    at = expand(&tokens, at, &mut Vec::new(), &mut found) - 1;
                    let whole = found.into_iter().map(|(line, segments)| Path {
                        line,
                        segments,
                        inside,
                    });
                    source.paths.extend(whole);
                }
                _ => {}
            }
            at += 1;
        }
        source
    }
}

type Tokens = [(usize, Token)];

fn word(tokens: &Tokens, at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some((_, Token::Word(word))) => Some(word),
        _ => None,
    }
}

fn mark(tokens: &Tokens, at: usize) -> Option<char> {
    match tokens.get(at) {
        Some((_, Token::Mark(mark))) => Some(*mark),
        _ => None,
    }
}

fn joined(tokens: &Tokens, at: usize) -> bool {
    mark(tokens, at) == Some(':') && mark(tokens, at + 1) == Some(':')
}

/// Whether the word at `at` belongs to a path that began before.
fn continues_a_path(tokens: &Tokens, at: usize) -> bool {
    at >= 2 && joined(tokens, at - 2) && at >= 3 && word(tokens, at - 3).is_some()
}

/// The name of the module for tests only that begins here, and how many tokens its head has.
fn test_module(tokens: &Tokens) -> Option<(String, usize)> {
    let head = ["#", "[", "cfg", "(", "test", ")", "]"];
    let same = |(at, expected): (usize, &&str)| match &tokens.get(at)?.1 {
        Token::Word(word) => Some(word == expected),
        Token::Mark(mark) => Some(expected.len() == 1 && expected.starts_with(*mark)),
    };
    if !head.iter().enumerate().all(|part| same(part) == Some(true)) {
        return None;
    }
    let module = (head.len()..head.len() + 6).find(|&at| word(tokens, at) == Some("mod"))?;
    let visible = |at| matches!(word(tokens, at), Some("pub" | "crate" | "super" | "in"));
    let only_visibility =
        (head.len()..module).all(|at| visible(at) || matches!(mark(tokens, at), Some('(' | ')')));
    let name = word(tokens, module + 1)?;
    only_visibility.then(|| (name.to_owned(), module + 2))
}

/// Where the brace that opens at `at` is closed.
fn closing(tokens: &Tokens, at: usize) -> usize {
    let mut depth = 0;
    for (place, (_, token)) in tokens.iter().enumerate().skip(at) {
        match token {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return place;
        }
    }
    tokens.len() - 1
}

/// Gathers the paths that begin with `before` and go on at `at`; says where they end.
fn expand(
    tokens: &Tokens,
    mut at: usize,
    before: &mut Vec<String>,
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let depth = before.len();
    let line = tokens.get(at).map_or(0, |token| token.0);
    while let Some(segment) = word(tokens, at) {
        before.push(segment.to_owned());
        at += 1;
        if !joined(tokens, at) {
            break;
        }
        at += 2;
        if mark(tokens, at) == Some('{') {
            at = expand_group(tokens, at + 1, before, found);
            before.truncate(depth);
            return at;
        }
    }
    found.push((line, before.clone()));
    before.truncate(depth);
    at
}

fn expand_group(
    tokens: &Tokens,
    mut at: usize,
    before: &mut Vec<String>,
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    while at < tokens.len() {
        match &tokens[at].1 {
            Token::Mark('}') => return at + 1,
            Token::Word(word) if word == "as" => at += 2,
            Token::Word(_) => at = expand(tokens, at, before, found),
            Token::Mark(_) => at += 1,
        }
    }
    at
}

/// The words and marks of `text`, each with its line.
fn tokens(text: &str) -> Vec<(usize, Token)> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let len = skipped(rest).unwrap_or(0);
        if len > 0 {
            line += rest[..len].matches('\n').count();
            rest = &rest[len..];
            continue;
        }
        let in_word = |c: char| c.is_alphanumeric() || c == '_';
        let len = match rest.find(|c| !in_word(c)) {
            Some(0) => first.len_utf8(),
            Some(len) => len,
            None => rest.len(),
        };
        let token = match in_word(first) {
            true => Token::Word(rest[..len].to_owned()),
            false => Token::Mark(first),
        };
        tokens.push((line, token));
        rest = &rest[len..];
    }
    tokens
}

/// How many bytes at the start of `rest` are blank, a comment, a string, a character or a lifetime.
fn skipped(rest: &str) -> Option<usize> {
    let blank = rest.len() - rest.trim_start().len();
    if blank > 0 {
        return Some(blank);
    }
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    let bare = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - bare.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = bare.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            let len = body.find(&end).map_or(body.len(), |at| at + end.len());
            return Some(prefix + 1 + hashes + 1 + len);
        }
    }
    match bare.as_bytes().first()? {
        b'"' => Some(prefix + quoted(bare, b'"')),
        b'\'' => {
            let body = &bare[1..];
            let one = body.chars().next().map_or(0, char::len_utf8);
            match body.starts_with('\\') || body[one..].starts_with('\'') {
                true => Some(prefix + quoted(bare, b'\'')),
                // A lifetime or a label: the mark and the word behind it.
                false => Some(1 + body.find(|c: char| !c.is_alphanumeric() && c != '_')?),
            }
        }
        _ => None,
    }
}

/// The length of the literal that `text` begins with, its quotes included.
fn quoted(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        if byte == quote && !escaped {
            return at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    text.len()
}
