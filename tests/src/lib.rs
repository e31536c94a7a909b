//! Stories: what the user gets, told with real binaries and real peers. They are in `tests/stories/`, one module
//! each; this library is empty because what they share is in `testkit/`.
