//! Similarity requests: query and candidates are embedded through the cache, and the candidates are ranked by cosine.

mod handle;
mod route;
mod score;

pub(super) use route::SimilarRoute;
