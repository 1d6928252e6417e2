//! The `key=value,key` form of device options.

use std::collections::BTreeMap;

use super::ConfigError;

/// The fields of one option, to be taken one by one.
pub(super) struct Fields<'a> {
    option: &'static str,
    example: &'static str,
    text: &'a str,
    fields: BTreeMap<&'a str, Option<&'a str>>,
}

impl<'a> Fields<'a> {
    /// Splits `text`, which belongs to `option` and could look like `example`.
    pub(super) fn split(
        option: &'static str,
        example: &'static str,
        text: &'a str,
    ) -> Result<Self, ConfigError> {
        let mut fields = BTreeMap::new();
        for field in text.split(',').filter(|field| !field.is_empty()) {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (field, None),
            };
            if fields.insert(key, value).is_some() {
                return Err(ConfigError::Twice { option, key: key.to_owned() });
            }
        }
        Ok(Self { option, example, text, fields })
    }

    /// The value of `key`, if it is there; a key without a value has an empty one.
    pub(super) fn take(&mut self, key: &str) -> Option<&'a str> {
        self.fields.remove(key).map(Option::unwrap_or_default)
    }

    /// The value of `key`, which must be there and not be empty.
    pub(super) fn require(&mut self, key: &'static str) -> Result<&'a str, ConfigError> {
        self.take(key).filter(|value| !value.is_empty()).ok_or_else(|| ConfigError::Missing {
            option: self.option,
            text: self.text.to_owned(),
            key,
            example: self.example,
        })
    }

    /// Checks that nothing is left; `known` lists the keys that exist.
    pub(super) fn finish(self, known: &'static str) -> Result<(), ConfigError> {
        match self.fields.into_keys().next() {
            Some(key) => {
                Err(ConfigError::UnknownKey { option: self.option, key: key.to_owned(), known })
            }
            None => Ok(()),
        }
    }
}
