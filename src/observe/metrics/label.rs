//! The form of label values: enums, so that no other series can exist.

/// A closed set of label values. A value has an index, through which its handle is found.
pub trait Label: Copy + 'static {
    /// Every printed value, in the order of [`Label::index`].
    const LABELS: &'static [&'static str];

    /// Returns the index in [`Label::LABELS`].
    fn index(self) -> usize;
}

/// Defines an enum of label values with their printed forms.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Every value, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// Returns the printed value.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl $crate::observe::metrics::Label for $name {
            const LABELS: &'static [&'static str] = &[$($text),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(super) use labels;
