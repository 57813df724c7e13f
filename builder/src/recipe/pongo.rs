//! Writes pongo2, the template language of distrobuilder's recipes, as tera.
//!
//! Both descend from Django's templates; they differ in operators (`&&`, `!`), in how filters take
//! arguments (`|default:"x"`) and in some tags. Only what is known here gets through, so that what
//! tera could do beyond pongo2 (files, macros, strings built without bounds) is out of reach.

use std::fmt::Write as _;

use super::filters::{FILTERS, OR};

/// Most words in one tag.
const MAX_TOKENS: usize = 256;
/// Deepest nesting of parentheses, and of `if` and `for`.
const MAX_DEPTH: usize = 32;

/// The function that counts iterations; see [`super::template`].
pub(super) const TICK: &str = "__tick";

/// A template for tera and the number of tags in it.
#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) text: String,
    pub(super) tags: usize,
}

pub(super) fn translate(source: &str) -> Result<Translated, String> {
    let mut out = Translated::default();
    let mut open = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let (text, tag) = rest.split_at(at);
        out.text.push_str(text);
        rest = match tag.as_bytes().get(1) {
            Some(b'#') => tag.split_once("#}").ok_or("a comment {# is never closed by #}")?.1,
            Some(b'{') => expression_tag(tag, &mut out)?,
            Some(b'%') => statement_tag(tag, &mut out, &mut open)?,
            _ => {
                out.text.push('{');
                &tag[1..]
            }
        };
    }
    out.text.push_str(rest);
    match open.pop() {
        Some(tag) => Err(format!("{{% {tag} %}} is never closed")),
        None => Ok(out),
    }
}

/// What stands between the braces, where spaces around the tag go, and what follows it.
struct Tag<'t> {
    body: &'t str,
    left: &'static str,
    right: &'static str,
    rest: &'t str,
}

fn tag<'t>(text: &'t str, close: &str) -> Result<Tag<'t>, String> {
    let inside = &text[2..];
    let end = closing(inside, close).ok_or_else(|| {
        let start: String = text.chars().take(30).collect();
        format!("{start:?} is never closed by {close}")
    })?;
    let (body, rest) = (&inside[..end], &inside[end + 2..]);
    let (body, left) = body.strip_prefix('-').map_or((body, ""), |body| (body, "-"));
    let (body, right) = body.strip_suffix('-').map_or((body, ""), |body| (body, "-"));
    Ok(Tag { body, left, right, rest })
}

/// Where `close` stands outside of quotes.
fn closing(text: &str, close: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if text.get(at..).is_some_and(|text| text.starts_with(close)) => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn expression_tag<'t>(text: &'t str, out: &mut Translated) -> Result<&'t str, String> {
    let tag = tag(text, "}}")?;
    out.tags += 1;
    let expression = expression(&tokens(tag.body)?)?;
    let _ = write!(out.text, "{{{{{} {expression} {}}}}}", tag.left, tag.right);
    Ok(tag.rest)
}

