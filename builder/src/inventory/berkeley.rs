//! Berkeley databases, as rpm kept its packages in until 2020 (CentOS 7 and 8): a hash table in
//! pages, read by going through all of them. Large values are on chains of pages of their own.

/// Bytes of every page's head.
const HEAD: usize = 26;
/// Types of pages: a hash table's, unsorted and sorted.
const TABLE: [u8; 2] = [2, 13];
/// The type of a page that holds a piece of a large value.
const OVERFLOW: u8 = 7;
/// Types of items: the bytes themselves, and where they are.
const INLINE: u8 = 1;
const ELSEWHERE: u8 = 3;
/// In the first page of a hash table.
const MAGIC: u32 = 0x0006_1561;

/// The values of a hash table; none when this is not one. Together they are never larger than `data`.
pub(super) fn values(data: &[u8]) -> Vec<Vec<u8>> {
    let Some(table) = Table::new(data) else { return Vec::new() };
    let mut left = data.len();
    let mut values = Vec::new();
    for page in data.chunks_exact(table.page_size) {
        for place in table.places(page) {
            let Some(value) = table.value(page, place, left) else { continue };
            left -= value.len();
            values.push(value);
        }
    }
    values
}

struct Table<'d> {
    data: &'d [u8],
    page_size: usize,
    big_endian: bool,
}

impl<'d> Table<'d> {
    fn new(data: &'d [u8]) -> Option<Self> {
        let big_endian = match data.get(12..16)? {
            magic if magic == MAGIC.to_be_bytes() => true,
            magic if magic == MAGIC.to_le_bytes() => false,
            _ => return None,
        };
        let table = Self { data, page_size: 0, big_endian };
        let page_size = table.word(data, 20)?;
        let usual = page_size.is_power_of_two() && (512..=65536).contains(&page_size);
        usual.then_some(Self { page_size, ..table })
    }

    fn word(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let word = *bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) } as usize)
    }

    fn half(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let half = *bytes.get(at..)?.first_chunk()?;
        Some(if self.big_endian { u16::from_be_bytes(half) } else { u16::from_le_bytes(half) }.into())
    }

    /// Where the values of a page are: begin and end. Items lie from the page's end downwards, a key
    /// and a value in turn.
    fn places(&self, page: &[u8]) -> Vec<(usize, usize)> {
        if !TABLE.contains(&page[25]) {
            return Vec::new();
        }
        let count = self.half(page, 20).unwrap_or_default();
        let begin = |item: usize| self.half(page, HEAD + 2 * item);
        (1..count).step_by(2).filter_map(|item| Some((begin(item)?, begin(item - 1)?))).collect()
    }

    /// A value of at most `limit` bytes.
    fn value(&self, page: &[u8], (begin, end): (usize, usize), limit: usize) -> Option<Vec<u8>> {
        let item = page.get(begin..end)?;
        match *item.first()? {
            INLINE if item.len() <= limit => Some(item[1..].to_vec()),
            ELSEWHERE => self.chain(self.word(item, 4)?, self.word(item, 8)?, limit),
            _ => None,
        }
    }

    /// A value of this length that begins on this page. Every page adds to it, so a circle ends.
    fn chain(&self, mut number: usize, length: usize, limit: usize) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        while length <= limit && value.len() < length {
            let start = number.checked_mul(self.page_size)?;
            let page = self.data.get(start..start.checked_add(self.page_size)?)?;
            let piece = page.get(HEAD..HEAD + self.half(page, 22)?)?;
            if page[25] != OVERFLOW || piece.is_empty() {
                return None;
            }
            value.extend_from_slice(piece);
            number = self.word(page, 16)?;
        }
        (value.len() == length).then_some(value)
    }
}
