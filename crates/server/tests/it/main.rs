//! The real binary from outside: serving, stopping, backup, the demonstration, and the fault harness.

mod audit;
mod bombs;
mod cluster;
mod commands;
mod demo;
mod devices;
mod enrolment;
mod keys;
mod overload;
mod people;
mod person;
mod process;
mod program;
mod secrets;
mod serving;
mod torture;
