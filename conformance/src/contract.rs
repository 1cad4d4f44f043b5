//! The lines of the contract of [`QueueBackend`](queue_api::QueueBackend).

use std::fmt;

macro_rules! lines {
    ($($(#[$doc:meta])* $line:ident = $code:literal $title:literal,)*) => {
        /// A line of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Line {
            $(#[doc = concat!($code, ", ", $title, ".")] $line,)*
        }

        impl Line {
            /// Every line, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$line,)*];

            /// The line's short name, such as `E1`.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$line => $code,)*
                }
            }

            /// The line's title, such as `kept`.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$line => $title,)*
                }
            }
        }
    };
}

lines! {
    E1 = "E1" "kept",
    E2 = "E2" "idempotent",
    E3 = "E3" "faithful",
    E4 = "E4" "delayed",
    L1 = "L1" "exclusive",
    L2 = "L2" "visible again",
    L3 = "L3" "counted",
    L4 = "L4" "bounded",
    A1 = "A1" "gone",
    A2 = "A2" "fenced",
    A3 = "A3" "late is fine",
    A4 = "A4" "once",
    A5 = "A5" "changed",
    D1 = "D1" "dead letter",
    Q1 = "Q1" "isolated",
    S1 = "S1" "counted right",
    W1 = "W1" "woken",
    M1 = "M1" "managed",
    C1 = "C1" "cancel-safe",
    C2 = "C2" "concurrent",
    R1 = "R1" "durable",
    X1 = "X1" "repeatable",
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.title())
    }
}
