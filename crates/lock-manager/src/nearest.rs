//! The name that was probably meant.

/// ` (did you mean …?)` with the nearest candidate, or nothing if none is near.
pub(crate) fn did_you_mean<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    nearest(wrong, candidates)
        .map(|name| format!(" (did you mean `{name}`?)"))
        .unwrap_or_default()
}

/// The candidate within one edit per three letters, case aside; the first of equals.
fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let limit = (wrong.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            let spelled = candidate.to_lowercase();
            (strsim::damerau_levenshtein(&wrong, &spelled), candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_name_is_suggested() {
        let names = ["threading", "file", "redis"];
        assert_eq!(nearest("reddis", names), Some("redis"));
        assert_eq!(nearest("Redis", names), Some("redis"));
        assert_eq!(nearest("thraeding", names), Some("threading"));
        assert_eq!(nearest("flie", names), Some("file"));
        assert_eq!(nearest("consul", names), None);
        assert_eq!(nearest("", names), None);
    }
}
