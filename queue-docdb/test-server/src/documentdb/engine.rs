//! The engines of Amazon DocumentDB.

use std::fmt;

/// An engine of Amazon DocumentDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// Clusters of instances, compatible with MongoDB 3.6.
    V3_6,
    /// Clusters of instances, compatible with MongoDB 4.0.
    V4_0,
    /// Clusters of instances, compatible with MongoDB 5.0.
    V5_0,
    /// Clusters of instances, compatible with MongoDB 8.0.
    V8_0,
    /// Elastic clusters.
    Elastic,
}

impl Engine {
    /// Every engine, in the order of the table's columns.
    pub const ALL: [Self; 5] = [
        Self::V3_6,
        Self::V4_0,
        Self::V5_0,
        Self::V8_0,
        Self::Elastic,
    ];
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_6 => "3.6",
            Self::V4_0 => "4.0",
            Self::V5_0 => "5.0",
            Self::V8_0 => "8.0",
            Self::Elastic => "elastic",
        })
    }
}

/// A set of engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Engines([bool; 5]);

impl Engines {
    /// Every engine.
    pub const ALL: Self = Self([true; 5]);

    /// From the columns of the table.
    pub(crate) fn of_columns(columns: [bool; 5]) -> Self {
        Self(columns)
    }

    /// These engines.
    #[must_use]
    pub fn of(engines: &[Engine]) -> Self {
        Self(Engine::ALL.map(|engine| engines.contains(&engine)))
    }

    /// Whether `engine` is in the set.
    #[must_use]
    pub fn contains(self, engine: Engine) -> bool {
        self.0[engine as usize]
    }

    /// The engines in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(Engine::ALL.map(|engine| self.contains(engine) && other.contains(engine)))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == [false; 5]
    }
}

impl fmt::Display for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for engine in Engine::ALL {
            if self.contains(engine) {
                write!(f, "{comma}{engine}")?;
                comma = ", ";
            }
        }
        Ok(())
    }
}
