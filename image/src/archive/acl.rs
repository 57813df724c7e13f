//! Access control lists as text, the way GNU tar, star and libarchive keep them in extended headers
//! (IEEE 1003.1e draft 17: `user::rwx,user:1000:r-x,…`), and as the kernel's attributes
//! (`linux/posix_acl_xattr.h`). Readers know one or the other; archives of ours hold both.

use super::pax;

const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const NO_ID: u32 = u32::MAX;

/// Attribute and the key of its text.
const FORMS: [(&str, &str); 2] =
    [("system.posix_acl_access", "SCHILY.acl.access"), ("system.posix_acl_default", "SCHILY.acl.default")];

/// Tag of an entry with an empty name, tag of one with a name, word.
const TAGS: [(u16, Option<u16>, &str); 4] =
    [(0x01, Some(0x02), "user"), (0x04, Some(0x08), "group"), (0x10, None, "mask"), (0x20, None, "other")];

/// The key and the text for an attribute that is a list.
pub(super) fn record(name: &str, value: &[u8]) -> Option<(&'static str, String)> {
    let (_, key) = FORMS.iter().find(|(attribute, _)| *attribute == name)?;
    let entries = value.strip_prefix(&VERSION)?.chunks_exact(8);
    entries.map(entry).collect::<Option<Vec<_>>>().map(|entries| (*key, entries.join(",")))
}

fn entry(bytes: &[u8]) -> Option<String> {
    let tag = u16::from_le_bytes([bytes[0], bytes[1]]);
    let permissions: String = [(4, 'r'), (2, 'w'), (1, 'x')]
        .map(|(bit, c)| if bytes[2] & bit > 0 { c } else { '-' })
        .iter()
        .collect();
    let id = u32::from_le_bytes(bytes[4..].try_into().ok()?);
    TAGS.iter().find_map(|(plain, named, word)| {
        (*plain == tag)
            .then(|| format!("{word}::{permissions}"))
            .or_else(|| (*named == Some(tag)).then(|| format!("{word}:{id}:{permissions}")))
    })
}

/// Moves lists among the records to the attributes, but where the attribute is there as well. A
/// list that names its users by name is passed over, as names mean nothing outside its machine.
pub(super) fn attributes(
    records: &pax::Records,
    attributes: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), String> {
    for (name, key) in FORMS {
        let Some(text) = records.get(key) else { continue };
        if attributes.iter().any(|(attribute, _)| attribute == name) {
            continue;
        }
        let list = std::str::from_utf8(text).ok().and_then(parse).ok_or_else(|| format!("broken {key}"))?;
        attributes.extend(list.map(|value| (name.to_owned(), value)));
    }
    Ok(())
}

/// The attribute's value, `None` where a user or group has no number; the outer `None` is for text that is no
/// list.
#[allow(clippy::option_option, reason = "broken and useless are told apart only here")]
fn parse(text: &str) -> Option<Option<Vec<u8>>> {
    let mut entries = Vec::new();
    let mut named_by_name = false;
    for entry in text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty()) {
        // What stands behind # is a remark on the permissions in effect.
        let entry = entry.split('#').next().unwrap_or_default().trim_end();
        let fields: Vec<_> = entry.split(':').collect();
        let (word, who, permissions, number) = match fields[..] {
            [word, who, permissions] => (word, who, permissions, who),
            [word, who, permissions, number] => (word, who, permissions, number),
            // The short form of the two that have no name.
            [word @ ("mask" | "other"), permissions] => (word, "", permissions, ""),
            _ => return None,
        };
        let (plain, named, _) = TAGS.iter().find(|(_, _, name)| *name == word)?;
        let tag = if who.is_empty() { *plain } else { (*named)? };
        let id = match number.parse() {
            _ if who.is_empty() => NO_ID,
            Ok(id) => id,
            Err(_) => {
                named_by_name = true;
                NO_ID
            }
        };
        entries.push((tag, id, bits(permissions)?));
    }
    // The kernel wants them in this order.
    entries.sort_unstable();
    let bytes = entries.iter().flat_map(|(tag, id, bits)| {
        [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    Some((!named_by_name && !entries.is_empty()).then(|| VERSION.into_iter().chain(bytes).collect()))
}

fn bits(permissions: &str) -> Option<u16> {
    permissions.chars().try_fold(0, |bits, c| {
        Some(
            bits | match c {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                '-' => 0,
                _ => return None,
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let records = pax::Records::from([("SCHILY.acl.access".to_owned(), text.into())]);
        let mut found = Vec::new();
        attributes(&records, &mut found).map(|()| found)
    }

    #[test]
    fn lists_become_text_and_back() {
        let text = "user::rwx,user:4:r-x,user:70000:---,group::r-x,group:5:-w-,mask::rwx,other::---";
        let found = read(text).unwrap();
        assert_eq!(record(&found[0].0, &found[0].1), Some(("SCHILY.acl.access", text.to_owned())));
        let spelled = "user::rwx\nuser:games:r-x:4 #effective:r--\nuser:70000:---\ngroup::rx\ngroup:5:w\nmask:rwx\nother:---\n";
        assert_eq!(read(spelled).unwrap(), found);
        assert_eq!(record("user.note", b"x"), None);
    }

    #[test]
    fn names_are_passed_over_and_nonsense_is_refused() {
        assert_eq!(read("user::rwx,user:games:r-x,group::---,mask::r-x,other::---").unwrap(), []);
        for broken in ["user", "user::rwz", "mask:3:rwx", "nobody::r--", "user:1:2:3:4"] {
            assert!(read(broken).unwrap_err().contains("broken"), "{broken}");
        }
    }
}
