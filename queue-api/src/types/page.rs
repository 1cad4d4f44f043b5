//! Lists that are read in pages.

use std::{ops::Deref, sync::Arc};

use crate::{DeadLetter, PeekedMessage, types::plain_text};

/// The place in a list at which its next page starts. Only the backend that returned it knows what
/// it means.
///
/// It is text without control characters. You can put it into a URL and send it back later.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageToken(Arc<str>);

plain_text!(
    PageToken,
    "Wraps the text of a token. For text that no backend returned, a call fails or returns any page."
);

/// Which page of a list to read.
///
/// ```
/// use queue_api::{PageOptions, PageToken};
///
/// let first = PageOptions::new(50);
/// assert_eq!((first.max(), first.token()), (50, None));
///
/// let token = PageToken::new("returned with the first page");
/// let second = PageOptions::new(50).with_token(token.clone());
/// assert_eq!(second.token(), Some(&token));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOptions {
    max: usize,
    token: Option<PageToken>,
}

impl PageOptions {
    /// The first page, with at most `max` items.
    pub fn new(max: usize) -> Self {
        Self { max, token: None }
    }

    /// The page that starts at this token. It is the [`next`](DeadLetterPage::next) of the page
    /// before.
    #[must_use]
    pub fn with_token(mut self, token: PageToken) -> Self {
        self.token = Some(token);
        self
    }

    /// Sets the largest number of items.
    #[must_use]
    pub fn with_max(mut self, max: usize) -> Self {
        self.max = max;
        self
    }

    /// The largest number of items on the page.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Where the page starts. `None` for the first page.
    pub fn token(&self) -> Option<&PageToken> {
        self.token.as_ref()
    }
}

/// A type of page. Its items have a name of their own.
macro_rules! page {
    ($(#[$doc:meta])* $page:ident { $(#[$items_doc:meta])* $items:ident: $item:ident }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $page {
            $(#[$items_doc])*
            pub $items: Vec<$item>,
            /// Where the next page starts. `None` if this is the last page.
            pub next: Option<PageToken>,
        }

        impl $page {
            /// The last page.
            pub fn new($items: Vec<$item>) -> Self {
                let next = None;
                Self { $items, next }
            }
        }

        setters!($page { with_next next: Option<PageToken> });

        impl Deref for $page {
            type Target = [$item];

            fn deref(&self) -> &[$item] {
                &self.$items
            }
        }

        impl IntoIterator for $page {
            type Item = $item;
            type IntoIter = std::vec::IntoIter<$item>;

            fn into_iter(self) -> Self::IntoIter {
                self.$items.into_iter()
            }
        }

        impl<'a> IntoIterator for &'a $page {
            type Item = &'a $item;
            type IntoIter = std::slice::Iter<'a, $item>;

            fn into_iter(self) -> Self::IntoIter {
                self.$items.iter()
            }
        }
    };
}

page! {
    /// A page of the list of dead letters. Use it like a slice, or iterate over it.
    ///
    /// Only a page without a [`next`](DeadLetterPage::next) is the last one. A page may be shorter than
    /// requested, or empty, and still have a next one.
    DeadLetterPage {
        /// The dead letters of this page, in the order of the list.
        letters: DeadLetter
    }
}

page! {
    /// A page of the list of live messages. Use it like a slice, or iterate over it.
    ///
    /// Only a page without a [`next`](MessagePage::next) is the last one. A page may be shorter than
    /// requested, or empty, and still have a next one.
    MessagePage {
        /// The messages of this page, in the order of the list.
        messages: PeekedMessage
    }
}
