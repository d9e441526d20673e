//! Who may connect, as people write it.

use nix::unistd::User;

/// What a text about access does not say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessListError {
    /// Not permission bits.
    #[error("`{0}` are no permission bits; they are octal, such as 660")]
    Mode(String),
    /// Nobody of that name.
    #[error("`{0}` is no user of this machine")]
    Nobody(String),
    /// The user database does not answer.
    #[error("`{name}` could not be looked up: {source}")]
    LookUp {
        /// Name asked for.
        name: String,
        /// What the system said.
        source: nix::Error,
    },
}

/// The permission bits of a socket, from octal.
///
/// # Errors
/// [`AccessListError::Mode`].
pub fn mode(octal: &str) -> Result<u32, AccessListError> {
    let mode = u32::from_str_radix(octal, 8).ok().filter(|&mode| mode <= 0o777);
    mode.ok_or_else(|| AccessListError::Mode(octal.to_owned()))
}

/// Users' numbers, from names or numbers with commas between.
///
/// # Errors
/// [`AccessListError`], for the first that is none.
pub fn users(list: &str) -> Result<Vec<u32>, AccessListError> {
    let number = |name: &str| match name.parse::<u32>() {
        Ok(number) => Ok(number),
        Err(_) => match User::from_name(name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()),
            Ok(None) => Err(AccessListError::Nobody(name.to_owned())),
            Err(source) => Err(AccessListError::LookUp { name: name.to_owned(), source }),
        },
    };
    list.split(',').map(|name| number(name.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_is_octal_and_no_more_than_permissions() {
        assert_eq!(mode("660"), Ok(0o660));
        for other in ["", "9", "1000", "u+w"] {
            assert_eq!(mode(other), Err(AccessListError::Mode(other.to_owned())));
        }
    }

    #[test]
    fn users_are_names_and_numbers() {
        assert_eq!(users("root, 1234"), Ok(vec![0, 1234]));
        for (list, nobody) in [("nobody-of-this-name", "nobody-of-this-name"), ("0,,1", "")] {
            assert_eq!(users(list), Err(AccessListError::Nobody(nobody.to_owned())));
        }
    }
}
