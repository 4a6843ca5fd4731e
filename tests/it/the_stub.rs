//! The stub upstream keeps the contract that every other test relies on.
