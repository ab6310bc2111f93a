//! The real binary from outside: serving, stopping, backup, the demonstration, and kill -9 under load.

mod commands;
mod crash;
mod demo;
mod devices;
mod process;
mod serving;
