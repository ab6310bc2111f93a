//! The tests of the room from outside.

mod deciding;
