//! What a bug is: a way in which a backend is wrong, and the check that exists to see it.

macro_rules! bugs {
    ($($check:ident: $($bug:ident = $what:literal),+;)*) => {
        /// One way in which a backend is wrong. Each was or could be in a real one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[doc = $what] $bug,)+)*
        }

        impl Bug {
            /// Every bug.
            pub(crate) const ALL: &'static [Self] = &[$($(Self::$bug,)+)*];

            /// What the broken backend does.
            pub(crate) fn what(self) -> &'static str {
                match self {
                    $($(Self::$bug => $what,)+)*
                }
            }

            /// The check that must reject it, by its name without the line.
            pub(crate) fn check(self) -> &'static str {
                match self {
                    $($(Self::$bug)|+ => stringify!($check),)*
                }
            }
        }
    };
}

mod table;

pub(crate) use table::Bug;