fn statement_tag<'t>(
    text: &'t str,
    out: &mut Translated,
    open: &mut Vec<&'static str>,
) -> Result<&'t str, String> {
    let tag = tag(text, "%}")?;
    let words = tokens(tag.body)?;
    let (name, arguments) = match words.split_first() {
        Some((Token::Word(name), arguments)) => (*name, arguments),
        _ => return Err("a tag without a name".into()),
    };
    out.tags += 1;
    if matches!(name, "comment" | "verbatim") {
        let end = format!("end{name}");
        let (inside, rest) =
            until(tag.rest, &end).ok_or_else(|| format!("{{% {name} %}} is never closed"))?;
        if name == "verbatim" {
            if inside.contains("endraw") {
                return Err("endraw inside of verbatim".into());
            }
            let _ = write!(out.text, "{{% raw %}}{inside}{{% endraw %}}");
        }
        return Ok(rest);
    }
    let mut emit = |statement: &str| {
        let _ = write!(out.text, "{{%{} {statement} {}%}}", tag.left, tag.right);
    };
    match name {
        "if" => {
            enter(open, "if")?;
            emit(&format!("if {}", expression(arguments)?));
        }
        "ifequal" | "ifnotequal" => {
            enter(open, if name == "ifequal" { "ifequal" } else { "ifnotequal" })?;
            let [one, other] = arguments else { return Err(format!("{name} takes two values")) };
            let sign = if name == "ifequal" { "==" } else { "!=" };
            let side = |token: &Token<'_>| expression(std::slice::from_ref(token));
            emit(&format!("if {} {sign} {}", side(one)?, side(other)?));
        }
        "elif" if open.last() == Some(&"if") => emit(&format!("elif {}", expression(arguments)?)),
        "else" if open.last().is_some_and(|name| name.starts_with("if")) => emit("else"),
        "for" => {
            enter(open, "for")?;
            emit(&format!("for {}", for_loop(arguments)?));
            let dash = tag.right;
            let _ = write!(out.text, "{{{{{dash} {TICK}() {dash}}}}}");
        }
        "empty" if open.last() == Some(&"for") => emit("else"),
        "set" => emit(&format!("set {}", assignment(arguments)?)),
        "with" => {
            enter(open, "with")?;
            for part in split_assignments(arguments) {
                emit(&format!("set {}", assignment(part)?));
            }
        }
        // Nothing is escaped anyway.
        "autoescape" => enter(open, "autoescape")?,
        end if end.strip_prefix("end").is_some_and(|name| open.last() == Some(&name)) => {
            open.pop();
            match end {
                "endfor" => emit("endfor"),
                "endwith" | "endautoescape" => {}
                _ => emit("endif"),
            }
        }
        other => {
            return Err(format!(
                "unexpected tag {{% {other} %}} (valid: if, elif, else, endif, for, empty, endfor, ifequal, \
                 ifnotequal, set, with, comment, verbatim, autoescape)"
            ));
        }
    }
    Ok(tag.rest)
}

fn enter(open: &mut Vec<&'static str>, name: &'static str) -> Result<(), String> {
    open.push(name);
    if open.len() > MAX_DEPTH { Err(format!("nested more than {MAX_DEPTH} levels deep")) } else { Ok(()) }
}

