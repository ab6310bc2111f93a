//! The real binary from outside: serving, stopping, backup, the demonstration, and the fault harness.

mod audit;
mod cluster;
mod commands;
mod demo;
mod devices;
mod enrolment;
mod keys;
mod overload;
mod people;
mod process;
mod serving;
mod torture;
