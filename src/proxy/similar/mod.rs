//! Similarity requests: query and candidates are embedded through the cache, and the candidates are ranked by cosine.

mod handle;
mod lengths;
mod route;
mod score;
mod unranked;

pub(super) use route::SimilarRoute;
