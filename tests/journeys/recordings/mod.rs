//! A replay of what a real osqueryd sent, byte by byte but for the secret, the key and the names of the machine.

mod journey;
mod recorded;
mod said;
