//! The codes of blocks, which say how wide their fields are: 4 bits each, with runs of zeros shortened.

/// Codes two to a byte, the first in the lower half; a byte of 0 is followed by the number of further bytes of 0.
/// `room` is for the bytes before runs are shortened.
pub(super) fn put(codes: &[u8], room: &mut Vec<u8>, out: &mut Vec<u8>) {
    let (pairs, last) = codes.as_chunks::<2>();
    room.clear();
    room.extend(pairs.iter().map(|[low, high]| low | high << 4));
    room.extend_from_slice(last);
    if !room.contains(&0) {
        return out.extend_from_slice(room);
    }
    for run in room.chunk_by(|a, b| a == b) {
        if run[0] == 0 {
            out.extend(run.chunks(256).flat_map(|run| [0, (run.len() - 1) as u8]));
        } else {
            out.extend_from_slice(run);
        }
    }
}

/// The codes of `blocks` blocks, still two to a byte: `bytes` as they are, or in `room` where there are runs.
///
/// # Errors
/// There are more or fewer.
pub(super) fn get<'a>(mut bytes: &'a [u8], blocks: usize, room: &'a mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    let pairs = blocks.div_ceil(2);
    let all = if bytes.contains(&0) {
        room.clear();
        while let [byte, rest @ ..] = bytes {
            bytes = rest;
            room.push(*byte);
            if *byte == 0 {
                let [more, rest @ ..] = bytes else { return Err("its codes end in a run") };
                bytes = rest;
                room.resize(room.len() + usize::from(*more), 0);
            }
            if room.len() > pairs {
                return Err("it has more codes than blocks");
            }
        }
        room.as_slice()
    } else {
        bytes
    };
    if all.len() != pairs {
        return Err("it has fewer or more codes than blocks");
    }
    if blocks % 2 == 1 && all[pairs - 1] > 15 {
        return Err("it has a code for no block");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back() {
        for blocks in [1, 2, 3, 64, 511, 2000] {
            for every in [1, 2, 3, 70, 900] {
                let codes: Vec<u8> = (0..blocks).map(|i| if i % every == 0 { (i % 16) as u8 } else { 0 }).collect();
                let (mut bytes, mut room) = (Vec::new(), Vec::new());
                put(&codes, &mut room, &mut bytes);
                let pairs = get(&bytes, blocks, &mut room).unwrap();
                let back: Vec<u8> = pairs.iter().flat_map(|p| [p & 15, p >> 4]).take(blocks).collect();
                assert_eq!(back, codes, "{blocks} {every}");
            }
        }
    }

    #[test]
    fn codes_of_other_blocks_are_refused() {
        for (bytes, blocks) in [(&[0x11][..], 3), (&[0x11, 0x11], 2), (&[0], 2), (&[0, 1], 2), (&[0x11], 1), (&[], 1)] {
            assert!(get(bytes, blocks, &mut Vec::new()).is_err(), "{bytes:?} {blocks}");
        }
    }
}
