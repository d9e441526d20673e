//! What can be asked of a running store, as a line of text.

use std::str::FromStr;
use std::time::Duration;

/// A wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// All that is kept, and what comes for so long (`after`, where `None`). Triggers that overlap become one replay, in
    /// which no frame comes twice.
    Trigger(Option<Duration>),
    /// What was captured between two moments, as long ago as they say. The second may be longer ago than the first: then
    /// it is played backwards. The same twice is the one frame that was current then.
    Play {
        /// Begins so long ago.
        from: Duration,
        /// Ends so long ago.
        to: Duration,
    },
}

/// Why a line says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{line}` is none of: trigger [SECONDS AFTER], play SECONDS-AGO SECONDS-AGO (the larger last is backwards), at SECONDS-AGO"
)]
pub struct CommandError {
    line: String,
}

/// An empty line is a trigger.
impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Command, CommandError> {
        let wrong = || CommandError { line: line.trim().chars().take(80).collect() };
        let words: Vec<&str> = line.split_whitespace().collect();
        let seconds = |word: &str| {
            let number = word.strip_suffix('s').unwrap_or(word).parse::<f64>().map_err(|_| wrong())?;
            Duration::try_from_secs_f64(number).map_err(|_| wrong())
        };
        match words.as_slice() {
            [] | ["trigger"] => Ok(Command::Trigger(None)),
            ["trigger", after] => Ok(Command::Trigger(Some(seconds(after)?))),
            ["play", from, to] => Ok(Command::Play { from: seconds(from)?, to: seconds(to)? }),
            ["at", ago] => Ok(Command::Play { from: seconds(ago)?, to: seconds(ago)? }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        let s = Duration::from_secs;
        assert_eq!("".parse(), Ok(Command::Trigger(None)));
        assert_eq!(" trigger 2.5s".parse(), Ok(Command::Trigger(Some(Duration::from_millis(2500)))));
        assert_eq!("play 10 5".parse(), Ok(Command::Play { from: s(10), to: s(5) }));
        assert_eq!("at 3s".parse(), Ok(Command::Play { from: s(3), to: s(3) }));
    }

    #[test]
    fn other_lines_say_what_there_is() {
        for line in ["go", "trigger soon", "play 1", "play -1 2", "at 1e300", "trigger 1 2", "trigger NaN"] {
            let error = line.parse::<Command>().unwrap_err();
            assert!(error.to_string().contains("none of: trigger"), "{error}");
        }
    }
}
