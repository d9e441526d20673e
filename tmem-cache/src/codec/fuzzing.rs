//! What fuzzers and measurements need: a way behind the checksums, and the code for lesser processors.

use super::path::Path;
use super::picture::Picture;
use super::reference::Reference;
use super::{Decoder, Encoder, stream};

/// Turns bytes into a stream of the picture, predicted from the reference if there is one, whose header, table and checksums are right, as far as there are bytes: the
/// stripes' sizes and kinds are taken as they come, as far as they fit.
pub fn mend(picture: &Picture, reference: Option<&Reference>, bytes: &mut Vec<u8>) {
    let head = stream::head_bytes(picture);
    if bytes.len() < head {
        bytes.resize(head, 0);
    }
    let (head, stripes) = bytes.split_at_mut(head);
    let mut at = 0;
    for stripe in 0..picture.stripes() {
        let last = stripe + 1 == picture.stripes();
        at += stream::mend_entry(head, stripe, &stripes[at..], last);
    }
    stream::put_header(head, picture, reference.map(Reference::id));
}

/// Each way in which this processor can run the codec, by its name; the best last.
pub fn ways() -> impl Iterator<Item = (String, Encoder, Decoder)> {
    Path::available().map(|path| (format!("{path:?}"), Encoder::with_path(1, path), Decoder::with_path(1, path)))
}
