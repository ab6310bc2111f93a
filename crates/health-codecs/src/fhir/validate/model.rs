//! The shape of the element tables: what a type has, how often, and of what kind.

use super::primitives;

/// Which elements a type has besides its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// `id`, `extension`.
    Element,
    /// The same with `modifierExtension`.
    Backbone,
    /// `id`, `meta`, `implicitRules`, `language`.
    Resource,
    /// The same with `text`, `contained`, `extension`, `modifierExtension`.
    Domain,
}

/// How often an element may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
    /// 0..1
    Optional,
    /// 1..1
    Required,
    /// 0..*
    Any,
    /// 1..*
    Some,
}

impl Cardinality {
    /// Whether it must be there.
    pub(super) const fn is_required(self) -> bool {
        matches!(self, Cardinality::Required | Cardinality::Some)
    }

    /// Whether it is written as an array.
    pub(super) const fn is_array(self) -> bool {
        matches!(self, Cardinality::Any | Cardinality::Some)
    }
}

/// What an element holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A primitive.
    Primitive(primitives::Primitive),
    /// One of these codes (a required binding).
    OneOf(&'static [&'static str]),
    /// A complex type.
    Complex(&'static Type),
    /// A reference to one of these resource types; empty for any.
    Reference(&'static [&'static str]),
    /// A resource of any type.
    Resource,
    /// `name[x]`: one of these suffixes.
    Choice(&'static [(&'static str, Kind)]),
    /// A complex type that we only check to be a sound object.
    Opaque,
}

/// One element of a type.
pub(super) struct Element {
    /// Its name; for a choice without the type.
    pub(super) name: &'static str,
    /// How often.
    pub(super) cardinality: Cardinality,
    /// Of what kind.
    pub(super) kind: Kind,
}

/// A type or a resource.
pub(super) struct Type {
    /// Its name, with the path inside the resource for a part of one.
    pub(super) name: &'static str,
    /// Which elements it has besides its own.
    pub(super) base: Base,
    /// Its own elements.
    pub(super) elements: &'static [Element],
}

impl Type {
    /// All elements, its own first.
    pub(super) fn all_elements(&self) -> impl Iterator<Item = &'static Element> + use<> {
        self.elements.iter().chain(inherited(self.base))
    }
}

const fn element(name: &'static str, cardinality: Cardinality, kind: Kind) -> Element {
    Element { name, cardinality, kind }
}

fn inherited(base: Base) -> &'static [Element] {
    use super::datatypes::{EXTENSION, META, NARRATIVE};
    use super::primitives::Primitive::{Code, Id, String, Uri};
    static ELEMENT: [Element; 2] = [
        element("id", Cardinality::Optional, Kind::Primitive(String)),
        element("extension", Cardinality::Any, Kind::Complex(&EXTENSION)),
    ];
    static BACKBONE: [Element; 3] = [
        element("id", Cardinality::Optional, Kind::Primitive(String)),
        element("extension", Cardinality::Any, Kind::Complex(&EXTENSION)),
        element("modifierExtension", Cardinality::Any, Kind::Complex(&EXTENSION)),
    ];
    static RESOURCE: [Element; 4] = [
        element("id", Cardinality::Optional, Kind::Primitive(Id)),
        element("meta", Cardinality::Optional, Kind::Complex(&META)),
        element("implicitRules", Cardinality::Optional, Kind::Primitive(Uri)),
        element("language", Cardinality::Optional, Kind::Primitive(Code)),
    ];
    static DOMAIN: [Element; 8] = [
        element("id", Cardinality::Optional, Kind::Primitive(Id)),
        element("meta", Cardinality::Optional, Kind::Complex(&META)),
        element("implicitRules", Cardinality::Optional, Kind::Primitive(Uri)),
        element("language", Cardinality::Optional, Kind::Primitive(Code)),
        element("text", Cardinality::Optional, Kind::Complex(&NARRATIVE)),
        element("contained", Cardinality::Any, Kind::Resource),
        element("extension", Cardinality::Any, Kind::Complex(&EXTENSION)),
        element("modifierExtension", Cardinality::Any, Kind::Complex(&EXTENSION)),
    ];
    match base {
        Base::Element => &ELEMENT,
        Base::Backbone => &BACKBONE,
        Base::Resource => &RESOURCE,
        Base::Domain => &DOMAIN,
    }
}

/// Writes tables of types: `NAME "Name" Base { "element" Cardinality Kind; … }`.
macro_rules! types {
    ($( $konst:ident $name:literal $base:ident { $( $element:literal $cardinality:ident $kind:expr; )* } )*) => {
        $(
            #[doc = concat!("`", $name, "`.")]
            pub(super) static $konst: Type = Type {
                name: $name,
                base: Base::$base,
                elements: &[ $( Element {
                    name: $element,
                    cardinality: Cardinality::$cardinality,
                    kind: $kind,
                } ),* ],
            };
        )*
    };
}
pub(super) use types;
