//! The image's symbols, demangled: what crash reports and lint findings name places by.

/// A function or object of the image.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Symbol {
    /// Name, demangled.
    pub name: String,
    /// Offset of its first byte in the image.
    pub offset: u64,
    /// Length in bytes; 0 where unknown.
    pub length: u64,
}

/// All symbols, by offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols(Vec<Symbol>);

impl Symbols {
    /// Takes symbols with mangled names in any order.
    pub(super) fn new(mut symbols: Vec<Symbol>) -> Self {
        for symbol in &mut symbols {
            symbol.name = format!("{:#}", rustc_demangle::demangle(&symbol.name));
        }
        symbols.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
        Self(symbols)
    }

    /// The symbols in order of their offsets.
    pub fn iter(&self) -> std::slice::Iter<'_, Symbol> {
        self.0.iter()
    }

    /// The symbol that `offset` lies in, with the distance from its start.
    pub fn at(&self, offset: u64) -> Option<(&Symbol, u64)> {
        let after = self.0.partition_point(|symbol| symbol.offset <= offset);
        let symbol = self.0[..after].last()?;
        let distance = offset - symbol.offset;
        (distance < symbol.length.max(1)).then_some((symbol, distance))
    }

    /// A place as text: `function+0x12`, or `0x1234` where no symbol is known.
    pub fn place(&self, offset: u64) -> String {
        match self.at(offset) {
            Some((symbol, distance)) => format!("{}+{distance:#x}", symbol.name),
            None => format!("{offset:#x}"),
        }
    }
}
