//! The manager's router on a real database, as the role that it has in production.

mod access;
mod changes;
mod configs;
mod pages;
mod rest;
mod sample;
mod world;
