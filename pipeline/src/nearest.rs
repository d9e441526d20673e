//! "Did you mean …?"

/// The name most like `word`, if one is like it at all.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance costs memory as the product of both lengths, and a word may be all of a broken file.
    if word.len() > 100 {
        return None;
    }
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        // A third of the letters wrong is still a typing error; more is another word.
        .filter(|(distance, name)| *distance <= name.len().max(word.len()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_typing_error_is_found_and_another_word_is_not() {
        let names = ["kms-sink", "v4l2-src", "file-sink"];
        assert_eq!(nearest("kms-snik", names), Some("kms-sink"));
        assert_eq!(nearest("v4l-src", names), Some("v4l2-src"));
        assert_eq!(nearest("gizmo", names), None);
    }
}
