//! Telling code from comments and strings, so that a rule about code does not fire on prose.

/// `source` without the contents of comments, strings and character literals; lines stay lines.
pub(super) fn code_only(source: &str) -> String {
    let characters: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut position = 0;
    while position < characters.len() {
        match end_of_skipped(&characters, position) {
            Some(end) => {
                let skipped = &characters[position..end];
                code.extend(skipped.iter().filter(|character| **character == '\n'));
                // Keeps the words before and after apart.
                code.push(' ');
                position = end;
            }
            None => {
                code.push(characters[position]);
                position += 1;
            }
        }
    }
    code
}

/// Where the comment, string or character literal that starts at `start` ends, if one does.
fn end_of_skipped(text: &[char], start: usize) -> Option<usize> {
    let rest = &text[start..];
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => quoted(rest, '"'),
        ['r', '"' | '#', ..] if !continues_a_word(text, start) => raw_string(rest)?,
        ['\'', '\\', ..] => quoted(rest, '\''),
        ['\'', _, '\'', ..] => 3,
        _ => return None,
    };
    Some(start + length)
}

/// `br"…"` and `cr"…"` are raw strings too; `for"` cannot be written, and `our#` is no string.
fn continues_a_word(text: &[char], start: usize) -> bool {
    let before = |back: usize| start.checked_sub(back).map(|index| text[index]);
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match before(1) {
        Some('b' | 'c') => is_word(before(2)),
        other => is_word(other),
    }
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut position = 0;
    while position < rest.len() {
        match &rest[position..] {
            ['/', '*', ..] => (depth, position) = (depth + 1, position + 2),
            ['*', '/', ..] => (depth, position) = (depth - 1, position + 2),
            _ => position += 1,
        }
        if depth == 0 {
            break;
        }
    }
    position
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut position = 1;
    while let Some(character) = rest.get(position) {
        match character {
            '\\' => position += 2,
            found if *found == quote => return position + 1,
            _ => position += 1,
        }
    }
    rest.len()
}

/// `r#"…"#`; nothing for a raw identifier such as `r#type`.
fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let body = 2 + hashes;
    let length = rest[body..]
        .windows(end.len())
        .position(|window| window == end);
    Some(length.map_or(rest.len(), |length| body + length + end.len()))
}

/// Whether `code` contains `word` not as the tail of a longer word.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word)
        .any(|(start, _)| !code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_left_out_and_lines_stay() {
        let code = code_only("a // x\nb /* y\n/* z */ y */ c\n");
        assert_eq!(
            code.lines().map(str::trim).collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn strings_are_left_out() {
        let code = code_only(r##"f("x \" y", r#"x "y" "#, b"x", br"x\", 'x', '\'') + z"##);
        assert!(!code.contains('x') && !code.contains('y'), "{code}");
        assert!(code.ends_with(") + z"), "{code}");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_stay() {
        assert_eq!(
            code_only("fn f<'a>(r#type: &'a str)"),
            "fn f<'a>(r#type: &'a str)"
        );
    }

    #[test]
    fn a_word_is_not_the_tail_of_another() {
        assert!(has_word("std::thread::sleep(x)", "sleep("));
        assert!(!has_word("do_not_sleep(x)", "sleep("));
    }
}
