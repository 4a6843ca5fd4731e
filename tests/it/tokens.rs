//! Callers that the claims of their tokens name (`auth.identity = "token"`): a renewed token keeps the entries of its
//! owner, and a token that the upstream has not accepted itself gets nothing of them.

mod commands;
mod forged;
mod issued;
mod renewed;
mod separate;
