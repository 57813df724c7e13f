//! Archives made byte by byte, so that they can say what no packer would.

/// One raw header with its data, checksummed; `change` may break fields first.
pub fn raw(name: &[u8], kind: u8, link: &[u8], data: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut block);
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

pub fn entry(name: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
    raw(name.as_bytes(), kind, link.as_bytes(), data, |_| {})
}

pub fn file(name: &str) -> Vec<u8> {
    entry(name, b'0', "", b"data")
}

pub fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..rest + 9).find(|n| n - n.to_string().len() == rest).unwrap();
        data.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    entry("pax", b'x', "", &data)
}

pub fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}
