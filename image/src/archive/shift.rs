//! Ids within extended attributes, moved along with the owners of files: those of file
//! capabilities and of access control lists (`linux/capability.h`, `linux/posix_acl_xattr.h`).

/// Why an attribute could not be moved.
type Refused = &'static str;

const CAPABILITY_VERSION: u32 = 0xff00_0000;
const CAPABILITY_VERSION_3: u32 = 0x0300_0000;
const ACL_VERSION: &[u8] = &2_u32.to_le_bytes();
/// Tags of entries that name a user or a group.
const ACL_NAMED: [u16; 2] = [0x02, 0x08];

/// The value of `name` where every id is `base` higher; ids from `count` on are refused. Attributes
/// without ids come back as they are.
pub(super) fn shift(name: &str, value: &[u8], base: u32, count: u32) -> Result<Vec<u8>, Refused> {
    let moved = |id: u32| id.checked_add(base).filter(|_| id < count);
    match name {
        "security.capability" => capability(value, moved),
        "system.posix_acl_access" | "system.posix_acl_default" => access_list(value, moved),
        _ => Ok(value.to_vec()),
    }
}

/// Capabilities of version 1 or 2 count on the whole machine. Version 3 names who is root where
/// they count: there and in what is nested in it.
fn capability(value: &[u8], moved: impl Fn(u32) -> Option<u32>) -> Result<Vec<u8>, Refused> {
    let (magic, sets) = value.split_first_chunk().ok_or("broken file capabilities")?;
    let magic = u32::from_le_bytes(*magic);
    let (sets, root) = match (magic & CAPABILITY_VERSION, sets.len()) {
        (0x0100_0000, 8) => ([sets, &[0; 8]].concat(), 0),
        (0x0200_0000, 16) => (sets.to_vec(), 0),
        (CAPABILITY_VERSION_3, 20) => (sets[..16].to_vec(), number(&sets[16..])),
        _ => return Err("broken file capabilities"),
    };
    let magic = magic & !CAPABILITY_VERSION | CAPABILITY_VERSION_3;
    let root = moved(root).ok_or("file capabilities for a user outside the ids mapped")?;
    Ok([&magic.to_le_bytes(), &sets[..], &root.to_le_bytes()].concat())
}

fn access_list(value: &[u8], moved: impl Fn(u32) -> Option<u32>) -> Result<Vec<u8>, Refused> {
    let entries = value.strip_prefix(ACL_VERSION).filter(|entries| entries.len() % 8 == 0);
    let mut out = ACL_VERSION.to_vec();
    for entry in entries.ok_or("a broken access control list")?.chunks_exact(8) {
        let named = ACL_NAMED.contains(&u16::from_le_bytes([entry[0], entry[1]]));
        let id = number(&entry[4..]);
        let id =
            if named { moved(id).ok_or("an access control list with ids outside those mapped")? } else { id };
        out.extend_from_slice(&entry[..4]);
        out.extend_from_slice(&id.to_le_bytes());
    }
    Ok(out)
}

/// Of four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPABILITY: &str = "security.capability";

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn capabilities_become_those_of_a_root() {
        let moved = |value: &[u32]| shift(CAPABILITY, &words(value), 100_000, 1000);
        let third = |root| Ok(words(&[0x0300_0001, 1 << 13, 2, 3, 4, root]));
        assert_eq!(moved(&[0x0200_0001, 1 << 13, 2, 3, 4]), third(100_000));
        assert_eq!(moved(&[0x0300_0001, 1 << 13, 2, 3, 4, 7]), third(100_007));
        assert_eq!(moved(&[0x0100_0000, 5, 6]), Ok(words(&[0x0300_0000, 5, 6, 0, 0, 100_000])));
        assert!(moved(&[0x0300_0000, 0, 0, 0, 0, 1000]).unwrap_err().contains("outside"));
        assert!(shift(CAPABILITY, &words(&[0x0200_0000, 0, 0, 0, 0]), u32::MAX, 1).is_ok());
        for broken in [&[][..], &[0x0200_0000], &[0x0300_0000, 0, 0, 0, 0], &[0x0400_0000, 0, 0, 0, 0, 0]] {
            assert!(moved(broken).unwrap_err().contains("broken"), "{broken:x?}");
        }
        assert!(shift(CAPABILITY, &[1, 2, 3], 0, 1).is_err());
    }

    #[test]
    fn lists_move_the_ids_they_name() {
        let name = "system.posix_acl_access";
        let list = |user, group| {
            words(&[2, 0x0006_0001, u32::MAX, 0x0004_0002, user, 0x0004_0004, u32::MAX, 0x0004_0008, group])
        };
        assert_eq!(shift(name, &list(1, 4), 100_000, 1000), Ok(list(100_001, 100_004)));
        assert!(shift(name, &list(1000, 4), 100_000, 1000).unwrap_err().contains("outside"));
        assert!(shift(name, &list(1, 4)[..9], 100_000, 1000).unwrap_err().contains("broken"));
        assert!(shift(name, &words(&[3]), 100_000, 1000).is_err());
        assert_eq!(shift("user.note", b"x", 100_000, 1000), Ok(b"x".to_vec()));
    }
}
