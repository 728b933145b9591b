//! What a form asks for a destination: the fields of its kind.

/// How a field of the settings looks in a form.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key in the settings.
    pub name: &'static str,
    /// What a form calls it.
    pub label: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// What is typed in.
    pub input: Input,
    /// Must it be given?
    pub required: bool,
    /// What a new form says; for a choice its first one.
    pub default: &'static str,
}

/// What is typed into a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// One line.
    Text,
    /// A port.
    Number,
    /// Never shown again; left empty in an edit it stays as it was.
    Secret,
    /// Several lines.
    LongText,
    /// One of these: the value, and what people read.
    Choice(&'static [(&'static str, &'static str)]),
}

impl Field {
    /// A field that must be given.
    pub(super) const fn new(
        name: &'static str,
        label: &'static str,
        help: &'static str,
        input: Input,
    ) -> Self {
        Self {
            name,
            label,
            help,
            input,
            required: true,
            default: "",
        }
    }

    /// One line.
    pub(super) const fn text(name: &'static str, label: &'static str, help: &'static str) -> Self {
        Self::new(name, label, help, Input::Text)
    }

    /// What is never shown again.
    pub(super) const fn secret(
        name: &'static str,
        label: &'static str,
        help: &'static str,
    ) -> Self {
        Self::new(name, label, help, Input::Secret)
    }

    /// The same field, which may be left empty.
    pub(super) const fn optional(self) -> Self {
        Self {
            required: false,
            ..self
        }
    }

    /// The same field, filled in for a start.
    pub(super) const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }
}

/// The field in which people paste the certificate of an authority of their own.
pub(super) const CA_CERTIFICATE: Field = Field::new(
    "ca_certificate",
    "CA certificate",
    "PEM, if the server's is not publicly trusted.",
    Input::LongText,
)
.optional();