/// What stands before the tag `end`, and what follows it.
fn until<'t>(text: &'t str, end: &str) -> Option<(&'t str, &'t str)> {
    let mut at = 0;
    loop {
        let start = at + text[at..].find("{%")?;
        let close = start + text[start..].find("%}")?;
        if text[start + 2..close].trim_matches(|c: char| c == '-' || c.is_whitespace()) == end {
            return Some((&text[..start], &text[close + 2..]));
        }
        at = start + 2;
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'t> {
    /// A name, maybe with dots, or a keyword.
    Word(&'t str),
    Number(&'t str),
    /// With its quotes.
    Text(&'t str),
    Sign(&'static str),
}

const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<>", "<=", ">=", "<", ">", "!", "|", ":", "(", ")", "+", "-", "*", "/", "%",
    ",", "=",
];

fn tokens(mut text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    loop {
        text = text.trim_start();
        let Some(first) = text.chars().next() else { return Ok(tokens) };
        if tokens.len() == MAX_TOKENS {
            return Err(format!("a tag with more than {MAX_TOKENS} words"));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let length = if first == '"' || first == '\'' {
            1 + end_of_text(text, first).ok_or_else(|| format!("{text} is never closed by {first}"))?
        } else {
            text.find(|c| !word(c)).unwrap_or(text.len())
        };
        let (token, rest) = text.split_at(length);
        if first == '"' || first == '\'' {
            tokens.push(Token::Text(token));
        } else if token.is_empty() {
            let sign = SIGNS.iter().find(|sign| text.starts_with(**sign));
            let sign = sign.ok_or_else(|| format!("unexpected {first:?} in a template"))?;
            tokens.push(Token::Sign(sign));
            text = &text[sign.len()..];
            continue;
        } else if first.is_ascii_digit() {
            tokens.push(Token::Number(token));
        } else {
            tokens.push(Token::Word(token));
        }
        text = rest;
    }
}

/// The last byte of the quoted text that `text` starts with.
fn end_of_text(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

/// tera knows no escapes but three kinds of quotes.
fn quoted(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut chars = text[1..text.len() - 1].chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => plain.extend(chars.next().map(|c| if c == 'n' { '\n' } else { c })),
            (c, false) => plain.push(c),
        }
    }
    let quote = ['"', '\'', '`'].into_iter().find(|quote| !plain.contains(*quote));
    let quote = quote.ok_or_else(|| format!("{text} holds every kind of quotes"))?;
    Ok(format!("{quote}{plain}{quote}"))
}

fn expression(tokens: &[Token<'_>]) -> Result<String, String> {
    let mut depth = 0_usize;
    for token in tokens {
        match token {
            Token::Sign("(") => depth += 1,
            Token::Sign(")") => depth = depth.checked_sub(1).ok_or("a ) without its (")?,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} levels deep"));
        }
    }
    if depth > 0 {
        return Err("a ( without its )".into());
    }
    logic(tokens, false)
}

/// The first token outside of parentheses that `wanted` names.
fn outside(tokens: &[Token<'_>], wanted: impl Fn(&Token<'_>) -> bool) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().position(|token| {
        match token {
            Token::Sign("(") => depth += 1,
            Token::Sign(")") => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && wanted(token)
    })
}

fn is_and(token: &Token<'_>) -> bool {
    matches!(token, Token::Sign("&&") | Token::Word("and"))
}

fn is_or(token: &Token<'_>) -> bool {
    matches!(token, Token::Sign("||") | Token::Word("or"))
}

fn is_not(token: &Token<'_>) -> bool {
    matches!(token, Token::Sign("!") | Token::Word("not"))
}

/// `and` and `or` bind alike in pongo2, and from the right. tera cannot negate what stands in
/// parentheses, so the negation goes inward.
fn logic(tokens: &[Token<'_>], negated: bool) -> Result<String, String> {
    let Some(at) = outside(tokens, |token| is_and(token) || is_or(token)) else {
        return operand(tokens, negated);
    };
    let both = is_and(&tokens[at]) != negated;
    let rest = &tokens[at + 1..];
    let (left, right) = (operand(&tokens[..at], negated)?, logic(rest, negated)?);
    let sign = if both { "and" } else { "or" };
    let other = outside(rest, if is_and(&tokens[at]) { is_or } else { is_and }).is_some();
    Ok(if other { format!("{left} {sign} ({right})") } else { format!("{left} {sign} {right}") })
}

fn operand(mut tokens: &[Token<'_>], mut negated: bool) -> Result<String, String> {
    while tokens.first().is_some_and(is_not) {
        tokens = &tokens[1..];
        negated = !negated;
    }
    if let [Token::Sign("("), inner @ .., Token::Sign(")")] = tokens
        && outside(tokens, |token| *token == Token::Sign(")")) == Some(tokens.len() - 1)
    {
        let several = outside(inner, |token| is_and(token) || is_or(token)).is_some();
        let inner = logic(inner, negated)?;
        // tera forgets a `not` that is alone in parentheses.
        return Ok(if several { format!("({inner})") } else { inner });
    }
    let is_comparison = |token: &Token<'_>| comparison(token, false).is_some();
    if let Some(at) = outside(tokens, is_comparison) {
        let sign = comparison(&tokens[at], negated).unwrap_or_default();
        let (mut left, mut right) = (value(&tokens[..at])?, value(&tokens[at + 1..])?);
        if !matches!(sign, "==" | "!=") {
            // Whole numbers are compared, unless one side is written as a fraction.
            let fraction = |token: &Token<'_>| matches!(token, Token::Number(number) if number.contains('.'));
            let number = if tokens.iter().any(fraction) { "float" } else { "integer" };
            left = format!("{left} | {number}");
            right = format!("{right} | {number}");
        }
        return Ok(format!("{left} {sign} {right}"));
    }
    if let Some(at) = outside(tokens, |token| *token == Token::Word("in")) {
        let (mut item, list) = (&tokens[..at], value(&tokens[at + 1..])?);
        if item.last().is_some_and(is_not) {
            item = &item[..item.len() - 1];
            negated = !negated;
        }
        return Ok(format!("{} {} {list}", value(item)?, if negated { "not in" } else { "in" }));
    }
    let plain = value(tokens)?;
    Ok(if negated { format!("not {plain}") } else { plain })
}

/// tera's sign for a comparison, or for its opposite.
fn comparison(token: &Token<'_>, negated: bool) -> Option<&'static str> {
    let Token::Sign(sign) = token else { return None };
    let (plain, opposite) = match *sign {
        "==" => ("==", "!="),
        "!=" | "<>" => ("!=", "=="),
        "<" => ("<", ">="),
        ">=" => (">=", "<"),
        ">" => (">", "<="),
        "<=" => ("<=", ">"),
        _ => return None,
    };
    Some(if negated { opposite } else { plain })
}

/// Names, texts, numbers, filters and arithmetic.
fn value(tokens: &[Token<'_>]) -> Result<String, String> {
    if tokens.is_empty() {
        return Err("a tag without a value".into());
    }
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        out.push(match token {
            Token::Text(text) => quoted(text)?,
            Token::Number(number) => (*number).to_owned(),
            Token::Word(word) => name(word, tokens.get(at))?,
            Token::Sign("|") => {
                let Some(Token::Word(filter)) = tokens.get(at) else {
                    return Err("| without a filter".into());
                };
                at += 1;
                let argument = match tokens.get(at..) {
                    Some([Token::Sign(":"), argument, ..]) => {
                        at += 2;
                        Some(value(std::slice::from_ref(argument))?)
                    }
                    _ => None,
                };
                filtered(filter, argument)?
            }
            Token::Sign(sign @ ("(" | ")" | "+" | "-" | "*" | "/" | "%")) => (*sign).to_owned(),
            Token::Sign(sign) => return Err(format!("unexpected {sign:?} in a template")),
        });
    }
    Ok(out.join(" "))
}

fn name(word: &str, next: Option<&Token<'_>>) -> Result<String, String> {
    if matches!(next, Some(Token::Sign("("))) && !matches!(word, "and" | "or" | "not" | "in") {
        return Err(format!("{word}(...): there are no functions in recipes"));
    }
    if matches!(word, "is" | "import" | "include") || word.starts_with("__") {
        return Err(format!("unexpected word {word:?} in a template"));
    }
    if word.starts_with('.') || word.ends_with('.') || word.contains("..") {
        return Err(format!("{word:?} is not a name"));
    }
    Ok(match word {
        "forloop.Counter" => "loop.index",
        "forloop.Counter0" => "loop.index0",
        "forloop.First" => "loop.first",
        "forloop.Last" => "loop.last",
        "True" => "true",
        "False" => "false",
        word => word,
    }
    .to_owned())
}

fn filtered(filter: &str, argument: Option<String>) -> Result<String, String> {
    let known = FILTERS.iter().find(|(name, ..)| *name == filter);
    let Some((name, takes, _)) = known else {
        let known: Vec<_> = FILTERS.iter().map(|(name, ..)| *name).collect();
        return Err(format!("unknown filter {filter:?} (valid: {})", known.join(", ")));
    };
    match (argument, takes) {
        // tera's takes the place of what is not there, pongo2's also of what is empty.
        (Some(argument), true) if *name == "default" => {
            Ok(format!("| default(value={argument}) | {OR}(value={argument})"))
        }
        (Some(argument), true) => Ok(format!("| {name}(value={argument})")),
        (None, false) => Ok(format!("| {name}")),
        (Some(_), false) => Err(format!("the filter {name} takes no value")),
        (None, true) => Err(format!("the filter {name} takes a value: |{name}:\"...\"")),
    }
}

/// `x in list`, `key, value in map`, with pongo2's `sorted` and `reversed` left out.
fn for_loop(tokens: &[Token<'_>]) -> Result<String, String> {
    let (names, list) = match tokens {
        [Token::Word(name), Token::Word("in"), list @ ..] => ((*name).to_owned(), list),
        [Token::Word(key), Token::Sign(","), Token::Word(value), Token::Word("in"), list @ ..] => {
            (format!("{key}, {value}"), list)
        }
        _ => return Err("expected {% for NAME in LIST %}".into()),
    };
    if names.contains('.') || names.contains("__") {
        return Err(format!("{names:?} is not a name"));
    }
    Ok(format!("{names} in {}", expression(list)?))
}

fn assignment(tokens: &[Token<'_>]) -> Result<String, String> {
    match tokens {
        [Token::Word(name), Token::Sign("="), value @ ..]
            if !name.contains('.') && !name.starts_with("__") =>
        {
            Ok(format!("{name} = {}", expression(value)?))
        }
        _ => Err("expected NAME = VALUE".into()),
    }
}

/// `a=1 b=2` in two.
fn split_assignments<'t>(tokens: &'t [Token<'t>]) -> Vec<&'t [Token<'t>]> {
    let mut starts: Vec<_> =
        (1..tokens.len()).filter(|at| tokens[*at] == Token::Sign("=")).map(|at| at - 1).collect();
    starts.push(tokens.len());
    if starts[0] != 0 {
        return vec![tokens];
    }
    starts.windows(2).map(|pair| &tokens[pair[0]..pair[1]]).collect()
}
