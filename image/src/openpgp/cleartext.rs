//! The shape of a cleartext-signed message (RFC 9580, section 7), checked before it is verified:
//! exactly one message, nothing before it, nothing after it, no headers but `Hash`.

use crate::{Error, Result};

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// Refuses messages in which some reader could see other text than the verified one.
pub(super) fn check_shape(message: &[u8]) -> Result<()> {
    let bad = |reason: &str| Error::Signature(format!("signed text refused: {reason}"));
    let text = std::str::from_utf8(message).map_err(|_| bad("it is not UTF-8"))?;
    let mut lines = text.lines();
    if lines.next() != Some(BEGIN) {
        return Err(bad("it does not begin with the signed message"));
    }
    for header in lines.by_ref().take_while(|line| !line.is_empty()) {
        let names = header.strip_prefix("Hash: ").ok_or_else(|| bad("a header other than Hash"))?;
        if !names.bytes().all(|b| b.is_ascii_alphanumeric() || b", -".contains(&b)) {
            return Err(bad("a malformed Hash header"));
        }
    }
    if !lines.by_ref().take_while(|line| *line != SIGNATURE).all(is_body) {
        return Err(bad("a second message, or a line that is not dash-escaped"));
    }
    let mut ended = false;
    for line in lines {
        match line {
            END if !ended => ended = true,
            "" if ended => {}
            _ if ended => return Err(bad("there is text after the signature")),
            _ if line.starts_with("-----") => return Err(bad("a second signature block")),
            _ => {}
        }
    }
    if ended { Ok(()) } else { Err(bad("it has no signature, or is cut off")) }
}

fn is_body(line: &str) -> bool {
    !line.starts_with('-') || line.starts_with("- ")
}
